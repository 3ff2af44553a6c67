"""Rows of cells as lines of text: columns side by side where they fit, long names on lines of their own where not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.text import Text

GAP, INDENT = "  ", "    "
SOLID = "\N{NO-BREAK SPACE}"  # a space where no line breaks
LEAST = 16  # no column is wrapped to less than this


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[str]]:
    """The lines of the head and those of the rows, at most `width` wide if no word is wider; nothing is cut off.

    Cells may have several lines. Where all does not fit, the widest columns but the first are wrapped at spaces; where
    that does not do, the first column gets lines of its own.
    """
    widths = [max(_wide(row[i]) for row in (head, *rows)) for i in range(len(head))]
    if _fit(widths, width):
        return list(_beside(head, widths)), [line for row in rows for line in _beside(row, widths)]
    rest = [max(_wide(row[i]) for row in (head, *rows)) for i in range(1, len(head))]
    _fit(rest, width - len(INDENT), first=0)
    return _stacked(head, rest), [line for row in rows for line in _stacked(row, rest)]


def _stacked(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0], *(INDENT + line for line in _beside(row[1:], widths))]


def _wide(cell: str) -> int:
    return max((len(line) for line in cell.split("\n")), default=0)


def _fit(widths: list[int], width: int, first: int = 1) -> bool:
    """Narrow the widest columns from `first` on until the sum fits; False where it cannot."""

    def over() -> int:
        return sum(widths) + len(GAP) * (len(widths) - 1) - width

    while over() > 0:
        i = max(range(first, len(widths)), key=lambda i: widths[i], default=-1)
        if i < 0 or widths[i] <= LEAST:
            return False
        widths[i] -= min(over(), max(1, widths[i] - LEAST), max(1, widths[i] // 8))
    return True


def _beside(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    cells = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for i in range(max((len(cell) for cell in cells), default=0)):
        line = GAP.join((c[i] if i < len(c) else "").ljust(w) for c, w in zip(cells, widths, strict=True))
        yield line.rstrip()


def wrapped(text: str, width: int, hang: str = "") -> list[str]:
    """Lines of at most `width`, broken at spaces alone; further lines start with `hang`."""
    return [
        line
        for part in text.split("\n")
        for line in textwrap.wrap(
            part, max(width, LEAST), subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]


def lines_of(text: str, width: int, style: str = "", hang: str = "") -> list[Text]:
    """A paragraph, styled."""
    return [Text(line.replace(SOLID, " "), style) for line in wrapped(text, width, hang)]


def table_of(head: list[str], rows: list[list[str]], width: int) -> list[Text]:
    """A table, its head dimmed, indented by two."""
    heads, lines = table(head, rows, width - 2)
    return [*(Text("  " + line, "dim") for line in heads), *(Text("  " + line) for line in lines)]
