"""Backward transfer: the size of the loss's gradient at every value. An einsum's adjoint is an einsum."""

from __future__ import annotations

import operator
from fractions import Fraction

from torch import fx

from mupc.dims.facts import primary
from mupc.flow.forward import Forward
from mupc.flow.functions import saturated, settled
from mupc.flow.powers import HALF, Power, most, times
from mupc.flow.value import Value
from mupc.ops import signature_of
from mupc.ops.table import printed, shapes
from mupc.signature import Signature

ZERO = Fraction(0)


class Backward:
    """One pass against the graph, from what is judged: the primary output, under a loss that averages over it."""

    def __init__(self, forward: Forward) -> None:
        self.forward, self.values = forward, forward.values
        self.folded = forward.folded
        self.grads: dict[fx.Node, Power] = {}

    def run(self) -> dict[fx.Node, Power]:
        """Every node's gradient."""
        trace = self.forward.dims.facts.trace
        end = primary(trace)
        if end is not None:
            node = trace.outputs[end]
            tensors = self.folded.tensors.get(node, ())
            wide = sum((self.forward.atom_rate(a) for axis in (tensors[0] if tensors else ())
                        for a in self.folded.atoms.expand(axis)), ZERO)  # fmt: skip
            self.grads[node] = -wide
        for node in reversed(list(trace.graph.nodes)):
            grad = self.grads.get(node)
            if grad is not None and node.op == "call_function":
                self.call(node, grad)
        return self.grads

    def give(self, node: fx.Node, grad: Power) -> None:
        self.grads[node] = most((self.grads.get(node), grad))

    def call(self, node: fx.Node, grad: Fraction) -> None:
        if node.target is operator.getitem:
            if isinstance(node.args[0], fx.Node):
                self.give(node.args[0], grad)
            return
        sources = self.forward.sources(node)
        if not sources or not shapes(node.meta.get("val")):
            return
        signature, given = signature_of(node), [self.values[s] for s in sources]
        by = self.forward.by(node)
        if "scaled_dot_product" in printed(node.target):
            self.attention(node, signature, sources, given, grad)
        elif signature.kind == "multilinear":
            for term in signature.terms or ((0,),):
                self.term(node, signature, sources, given, term, grad + by)
        elif signature.kind == "pointwise":
            self.pointwise(node, signature, sources, given, grad + by)
        elif signature.kind == "normalise":
            self.normalise(node, signature, sources, given, grad)
        elif signature.kind == "recurrent":
            self.recurrent(node, signature, sources, given, grad)
        elif signature.kind == "index":
            for source in sources:
                self.give(source, grad)
        elif signature.kind == "additive":
            for i, source in enumerate(sources):
                self.give(source, grad + by + self.forward.rates(node, signature.out - signature.held[i]) * HALF)
        elif signature.kind == "layout":  # what is laid beside others is not repeated along them
            new = signature.out.difference(*signature.held)
            for source in sources:
                self.give(source, grad + by + self.forward.rates(node, new) * HALF)

    def term(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], term: tuple[int, ...],
        grad: Fraction,
    ) -> None:  # fmt: skip
        """To operand i: the others times the gradient, summed over what it lacks."""
        mean = self.forward.rates(node, signature.over) if printed(node.target).startswith("aten.mean") else ZERO
        for i in term:
            others = [j for j in term if j != i]
            lacks = signature.out.union(*(signature.held[j] for j in others)) - signature.held[i]
            over = self.forward.rates(node, lacks)
            found = [times(grad, *(given[j].init for j in others), over * HALF - mean)]
            for j in others:  # after a step it is aligned with the gradient
                rest = [given[k].init for k in others if k != j]
                found.append(times(grad, given[j].delta1, *rest, over - mean))
            self.give(sources[i], most(found))

    def pointwise(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], grad: Fraction
    ) -> None:
        x = given[0]
        if len(given) > 1 and printed(node.target).startswith("aten.div"):
            below = -(given[1].init or ZERO)
            self.give(sources[0], grad + below)
            self.give(sources[1], times(grad, x.init, 2 * below))
            return
        over = self.forward.rates(node, signature.over)
        if signature.over and "norm" in printed(node.target):
            self.give(sources[0], grad - over * HALF)
        elif signature.degree is not None and not signature.bounded:
            self.give(
                sources[0], times(grad, (signature.degree - 1) * (x.init or ZERO)) if signature.degree != 1 else grad
            )
        else:
            self.give(sources[0], grad + (saturated(x) if signature.bounded else ZERO))
        for source in sources[1:]:
            self.give(source, grad)

    def normalise(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], grad: Fraction
    ) -> None:
        x = given[0]
        if "softmax" in printed(node.target):
            by = -(x.init or ZERO) if settled(x) else ZERO
            self.give(sources[0], grad - self.forward.rates(node, signature.over) + by)
            return
        gain = next((t[1] for t in signature.terms if 0 in t and len(t) > 1), None)
        size = ZERO if gain is None else given[gain].init
        self.give(sources[0], times(grad, size, -(x.init or ZERO)))
        for i in range(1, len(sources)):
            lacks = signature.out - signature.held[i] if i < len(signature.held) else frozenset()
            self.give(sources[i], grad + self.forward.rates(node, lacks) * HALF)

    def attention(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], grad: Fraction
    ) -> None:
        """Keys and values that several heads read get the gradients of all of them, which are independent."""
        q, k, v = given[:3]
        over = self.forward.rate(node, "d")
        scale = self.forward.setup.numbers.get(node.name, -over * HALF)
        scores = times(grad, v.init, self.forward.rate(node, "e") * HALF)
        found = self.forward.scores.get(node)
        if found is not None and settled(found):
            scores = times(scores, -(found.init or ZERO))
        heads = signature.held[0] - {"s", "d"}
        shared = [self.forward.rates(node, heads - signature.held[i]) * HALF for i in (1, 2)]
        self.give(sources[2], grad + shared[1])
        for mask in sources[3:]:
            self.give(mask, scores)
        self.give(sources[0], times(scores, k.init, scale))
        self.give(sources[1], times(scores, q.init, scale + shared[0]))

    def recurrent(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], grad: Fraction
    ) -> None:
        x = given[0]
        for i, source in enumerate(sources):
            words = signature.words.get(i)
            if words is None:
                continue
            self.give(source, times(grad, x.init if "in" in words else ZERO))
            if "in" in words:
                made = [a for a, w in zip(signature.flat[i], words, strict=True) if w == "out"]
                wide = sum((self.forward.rates(node, frozenset(a)) for a in made), ZERO)
                self.give(sources[0], times(grad, given[i].init, wide * HALF))
