"""Which dims grow with width: the policy of DESIGN.md section 4, one function a rule, first match first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mupc.dims.atoms import Atom
from mupc.dims.factors import Factors
from mupc.dims.facts import Facts
from mupc.dims.paths import copies, linear_pair
from mupc.dims.records import RawUse
from mupc.dims.verdict import Kind, spread_by, width

__all__ = ["Kind", "kinds"]


RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
FINITE = (
    ("lookup", "lookup", "indexed: one row per id"),
    ("kernel", "kernel", "kernel of a convolution"),
    ("data", "data", "an axis of the model's input"),
    ("few", "count", "a stride, or the two parts of complex numbers"),
    ("count", "count", "as long as a list in the code: taken apart or put together one by one"),
    ("picked", "count", "single places are picked along it"),
    ("experts", "experts", "a routing decision picks along it"),
)


def kinds(facts: Facts, declared: Mapping[Atom, Kind] = MappingProxyType({})) -> dict[Atom, Kind]:
    """A verdict for every atom that a parameter's axis, or a part of one, is made of; what is declared stands."""
    out = dict(declared)
    atoms = [atom for atom, fact in facts.of.items() if fact.produced or fact.consumed or fact.carried or fact.marks]
    for atom in atoms:
        if atom in out:
            continue
        found = finite(facts, atom) or returned(facts, atom) or generated(facts, atom)
        found = found or experts(facts, atom) or dangling(facts, atom)
        if found:
            out[atom] = found
    for atom in atoms:
        if atom not in out and atom not in facts.parts and (found := state(facts, atom, out) or rank(facts, atom)):
            out[atom] = found
    Factors(facts, out).choose()
    for atom in atoms:
        if atom not in out and atom not in facts.parts:
            out[atom] = width(facts, atom)
    for atom in sorted(facts.parts, key=lambda a: len(facts.parts[a])):
        out[atom] = whole(facts, atom, out)
    return out


