"""What lies between where a dim is made and where it is consumed: only linear ops? A residual stream?"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from torch import fx

from mupc.dims.atoms import Atom
from mupc.dims.facts import Facts
from mupc.dims.records import DATA, WEIGHT, RawUse
from mupc.ops import signature_of
from mupc.ops.table import shapes
from mupc.signature import labels

FINITE = {"lookup", "kernel", "data", "count"}


def linear_pair(facts: Facts, atom: Atom, makers: Iterable[RawUse]) -> tuple[RawUse, RawUse] | None:
    """A weight that makes the dim and one that consumes it, both wider, with only linear or norm ops between.

    None where any consumer is also reached through something else: then the dim is more than a factorization. Readouts
    do not count, neither as wide nor as consumers: behind an activation a factorized embedding is still one.
    """
    fact = facts.of[atom]
    size = facts.folded.atoms.size[atom]
    consumers = {use.node: use for use in fact.consumed if not _is_readout(facts, use)}
    found: tuple[RawUse, RawUse] | None = None
    for made in makers:
        for node, linear in _reached(facts, made.node, atom, set(consumers)):
            used = consumers[node]
            if not linear or not _alone(facts, used):
                return None
            read = max(size, _other(facts, used, "in"))  # more where other dims are laid beside it
            if found is None and _before(facts, made, size) > size and _after(facts, used, size) > read:
                found = made, used
    return found


def copies(facts: Facts, atom: Atom) -> tuple[RawUse, RawUse] | None:
    """A weight that makes the dim and one that consumes it, linearly, each beside channels that neither touches.

    Such a dim counts copies of the stream (hyper-connections): what mixes them mixes no channels. Heads and token axes
    have a nonlinearity, or a weight over the channels too, in between.
    """
    fact = facts.of[atom]
    consumers = {use.node: use for use in fact.consumed if _channels(facts, use)}
    for made in fact.produced if consumers else ():
        channels = _channels(facts, made)
        for node, linear in _reached(facts, made.node, atom, set(consumers)) if channels else ():
            if linear and _alone(facts, consumers[node]) and channels & _channels(facts, consumers[node]):
                return made, consumers[node]
    return None


def _channels(facts: Facts, use: RawUse) -> set[Atom]:
    """What grows beside a use: axes of the result that its weight does not have. A factor of places is a place."""
    expand = facts.folded.atoms.expand
    own = {a for entries in use.axes for _, axis in entries for a in expand(axis)}
    axes = [expand(axis) for tensor in facts.folded.tensors[use.node] for axis in tensor]
    beside = {a for axis in axes if not any("data" in facts.of[a].marks for a in axis) for a in axis} - own
    return {a for a in beside if _scales(facts, a) and not facts.of[a].marks & (FINITE | {"picked"})}


def _scales(facts: Facts, atom: Atom) -> bool:
    """Made and consumed; a sum when one of its parts is."""
    return any(facts.of[a].scales for a in (atom, *facts.parts.get(atom, ())))


def _is_readout(facts: Facts, use: RawUse) -> bool:
    """All that it makes are axes of the model's output."""
    expand = facts.folded.atoms.expand
    out = [a for entries in use.axes for word, axis in entries if word == "out" for a in expand(axis)]
    return all(facts.of[a].marks & {"output", "stream"} and not facts.of[a].scales for a in out)


def _alone(facts: Facts, use: RawUse) -> bool:
    """One activation is contracted with the weight, not a product of two."""
    return len([s for s in set(facts.folded.sources[use.node]) if facts.folded.status.get(s) == DATA]) == 1


def _other(facts: Facts, use: RawUse, word: str) -> int:
    """The size of the axes of a use that carry that word (a look-up counts as in)."""
    words = ("in", "lookup") if word == "in" else (word,)
    return prod(
        facts.folded.atoms.length(facts.folded.atoms.expand(axis))
        for entries in use.axes
        for w, axis in entries
        if w in words
    )


