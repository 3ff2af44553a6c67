"""What a set-up does as it stands: what grows, what freezes, at which line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.text import Text

from mupc.plan import Activation, Movement, Plan, Standing
from mupc.report.layout import lines_of, table_of
from mupc.report.names import folded

MOST = 12  # rows of each table, unless asked for all
WORDS = {"explodes": "grows", "vanishes": "vanishes", "lazy": "freezes"}
REGIMES = {
    "unstable": "unstable: something grows with the width",
    "kernel": "kernel (lazy): outputs move, features do not",
    "feature learning": "feature learning: stable, and every feature moves",
    "trivial": "trivial: the outputs stop moving",
    "unknown": "not known: something before the output is not",
}


def section(plan: Plan, said: Standing | None, width: int, verbose: bool) -> list[Text]:
    """The set-up under one width n that goes to infinity; empty where nothing is known of it."""
    if said is None:
        return []
    rates = "rates that go with width" if said.shown else "one rate for all"
    head = f"As it stands (init {said.init}; {said.optimizer}, {rates}): {REGIMES.get(said.regime, said.regime)}"
    out = [Text(head.partition(":")[0] + ":", "bold") + Text(head.partition(":")[2])]
    off = [a for a in plan.activations if a.verdict not in ("ok", "unknown")]
    values = off if verbose else [a for a in off if a.name in said.causes]
    rows = list(_values(values))
    if rows:
        out += [Text("  with the width n, at a rate that is held:")]
        out += _cut(["value", "at init", "change a step", "gradient", "verdict", "line"], rows, width, verbose)
        if len(off) > len(values):
            out.append(Text(f"  and {len(off) - len(values)} values that these pass it on to: --verbose", "dim"))
    moved = list(_moved(m for m in said.moved if m.verdict in ("explodes", "lazy")))
    if moved:
        out += [Text("  each parameter's own update, at its use:")]
        out += _cut(["parameter", "moves it by", "verdict", "line"], moved, width, verbose)
    if not said.rate:
        out.append(Text("  No rate makes it stable: it grows at init."))
    elif said.rate != "0":
        frozen = folded((m.name, m.power) for m in said.frozen)
        names = ", ".join(f"{one.name} (n^{one.shown})" for one in (frozen if verbose else frozen[:8]))
        more = f" and {len(frozen) - 8} more" if len(frozen) > 8 and not verbose else ""
        then = f"; then these stop learning: {names}{more}" if frozen else ""
        out += lines_of(f"  The largest rate that stays stable goes as n^{said.rate}{then}", width, hang="  ")
    for stream in said.depth:
        sizes = f"starts at {_power(stream.init, 'L')} and moves by {_power(stream.delta1, 'L')} a step"
        kind = ", and more with every block (geometric)" if stream.verdict == "geometric" else ""
        out += lines_of(f"  With the depth L, the stream {stream.name} ({line_of(stream.source)}) {sizes}{kind}", width,
                        hang="  ")  # fmt: skip
    for note in said.notes:
        out += lines_of(f"  {note}", width, "dim", hang="    ")
    return out


def _cut(head: list[str], rows: list[list[str]], width: int, verbose: bool) -> list[Text]:
    kept = rows if verbose else rows[:MOST]
    more = [Text(f"  ... {len(rows) - len(kept)} more: --verbose", "dim")] if len(rows) > len(kept) else []
    return [*table_of(head, kept, width), *more]


def _values(found: Iterable[Activation]) -> Iterable[list[str]]:
    """Blocks alike in all but their number together."""
    alike = dict.fromkeys((a.name.partition("#")[0], a.init, a.delta1, a.grad, a.verdict, a.source) for a in found)
    entries = ((_dotted(name), tuple(shown)) for name, *shown in alike)
    for one in folded(entries):
        init, delta, grad, verdict, source = one.shown
        sizes = [_power(init), _power(delta), _power(grad)]
        yield [one.name.replace(".:", " "), *sizes, WORDS[str(verdict)], line_of(source)]


def _moved(found: Iterable[Movement]) -> Iterable[list[str]]:
    for one in folded((m.name, (m.power, m.verdict, m.source)) for m in found):
        power, verdict, source = one.shown
        yield [one.name, _power(power), WORDS[verdict], line_of(source)]


def line_of(source: str | None) -> str:
    """A library's file by its name in the library."""
    return re.sub(r"^.*(site|dist)-packages/", "", source or "")


def _dotted(name: str) -> str:
    """`h.0 add#2` -> `h.0.:add#2`, so that numbers of blocks are words of their own."""
    return re.sub(r" (?=[^ ]+$)", ".:", name)


def _power(power: str | None, of: str = "n") -> str:
    if power is None:
        return "0"
    return "1" if power == "0" else f"{of}^{power}"
