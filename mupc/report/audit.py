"""An audit that a person reads in a terminal: what it matches, what is off and by how much, what is right."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from rich.text import Text

from mupc.audit.document import Audit, Held, Row
from mupc.report.layout import lines_of, table_of
from mupc.report.names import folded
from mupc.report.text import ansi

WORDS = {"init": "init std", "lr": "lr", "eps": "eps", "weight_decay": "decay"}
ORDER = ("optimizer", "multiplier", "init", "lr", "weight_decay", "eps")
SHOWN = 6  # parametrizations listed


def render(audit: Audit, *, verbose: bool = False, color: bool = False, width: int = 100) -> str:
    """Audit -> text; the same text with and without colour."""
    width = max(width, 40)
    sections = [_head(audit, width), _matches(audit, width), *_rows(audit, verbose, width), _foot(audit, width)]
    lines = list(chain.from_iterable([*section, Text()] for section in sections if section))[:-1]
    return "".join(ansi(lines) if color else (line.plain + "\n" for line in lines))


def _head(audit: Audit, width: int) -> list[Text]:
    moved = ", ".join(f"{d.name} {d.base} -> {d.size}" for d in audit.dims if d.base != d.size)
    what = f"held against {audit.parametrization}" + (f" for {audit.optimizer}" if audit.optimizer else "")
    return [Text(audit.target, "bold"), *lines_of(f"{what}: {moved}", width)]


def _matches(audit: Audit, width: int) -> list[Text]:
    if not audit.matches:
        return []
    best = [m for m in audit.matches if m.agree / m.of == audit.matches[0].agree / audit.matches[0].of]
    names = " = ".join(m.parametrization for m in best)
    out = lines_of(f"Best match: {names}, {best[0].agree} of {best[0].of} tensors in init and rate", width, "bold")
    rest = [m for m in audit.matches if m not in best][:SHOWN]
    said = ", ".join(f"{m.parametrization} {m.agree} of {m.of}" for m in rest)
    out += lines_of(f"  then {said}", width, hang="  ") if said else []
    return out + (lines_of(f"Its limit: {audit.regime}", width, hang="  ") if audit.regime else [])


def _rows(audit: Audit, verbose: bool, width: int) -> Iterable[list[Text]]:
    for title, verdict, style in (("Off", "off", "red"), ("Not judged", "unknown", "yellow"), ("Right", "ok", "green")):
        held = [(row, h) for row in audit.rows for h in row.held if h.verdict == verdict]
        if not held or (verdict == "ok" and not verbose):
            continue
        held.sort(key=lambda one: ORDER.index(one[1].what))
        cells = [(_name(row), _cells(row, h)) for row, h in held]
        rows = [[fold.name, *fold.shown] for fold in folded(cells)]
        head = ["tensor", "role", "what", "is", "should be", "off by", "goes as", "note"]
        used = [i for i, _ in enumerate(head) if i < 4 or any(row[i] for row in rows)]
        count = f"  {len(held)} setting{'s' * (len(held) != 1)} of {len({row.name for row, _ in held})} tensors"
        table = table_of([head[i] for i in used], [[row[i] for i in used] for row in rows], width)
        yield [Text.assemble((title, f"bold {style}"), (count, "dim")), *table]


def _name(row: Row) -> str:
    return row.name + (f"[{row.part[1]}:{row.part[2]}]" if row.part else "")


def _cells(row: Row, h: Held) -> tuple[str, ...]:
    known = h.verdict != "unknown"
    base, size = _said(h.base, h.what), _said(h.size, h.what)
    values = f"{base} -> {size}" if h.base != h.size else size
    return (
        row.sub_role or row.role,
        WORDS.get(h.what, h.what),
        values,
        _said(h.wanted, h.what) if known and h.verdict == "off" else "",
        f"x{h.factor:.2g}" if known and h.verdict == "off" and h.factor is not None else "",
        h.law if h.law != "1" or h.verdict == "off" else "",
        h.note,
    )


def _said(value: float | str | None, what: str) -> str:
    """A sample's RMS to the two digits that it has in any draw; what is set, to four."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.2g}" if what == "init" else f"{value:.4g}"


def _foot(audit: Audit, width: int) -> list[Text]:
    judged = {row.name for row in audit.rows if any(h.verdict != "unknown" for h in row.held)}
    off = {row.name for row in audit.rows if row.off}
    every = {row.name for row in audit.rows}
    lines = lines_of(f"Coverage: {len(judged)} of {len(every)} judged, {len(off)} off", width, "bold")
    return lines + [line for note in audit.notes for line in lines_of(f"Note: {note}", width, hang="  ")]
