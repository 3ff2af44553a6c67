"""Expected roles as text: one row a pattern, `pattern role axes`, where an axis is `n` (grows) or `.` (does not).

h.*.attn.c_attn.weight  hidden  nn
wpe.weight              input   .n
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

WORD = {True: "n", False: ".", None: "?"}


def rows(table: str) -> list[tuple[str, str, str]]:
    """The table's rows; what follows a `#` is the reason, for people."""
    found = []
    for line in table.splitlines():
        fields = line.partition("#")[0].split()
        if fields:
            pattern, role, axes = (*fields, "")[:3]
            found.append((pattern, role, axes))
    return found


def word(parameter: object) -> str:
    """A parameter's axes as one letter each."""
    return "".join(WORD[grows] for grows in parameter.infinite)  # type: ignore[attr-defined]


def mismatches(parameters: Mapping[str, object], table: str) -> list[str]:
    """What differs from the table, one line each; also rows that match nothing and parameters that no row matches."""
    expected = rows(table)
    wrong = [
        f"no parameter matches the row {p}" for p, _, _ in expected if not any(fnmatchcase(n, p) for n in parameters)
    ]
    for name, parameter in parameters.items():
        row = next((row for row in expected if fnmatchcase(name, row[0])), None)
        found = (parameter.role, word(parameter))  # type: ignore[attr-defined]
        if row is None:
            wrong.append(f"{name}: no row, found {found}")
        elif (row[1], row[2]) != found and (row[1], found[0]) != ("unused", "unused"):  # nothing is said of its axes
            wrong.append(f"{name}: expected {row[1]} {row[2]}, found {found[0]} {found[1]}")
    return wrong