def _before(facts: Facts, made: RawUse, size: int) -> int:
    """How wide what a weight reads is; behind a core, no wider itself, what is read before it."""
    wide = _other(facts, made, "in")
    makers = [(u, a) for a in _side(facts, made, "in") for u in facts.of[a].produced] if wide <= size else []
    return max([wide, *(_other(facts, u, "in") for u, a in makers if _linked(facts, u, made, a))])


def _after(facts: Facts, used: RawUse, size: int) -> int:
    """How wide what a weight makes is; before a core, no wider itself, what is made behind it."""
    wide = _other(facts, used, "out")
    readers = [(u, a) for a in _side(facts, used, "out") for u in facts.of[a].consumed] if wide <= size else []
    return max([wide, *(_other(facts, u, "out") for u, a in readers if _linked(facts, used, u, a))])


def _linked(facts: Facts, made: RawUse, used: RawUse, atom: Atom) -> bool:
    """Does only what is linear lie between, no norm (a core has none around it), and no residual stream?"""
    reached = _reached(facts, made.node, atom, {used.node}, norms=False)
    return atom not in facts.streams and reached == [(used.node, True)]


def _side(facts: Facts, use: RawUse, side: str) -> list[Atom]:
    expand = facts.folded.atoms.expand
    return [a for entries in use.axes for word, axis in entries if word == side for a in expand(axis)]


def _reached(
    facts: Facts, start: fx.Node, atom: Atom, ends: set[fx.Node], norms: bool = True
) -> list[tuple[fx.Node, bool]]:
    """The consumers that a value meets first along the dim, and whether only linear ops (or norms) lie between."""
    found: dict[tuple[fx.Node, bool], None] = {}
    seen, todo = {(start, True)}, [(start, True)]
    while todo:
        node, linear = todo.pop()
        for user in node.users:
            if user in ends:
                found[user, linear] = None
            elif user.op == "call_function" and _carries(facts, user, atom):
                state = (user, linear and _linear(facts, user, node, atom) and (norms or not _is_norm(user)))
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
    return list(found)


def _carries(facts: Facts, node: fx.Node, atom: Atom) -> bool:
    """One axis of the node's value is this dim (or a sum it is part of)."""
    expand = facts.folded.atoms.expand
    return any(
        atom == a or atom in facts.parts.get(a, ())
        for tensor in facts.folded.tensors.get(node, ())
        for axis in tensor
        for a in expand(axis)
    )


def _is_norm(node: fx.Node) -> bool:
    return getattr(node.target, "_schema", None) is not None and signature_of(node).kind == "normalise"


def _linear(facts: Facts, node: fx.Node, source: fx.Node, atom: Atom) -> bool:
    """Linear in the source's value, up to one factor per token: layout, a gain, a bias, a norm over the dim itself."""
    if not shapes(node.meta.get("val")) or getattr(node.target, "_schema", None) is None:
        return True
    signature = signature_of(node)
    sources = facts.folded.sources[node]
    data = [i for i, s in enumerate(sources) if facts.folded.status.get(s) == DATA]
    if signature.kind == "layout":
        return True
    if signature.kind == "additive":
        return True
    if signature.kind == "normalise":
        axis = [a for tensor in facts.folded.tensors[source] for a in tensor]
        return any(
            facts.folded.atoms.expand(x) == (atom,) and set(labels(p)) & signature.over
            for x, p in zip(axis, signature.operands[0], strict=False)
        )
    if signature.kind == "multilinear":
        if any(facts.folded.status.get(s) == WEIGHT for s in sources):
            return not _carries_contraction(signature.operands, signature.results)
        if len(data) < 2:
            return True
        others = [s for s in sources if s is not source]
        return not any(_carries(facts, o, atom) for o in others) and not _carries_contraction(
            signature.operands, signature.results
        )
    if signature.kind == "pointwise" and signature.terms and len(sources) == 2 and sources[0] is source:
        return not _carries(facts, sources[1], atom)  # x / norm(x)
    return False


def _carries_contraction(operands: tuple[object, ...], results: tuple[object, ...]) -> bool:
    used = {label for axes in operands for axis in axes for label in labels(axis)}  # type: ignore[attr-defined]
    kept = {label for axes in results for axis in axes for label in labels(axis)}  # type: ignore[attr-defined]
    return bool(used - kept)