def finite(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 1: data, lookup and kernel axes, counts, and the primary output's features."""
    fact = facts.of[atom]
    consumed = fact.consumed or any(facts.of[part].consumed for part in facts.parts.get(atom, ()))
    for mark, kind, why in FINITE:
        if mark in fact.marks and not (mark == "count" and fact.scales) and not (mark == "picked" and consumed):
            return Kind(kind, False, why)
    if "output" in fact.marks and not fact.scales and "constant" not in fact.marks:
        return Kind("data", False, "an axis of the model's output")
    return None


def returned(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 1, the output's features where they are fed back: no residual stream, and consumed by other weights alone.

    A model that returns its hidden state returns its stream, or what one recurrent weight makes and consumes.
    """
    fact = facts.of[atom]
    if "output" not in fact.marks or atom in facts.parts or atom in facts.streams:
        return None
    if {use.parameter for use in fact.produced} & {use.parameter for use in fact.consumed}:
        return None
    if any(use.op in RECURRENT for use in (*fact.produced, *fact.consumed)):
        return None
    return Kind("data", False, "an axis of the model's output, fed back")


def experts(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 2: an axis that a weight with in and out axes of its own is batched over (experts, groups)."""
    beside = {other for product in facts.products if atom in product for other in product if other != atom}
    heads = not facts.evidence(atom) and any(
        facts.evidence(other) and "data" not in facts.of[other].marks for other in beside
    )
    if heads:
        return None
    if "routed" in facts.of[atom].marks and any(atom in axes for axes in facts.spread):
        return Kind("experts", False, "a routing decision picks along it")
    for use in facts.of[atom].carried:
        words = {word for entries in use.axes for word, _ in entries}
        if use.contracts and {"in", "out"} <= words:
            return Kind("experts", False, f"{use.parameter} is batched over it ({use.op})")
    return None


def dangling(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 1, end: made by no parameter, or carried only."""
    fact = facts.of[atom]
    if atom in facts.parts or fact.produced:
        return None
    if "opaque" in fact.marks:
        return Kind("unknown", None, "comes out of an op whose meaning is not known")
    if fact.consumed:
        return None if spread_by(facts, atom) else Kind("data", False, "no parameter makes it")
    return Kind("count", False, "an axis of parameters alone: neither contracted nor made by a weight")


def state(facts: Facts, atom: Atom, known: dict[Atom, Kind]) -> Kind | None:
    """Rule 4: contracted between activations, carried by a parameter that carries a channel axis too (SSM state)."""
    fact = facts.of[atom]
    uses = (*fact.produced, *fact.consumed, *fact.carried)
    if fact.consumed and all(_beside_channel(facts, use, atom, known) for use in uses):
        return Kind("inner", False, f"state of a scan: {uses[0].parameter} and its like have one per channel")
    if (
        not fact.contracted
        or fact.consumed
        or any(atom in axes and _grown(facts, axes, atom) for axes in (*facts.products, *facts.spread))
    ):
        return None
    for use in (*fact.carried, *fact.produced):
        if any(word in ("in", "lookup") for entries in use.axes for word, _ in entries):
            continue
        for entries in use.axes:
            for _word, axis in entries:
                for other in facts.folded.atoms.expand(axis):
                    for channel in facts.parts.get(other, (other,)):
                        if channel != atom and channel not in known and facts.of[channel].scales:
                            return Kind(
                                "inner", False, f"state of a scan: {use.parameter} carries it beside a channel axis"
                            )
    return None


def generated(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 4, end: the width of a network whose weights another network writes."""
    if "generated" in facts.of[atom].marks:
        return Kind("inner", False, "the width of a network whose weights another network writes")
    return None


def _beside_channel(facts: Facts, use: RawUse, atom: Atom, known: dict[Atom, Kind]) -> bool:
    """The parameter carries a channel axis of its own beside the dim: it has a row of these for each channel."""
    expand = facts.folded.atoms.expand
    entries = [entry for axis in use.axes for entry in axis]
    matrix = any(word in ("in", "lookup") for word, _ in entries)
    if matrix and any(word == "out" for word, _ in entries):
        return False
    carried = [a for word, axis in entries if word in ("batch", "out") for a in expand(axis)]
    return any(a != atom and a not in known and facts.of[a].scales for a in carried)


def _grown(facts: Facts, product: tuple[Atom, ...], atom: Atom) -> bool:
    return any(other != atom and facts.of[other].scales for other in product)


def rank(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 5: made and consumed with only linear or norm ops between, narrower than both sides, no residual stream."""
    fact = facts.of[atom]
    if fact.scales and (found := copies(facts, atom)):
        makes, uses = (use.parameter for use in found)
        return Kind("count", False, f"copies of the stream: {makes} and {uses} mix them and touch no channel")
    makers = fact.produced or _through(facts, atom)
    if not (makers and fact.consumed) or atom in facts.streams:
        return None
    if any(atom in axes for axes in (*facts.products, *facts.spread)):
        return None
    pair = linear_pair(facts, atom, makers)
    if pair is None:
        return None
    made, used = pair
    if _enters(facts, made) and not _feeds_stream(facts, used):
        return None  # without a stream to factorize for, an input layer's dim is a width like any other
    return Kind(
        "rank", False, f"only linear or norm ops between {made.parameter} and {used.parameter}, and narrower than both"
    )


def _through(facts: Facts, atom: Atom) -> list[RawUse]:
    """What stands in for a maker of an axis that data is spread over: the weights that contract another axis for each
    value of it (sums of Gaussians, one weight each, a feature)."""
    return [use for use in facts.of[atom].carried if use.contracts] if spread_by(facts, atom) else []


def _enters(facts: Facts, use: RawUse) -> bool:
    """Does it read ids, or what no parameter makes?"""
    expand = facts.folded.atoms.expand
    read = [a for entries in use.axes for word, axis in entries if word == "in" for a in expand(axis)]
    whole = (b for a in read for b in (a, *facts.parts.get(a, ())))
    made = (a for a in whole if facts.of[a].produced or spread_by(facts, a))
    return not any("data" not in facts.of[a].marks for a in made)


def _feeds_stream(facts: Facts, use: RawUse) -> bool:
    out = [
        atom
        for entries in use.axes
        for word, axis in entries
        if word == "out"
        for atom in facts.folded.atoms.expand(axis)
    ]
    return any(atom in facts.streams for atom in out)


def whole(facts: Facts, atom: Atom, out: dict[Atom, Kind]) -> Kind:
    """A sum grows when one of its parts does."""
    parts = [out[p] for p in facts.parts[atom] if p in out and p not in facts.parts]
    known = out.get(atom)
    if known is not None and known.grows is False:
        return known
    if any(p.grows for p in parts):
        return Kind(
            known.kind if known else "width", True, "a part of it grows: " + next(p.why for p in parts if p.grows)
        )
    if any(p.grows is None for p in parts):
        return Kind("unknown", None, next(p.why for p in parts if p.grows is None))
    if parts:
        return Kind(parts[0].kind, False, "none of its parts grows")
    return known or Kind("data", False, "none of its parts is a parameter's")
