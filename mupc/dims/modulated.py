"""Weights that data scales before they are used (StyleGAN2), or turns (MLA's absorbed form): the rest comes later.

The product of a weight and a style is an activation, yet linear in the weight, whose axes it still has. Where one of
these is contracted with another activation, that is the weight's use: the product alone would pass for an input layer.
"""

from __future__ import annotations

from collections import defaultdict

from torch import fx

from mupc.dims.atoms import Axis
from mupc.dims.records import DATA, Folded, Held, RawUse, Trail
from mupc.ops.table import called
from mupc.signature import Signature


def follow(state: Folded, node: fx.Node, signature: Signature, sources: list[fx.Node], env: dict[str, Axis]) -> None:
    """Carry what is linear in a weight through one op, or note the use that it ends in."""
    if len(signature.results) != 1 or signature.kind not in ("multilinear", "layout"):
        return
    if (not state.uses or state.uses[-1].node is not node) and state.held.keys().isdisjoint(sources):
        return
    started = {use.parameter: use for use in state.uses[-len(sources) :] if use.node is node and use.contracts}
    for i, source in enumerate(sources):
        weight = state.weights.get(source)
        held = [Held(use, weight.trails) for p, use in started.items() if weight and p in weight.parameters]
        for one in [*held, *state.held.get(source, ())]:
            if one.use.node is not node or _keeps_several(signature, i, one):
                _step(state, node, signature, sources, i, one, env)


def _keeps_several(signature: Signature, i: int, held: Held) -> bool:
    """Are several axes of the parameter left in the result?"""
    kept = (t for axis, t in zip(signature.flat[i], held.trails, strict=False) if not signature.out.isdisjoint(axis))
    return len({place for trail in kept for place in trail if place[0] == held.use.parameter}) > 1


def _step(
    state: Folded,
    node: fx.Node,
    signature: Signature,
    sources: list[fx.Node],
    i: int,
    held: Held,
    env: dict[str, Axis],
) -> None:
    trails: dict[str, Trail] = defaultdict(frozenset)
    for axis, trail in zip(signature.flat[i], held.trails, strict=False):
        for label in axis:
            trails[label] |= frozenset(place for place in trail if place[0] == held.use.parameter)
    gone = {label for label, trail in trails.items() if trail and label not in signature.out}
    term = next((t for t in signature.terms if i in t), (i,))
    others = [j for j in term if j != i and state.status[sources[j]] == DATA]
    beside = frozenset[str]().union(*(signature.held[j] for j in others))
    if held.use.node is not node and gone:
        if gone <= beside | set(signature.marks):
            state.then[held.use.parameter, held.use.node] = _ended(node, signature, held, trails, gone, beside, env)
        return
    left = tuple(frozenset[tuple[str, int]]().union(*(trails[label] for label in axis)) for axis in signature.made[0])
    if len({place for trail in left for place in trail}) > 1:
        state.held.setdefault(node, []).append(Held(held.use, left))


def _ended(
    node: fx.Node,
    signature: Signature,
    held: Held,
    trails: dict[str, Trail],
    gone: set[str],
    beside: frozenset[str],
    env: dict[str, Axis],
) -> RawUse:
    """The first use's words for axes that it contracted; for the others, those of the contraction at the end."""
    words: dict[int, list[tuple[str, Axis]]] = defaultdict(list)
    for label, trail in trails.items():
        kernel = signature.marks.get(label) == "kernel"
        word = "kernel" if kernel else "in" if label in gone else "batch" if label in beside else "out"
        for _, at in trail:
            words[at].append((word, env[label]))
    axes = tuple(tuple(words.get(at, entries)) for at, entries in enumerate(held.use.axes))
    return RawUse(held.use.parameter, node, called(node.target), axes, True)
