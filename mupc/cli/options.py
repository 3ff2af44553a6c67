"""Option values that several commands share."""

from __future__ import annotations

import re

from mupc.errors import MupcError


def parse_base(pairs: tuple[str, ...]) -> dict[str, int]:
    """`("n_embd=256",)` -> `{"n_embd": 256}`."""
    base: dict[str, int] = {}
    for pair in pairs:
        found = re.fullmatch(r"([\w.]+)=(\d+)", pair)
        if found is None or int(found[2]) == 0:
            raise MupcError(f"--base {pair!r}: write DIM=SIZE, for example n_embd=256")
        base[found[1]] = int(found[2])
    return base
