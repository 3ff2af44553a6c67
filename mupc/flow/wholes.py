"""Ops that hold a whole computation: attention, and recurrent networks over all their steps."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from torch import fx

from mupc.flow.functions import beside, settled
from mupc.flow.powers import HALF, least, most, times
from mupc.flow.value import EMPTY, Value
from mupc.signature import Signature

if TYPE_CHECKING:
    from mupc.flow.forward import Forward

ZERO = Fraction(0)


def attention(run: Forward, node: fx.Node, given: list[Value]) -> Value:
    """softmax(scale q.k) v: scores as a product of activations, a mean of values weighed by them."""
    q, k, v = given[:3]
    over = run.rate(node, "d")
    scale = run.setup.numbers.get(node.name, -over * HALF)
    generators = q.generators ^ k.generators
    init = times(q.init, k.init, (over * HALF if generators else over) + scale)
    moved = most((times(q.delta1, k.init, over + scale), times(q.init, k.delta1, over + scale)))
    moved_all = most((moved, times(q.delta, k.init, over + scale), times(q.init, k.delta, over + scale),
                      times(q.delta, k.delta, over + scale)))  # fmt: skip
    weights = least(moved_all, ZERO)
    known = q.known and k.known and node.name not in run.setup.unsure
    found = Value(init, moved, moved_all, None, moved, generators, known=known)
    change = most((v.delta1, None if settled(found) else times(v.init, moved)))
    later = most((v.delta, times(v.init, weights), times(v.delta, weights)))
    run.scores[node] = found
    return Value(v.init, change, later, None, change, v.generators, mixed=beside(found))


def recurrent(
    run: Forward, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]
) -> Value:  # fmt: skip
    """Gates and states are bounded by their sigmoids and tanh; what comes in is summed as by any matrix."""
    weights = [i for i in range(len(given)) if i in signature.words]
    x = given[0]
    init, effective, coming = [], [], []
    for i in weights:
        over = sum(
            (run.rates(node, frozenset(axis)) for axis, word in
             zip(signature.flat[i], signature.words[i], strict=True) if word == "in"), ZERO,
        )  # fmt: skip
        vector = "in" not in signature.words[i]
        inward = ZERO if vector else most((x.init, ZERO)) or ZERO
        init.append(times(given[i].init, over * HALF, inward))
        effective.append(run.effect(node, sources[i], times(given[i].delta1, over, inward)))
        coming.append(None if vector else times(given[i].init, over * HALF, x.delta1))
    found = most((*effective, *coming))
    size = least(most(init), ZERO)
    return Value(size, found, least(found, ZERO), most(effective), most(coming), x.generators and EMPTY)
