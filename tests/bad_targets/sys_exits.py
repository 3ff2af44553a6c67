"""A script whose main part is not guarded."""

import sys

print("usage: sys_exits.py DATA")
sys.exit(0)
