"""By which power of c > 0 a value grows where some parameters are c times as large: its degree, or that it has none.

A norm's eps, and other numbers that guard against zero, are left out of account.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from heapq import heappop, heappush
from math import isinf

from torch import fx

from mupc.dims import Dims
from mupc.dims.records import WEIGHT
from mupc.ops import signature_of
from mupc.ops.table import GUARD, is_empty, printed, real
from mupc.signature import Signature

ZERO, ONE = Fraction(0), Fraction(1)
# Adds term by term, choices among terms, copies of one over another: as their terms are, where those agree.
TERMWISE = ("aten.add", "aten.sub", "aten.rsub", "aten.where", "aten.copy", "aten.maximum", "aten.minimum",
            "aten.fmax", "aten.fmin", "aten.masked_fill")  # fmt: skip


def degrees(
    dims: Dims, order: Mapping[fx.Node, int], ends: Collection[fx.Node], until: fx.Node
) -> dict[fx.Node, Fraction] | None:
    """Those that are not zero, of all values up to a node, the parameters that `ends` use being of degree one there.

    `order` has every node's place. None where a value is no power of c, or where one that is not of degree zero is read
    behind `until` too.
    """
    folded, live = dims.facts.folded, dims.facts.live
    last = order[until]
    found: dict[fx.Node, Fraction] = {}
    todo = sorted(ends, key=order.__getitem__)
    ready = [(order[node], node) for node in todo]
    met = set(todo)
    while ready:  # only what is made of them, in the graph's order
        _, node = heappop(ready)
        if order[node] >= last or node not in live:
            continue
        sources = folded.sources.get(node, [])
        scaled = {s: ONE for s in sources if folded.status.get(s) == WEIGHT} if node in ends else {}
        degree = _of(node, sources, {**{s: found[s] for s in sources if s in found}, **scaled})
        if degree is None:
            return None
        if degree:
            found[node] = degree
            for user in node.users:
                if user.op != "call_function" or (order[user] > last and user in live):
                    return None  # returned, or read behind the add
                if user not in met:
                    met.add(user)
                    heappush(ready, (order[user], user))
    return found


def _of(node: fx.Node, sources: list[fx.Node], known: dict[fx.Node, Fraction]) -> Fraction | None:
    """A call's degree from those of its operands that have one."""
    if node.target is operator.getitem:
        return next((known[s] for s in node.all_input_nodes if s in known), ZERO)
    if not known or not real(node):
        return ZERO  # what is counted or compared, of a value that is only larger, is the same
    given = [known.get(s, ZERO) for s in sources]
    if getattr(node.target, "_schema", None) is None:
        return None
    signature, name = signature_of(node), printed(node.target)
    if "scaled_dot_product" in name:
        return given[2] if not given[0] and not given[1] else None
    if signature.kind == "multilinear":
        return _same(sum((given[i] for i in term), ZERO) for term in signature.terms)
    if signature.kind == "normalise":
        return _normalised(signature, given, name)
    if signature.kind == "pointwise":
        return _pointwise(signature, given, name)
    if (signature.kind == "additive" and name.startswith(TERMWISE)) or signature.kind in ("layout", "index"):
        if signature.degree is None or any(_matters(a) for a in node.args if signature.kind == "additive"):
            return None
        return _same(known.get(s, ZERO) for s in sources if real(s) and not is_empty(s))
    return None


def _same(powers: Iterable[Fraction]) -> Fraction | None:
    """That of all terms, where they are alike."""
    kinds = set(powers)
    return kinds.pop() if len(kinds) == 1 else None if kinds else ZERO


def _normalised(signature: Signature, given: list[Fraction], name: str) -> Fraction | None:
    """What comes in at any size goes out at one, times a gain, plus a bias; a softmax knows sizes."""
    if "softmax" in name:
        return None
    terms = [sum((given[i] for i in term if i), ZERO) for term in signature.terms]
    return _same(terms) if terms else ZERO


def _pointwise(signature: Signature, given: list[Fraction], name: str) -> Fraction | None:
    if name.startswith("aten.div") and len(given) > 1:
        return given[0] - given[1]
    if signature.degree is None or signature.bounded or any(given[1:]):
        return None
    return given[0] * signature.degree


def _matters(argument: object) -> bool:
    """A number beside values that is not the same c times as large."""
    return isinstance(argument, (int, float)) and abs(argument) >= GUARD and not isinf(argument)
