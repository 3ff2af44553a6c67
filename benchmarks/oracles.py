"""How many models and tensors the analysis agrees on with both oracles, and how many it leaves unknown.

    python benchmarks/oracles.py

Two widths: the same model built twice on meta, growing sizes doubled; an axis must be infinite exactly where its size
moved. Jacobian: each integer of the config varied alone; axes that bear one dim's name must move alike. The cases are
those of tests/oracle.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.oracle import cases_hf, cases_timm
from tests.oracle.checks import jacobian_errors, judge, tally, two_widths_errors


def main() -> None:
    warnings.simplefilter("ignore")
    print("| models | count | tensors | unknown | unused | wrong (two widths) | wrong (Jacobian) | s/model |")
    print("|---|---|---|---|---|---|---|---|")
    for library, cases in (("transformers", cases_hf.CASES), ("timm", cases_timm.CASES)):
        start = time.perf_counter()
        total, lost = tally(cases)
        unused = sum(p.role == "unused" for c in cases.values() for p in judge(c).analysis.roles.parameters.values())
        seconds = (time.perf_counter() - start) / len(cases)
        widths = sum(len(two_widths_errors(case)) for case in cases.values())
        jacobian = sum(len(jacobian_errors(case, named=True)) for case in cases.values())
        unknown = sum(map(len, lost.values()))
        row = (library, len(cases), total, unknown, unused, widths, jacobian, f"{seconds:.2f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
