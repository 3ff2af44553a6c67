"""The verdict on a dim, and what most verdicts say: it is made, it is consumed, so it grows (rules 6 and 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx

from mupc.dims.atoms import Atom
from mupc.dims.facts import Facts
from mupc.dims.records import RawUse


@dataclass(frozen=True, slots=True)
class Kind:
    """The verdict on one atom. `grows` is None where it is not known."""

    kind: str
    grows: bool | None
    why: str


def width(facts: Facts, atom: Atom) -> Kind:
    """Rules 6 and 7: what a parameter makes and a parameter consumes grows; so does an unsplit dim of a dot product."""
    fact = facts.of[atom]
    if fact.scales:
        return Kind("width", True, f"made by {who(fact.produced)}, consumed by {who(fact.consumed)}")
    if fact.consumed and (maker := spread_by(facts, atom)):
        return Kind("width", True, f"made by {who([maker])}, one to each value of it; consumed by {who(fact.consumed)}")
    if "opaque" in fact.marks:
        return Kind("unknown", None, "goes through an op whose meaning is not known")
    if "routed" in fact.marks and fact.produced:
        return Kind("experts", False, f"made by {who(fact.produced)}; only choices are made along it")
    if fact.produced and fact.contracted:
        return Kind(
            "width",
            True,
            f"made by {who(fact.produced)}, contracted between activations at {at(fact.contracted)}, unsplit",
        )
    if fact.produced and "stream" in fact.marks:
        return Kind("width", True, f"made by {who(fact.produced)}, returned as a hidden state")
    if fact.produced and (found := _end(facts, atom)):
        return found
    if fact.produced and "constant" in fact.marks:
        return Kind("unknown", None, f"made by {who(fact.produced)}, and read by constants alone: features, or bins?")
    return Kind(
        "data",
        False,
        f"made by {who(fact.produced)}, consumed by no parameter" if fact.produced else "no parameter makes it",
    )


def spread_by(facts: Facts, atom: Atom) -> RawUse | None:
    """The use that makes the axis by spreading data over it, as `x[:, None] - centres` does: units like a layer's.

    Not where the parameter has a width beside (learned tokens are a count), nor where it reads its own axis back (a
    codebook).
    """
    fact, expand = facts.of[atom], facts.folded.atoms.expand
    readers = {use.parameter for use in fact.consumed}
    for use in fact.carried:
        entries = [(word, a) for axis in use.axes for word, inner in axis for a in expand(inner)]
        spreads = ("out", atom) in entries and not use.contracts and use.parameter not in readers
        if spreads and not any(a != atom and facts.of[a].scales for _, a in entries):
            return use
    return None


def why_grows(facts: Facts, atom: Atom) -> str:
    fact = facts.of[atom]
    made = f"made by {who(fact.produced)}" if fact.produced else "made"
    return f"{made}, consumed by {who(fact.consumed)}" if fact.consumed else f"{made}; its partners are fixed"


def _end(facts: Facts, atom: Atom) -> Kind | None:
    """An axis of a second output: a width of the same size is taken as the same dim, and marked as a guess."""
    atoms = facts.folded.atoms
    if "returned" not in facts.of[atom].marks:
        return None
    size, finite = atoms.size[atom], {"lookup", "kernel", "data", "count"}
    widths: list[tuple[Atom, ...]] = [
        (a,) for a, f in facts.of.items() if a != atom and f.scales and not f.marks & finite
    ]
    widths += [p for p in facts.products if any(facts.of[a].scales and not facts.of[a].marks & finite for a in p)]
    if not any(atoms.length(axis) == size for axis in widths):
        return None
    return Kind("width", True, f"assumed: an axis of a second output, as long ({size}) as a width")


def who(uses: Iterable[RawUse]) -> str:
    use = next(iter(uses))
    source = use.node.meta.get("source")
    return f"{use.parameter} ({source})" if source else use.parameter


def at(nodes: Iterable[fx.Node]) -> str:
    node = next(iter(nodes))
    return str(node.meta.get("source") or node.name)
