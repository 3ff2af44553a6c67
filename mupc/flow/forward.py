"""Forward transfer: how sizes at init and changes pass through each signature (DESIGN.md section 7).

A contraction over f places of a random matrix adds up as f^1/2 (central limit), what is aligned as f (law of large
numbers): the spectral view of Yang, Simon, Bernstein 2023 (arXiv:2310.17813) and Tensor Programs V (arXiv:2203.03466,
Appendix J), with the refined split into effective and propagating updates.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from torch import fx

from mupc.dims import Dims
from mupc.dims.atoms import Axis
from mupc.dims.records import WEIGHT
from mupc.flow.cuts import cut
from mupc.flow.functions import beside, function, settled
from mupc.flow.powers import HALF, Power, least, least_of, most, times, total
from mupc.flow.setup import Ray, Setup
from mupc.flow.value import EMPTY, Value, moved, parted, product
from mupc.flow.wholes import attention, recurrent
from mupc.ops import signature_of, tensor_nodes
from mupc.ops.table import GUARD, is_empty, printed, real, shapes
from mupc.signature import Signature

ZERO = Fraction(0)


class Forward:
    """One pass over the graph. `steps` are the exponents of every parameter's update entries."""

    def __init__(self, dims: Dims, setup: Setup, ray: Ray, steps: Mapping[str, Power]) -> None:
        self.dims, self.setup, self.ray, self.steps = dims, setup, ray, steps
        self.folded = dims.facts.folded
        self.scores: dict[fx.Node, Value] = {}  # of whole attention ops
        # By parameter and node, how far its own update moves the node: at first, and once what it meets has moved too.
        self.effects: dict[tuple[str, str], Power] = {}
        self.effects_later: dict[tuple[str, str], Power] = {}
        self.parameter = {node: name for name, node in dims.facts.trace.parameters.items()}
        self.values: dict[fx.Node, Value] = {}
        self.known_rates: dict[Axis, Fraction] = {}

    def run(self) -> dict[fx.Node, Value]:
        """Every node's value."""
        for node in self.dims.facts.trace.graph.nodes:
            self.values[node] = self.enter(node) if node.op == "placeholder" else self.call(node)
        return self.values

    def enter(self, node: fx.Node) -> Value:
        """Inputs, buffers and constants have entries of size one; parameters are as set up."""
        name = self.parameter.get(node)
        weight = self.setup.weights.get(name) if name is not None else None
        if name is None:
            return Value(init=ZERO)
        if weight is None:
            return Value(known=False)
        step = times(self.steps.get(name), weight.multiplier)
        init = times(weight.init, weight.multiplier)
        return Value(init, step, step, step, None, frozenset({name}) if weight.random and init is not None else EMPTY)

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """The operands' nodes, once per tensor."""
        found = self.folded.sources.get(node)
        return tensor_nodes(node) if found is None else found

    # Rates of labels.

    def rate(self, node: fx.Node, label: str) -> Fraction:
        """The growth rate of a label's dim."""
        axis = self.folded.labels.get(node, {}).get(label)
        if axis is None:
            return ZERO
        found = self.known_rates.get(axis)
        if found is None:
            found = self.known_rates[axis] = total(map(self.atom_rate, self.folded.atoms.expand(axis)))
        return found

    def atom_rate(self, atom: int) -> Fraction:
        kind = self.dims.kinds.get(atom)
        if kind is None or not kind.grows:
            return ZERO
        return self.ray.width

    def rates(self, node: fx.Node, labels: Sequence[str] | frozenset[str]) -> Fraction:
        return total(self.rate(node, label) for label in labels)

    # Calls.

    def call(self, node: fx.Node) -> Value:
        if node.op != "call_function":
            return Value()
        if node.target is operator.getitem:
            source = node.args[0]
            return cut(self, node, self.values[source], source) if isinstance(source, fx.Node) else Value()
        sources = self.sources(node)
        if is_empty(node):
            return Value()
        if not sources or not shapes(node.meta.get("val")):
            return Value(init=ZERO) if not sources else Value()
        signature, given = signature_of(node), [self.values[s] for s in sources]
        known = (
            signature.kind != "opaque"
            and not (self.setup.unsure and {node.name, f"{node.name}.alpha"} & self.setup.unsure)
            and all(v.known for v in given)
        )
        value = self.transferred(node, signature, sources, given)
        return value if known else replace(value, known=False)

    def transferred(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        """By the signature's kind."""
        if "scaled_dot_product" in printed(node.target):
            return attention(self, node, given)
        if signature.kind == "recurrent":
            return self.scaled(recurrent(self, node, signature, sources, given), self.by(node))
        transfer = {
            "multilinear": self.multilinear, "additive": self.additive, "pointwise": self.pointwise,
            "normalise": self.normalise, "layout": self.layout, "index": self.index,
        }.get(signature.kind)  # fmt: skip
        value = transfer(node, signature, sources, given) if transfer else Value(init=ZERO)
        if signature.kind not in ("multilinear", "additive", "layout", "index"):  # these have told their terms apart
            spread = max([v.spread for v in given if v.spread], default=ZERO)
            value = replace(value, spread=total((spread, value.mixed))) if spread or value.mixed else value
        if signature.kind == "layout" and len(sources) == 1:
            value = cut(self, node, value, node)
        mixed = max([v.mixed for v in given if v.mixed], default=ZERO)
        return self.scaled(replace(value, mixed=max(value.mixed, mixed)) if mixed else value, self.by(node))

    def by(self, node: fx.Node) -> Fraction:
        """The power of what a node's result is multiplied by: a number in the code, and what a plan puts on the use."""
        return self.setup.numbers.get(node.name, ZERO) + self.setup.uses.get(node.name, ZERO)

    @staticmethod
    def scaled(value: Value, by: Fraction) -> Value:
        """Times a number that grows so."""
        if not by:
            return value
        return replace(
            value, init=times(value.init, by), delta1=times(value.delta1, by), delta=times(value.delta, by),
            effective=times(value.effective, by), propagating=times(value.propagating, by),
            parts=moved(value.parts, by),
        )  # fmt: skip

    def multilinear(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        terms = [self.term(node, signature, sources, given, term) for term in signature.terms or ((0,),)]
        return self.joined(terms)

    def term(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], term: tuple[int, ...]
    ) -> Value:
        """One product of operands, summed over what is not in the result."""
        held = frozenset[str]().union(*(signature.held[i] for i in term))
        summed = held - signature.out
        over = self.rates(node, summed)
        mean = self.rates(node, signature.over) if printed(node.target).startswith("aten.mean") else ZERO
        init, generators, mixed, parts = product([given[i] for i in term], over, mean)
        effective, propagating, later, low = [], [], [], []
        for i in term:
            others = [given[j].init for j in term if j != i]
            if self.folded.status.get(sources[i]) == WEIGHT:  # its own update, aligned with what it meets
                met = (most((given[j].init, given[j].delta)) for j in term if j != i)
                later.append(times(given[i].delta1, *met, over - mean))
                first = times(given[i].delta1, *others, over - mean)
                effective.append(self.effect(node, sources[i], first, later[-1]))
            else:
                bound, above = self.norm_gain(node, signature, sources, given, term, i, summed)
                bound -= mean
                propagating.append(times(given[i].delta1, *others, bound))
                low.append(times(given[i].delta1, *others, bound - above - given[i].spread))
                later.append(times(given[i].delta, *others, bound))
                for j in term:
                    if j != i and self.folded.status.get(sources[j]) != WEIGHT:
                        rest = [given[k].init for k in term if k not in (i, j)]
                        later.append(times(given[i].delta, given[j].delta, *rest, over - mean))
        found = most((*effective, *propagating))
        coming, slowest = most(propagating), least_of(low)
        loose = ZERO if coming is None or slowest is None else coming - slowest
        spread = ZERO if found is None else found - (least_of((*effective, *low)) or found)
        return Value(
            init, found, most((found, *later)), most(effective), coming, generators, loose, spread, mixed, parts
        )

    def norm_gain(
        self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value], term: tuple[int, ...],
        i: int, summed: frozenset[str],
    ) -> tuple[Fraction, Fraction]:  # fmt: skip
        """How a change of operand i adds up: against a random matrix by its operator norm, else aligned.

        And how far that bound lies above what a change adds up to that knows nothing of the matrix.
        """
        own = summed & signature.held[i]
        over = self.rates(node, own)
        random = [j for j in term if j != i and self.folded.status.get(sources[j]) == WEIGHT and given[j].generators]
        if not random:
            return over + self.rates(node, summed - own), ZERO
        made = frozenset[str]().union(*(signature.held[j] for j in random)) - signature.held[i]
        wide = self.rates(node, made & signature.out)
        bound = max(over * HALF, over - wide * HALF)
        return bound + self.rates(node, summed - own), bound - over * HALF

    def joined(self, terms: Sequence[Value]) -> Value:
        """A sum of terms."""
        if len(terms) == 1:
            return terms[0]
        alive = [t for t in terms if t.init is not None]
        generators = frozenset.intersection(*(t.generators for t in alive)) if alive else EMPTY
        change = most(t.delta1 for t in terms)
        low = least_of(None if t.delta1 is None else t.delta1 - t.spread for t in terms)
        init, small = most(t.init for t in terms), least_of(None if t.init is None else t.init - t.mixed for t in terms)
        return Value(
            init, change, most(t.delta for t in terms),
            most(t.effective for t in terms), most(t.propagating for t in terms), generators,
            max((t.loose for t in terms), default=ZERO), ZERO if change is None or low is None else change - low,
            ZERO if init is None or small is None else init - small, parted(p for t in terms for p in t.each()),
        )  # fmt: skip

    def additive(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        """A number that is added is of size one; one that guards against zero is nothing."""
        floats = [(s, v) for s, v in zip(sources, given, strict=True) if real(s)]
        terms = [self.passed(node, s, v) for s, v in floats or zip(sources, given, strict=True)]
        if len(terms) > 1:
            terms[1] = self.scaled(terms[1], self.setup.numbers.get(f"{node.name}.alpha", ZERO))
        numbers = [a for a in node.args[:2] if isinstance(a, (int, float)) and abs(a) >= GUARD]
        return self.joined([*terms, *(Value(init=ZERO) for _ in numbers)])

    def passed(self, node: fx.Node, source: fx.Node, value: Value) -> Value:
        """The same change: a weight's is its own, any other one comes in."""
        if self.folded.status.get(source) == WEIGHT:
            self.effect(node, source, value.delta1)
            return replace(value, effective=value.delta1, propagating=None)
        return replace(value, effective=None, propagating=value.delta1, loose=value.spread)

    def effect(self, node: fx.Node, source: fx.Node, power: Power, later: Power = None) -> Power:
        """Note how far a weight's own update moves a node, the number behind it included."""
        weight, by = self.folded.weights.get(source), self.by(node)
        for name in weight.parameters if weight is not None else ():
            key = name, node.name
            self.effects[key] = most((times(power, by), self.effects.get(key)))
            self.effects_later[key] = most((times(power, by), times(later, by), self.effects_later.get(key)))
        return power

    def pointwise(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        x = given[0]
        name = printed(node.target)
        if len(given) > 1 and name.startswith("aten.div"):
            y = given[1]
            init = None if y.init is None or x.init is None else x.init - y.init
            slopes = [times(x.delta1, -(y.init or ZERO)), times(init, y.delta1, -(y.init or ZERO))]
            later = [times(x.delta, -(y.init or ZERO)), times(init, y.delta, -(y.init or ZERO))]
            return Value(init, most(slopes), most((*slopes, *later)), None, most(slopes), x.generators ^ y.generators)
        if signature.over:
            return self.reduced(node, signature, x, name)
        return function(signature, x, name)

    def reduced(self, node: fx.Node, signature: Signature, x: Value, name: str) -> Value:
        """Norms add squares up; maxima and deviations keep the size."""
        over = self.rates(node, signature.over)
        gain = over * HALF if "norm" in name else ZERO
        degree = Fraction(2) if name.startswith("aten.var") else Fraction(1)
        init = None if x.init is None else degree * x.init + gain
        slope = None if x.init is None else (degree - 1) * x.init + gain
        return Value(init, times(x.delta1, slope), times(x.delta, slope), None, times(x.delta1, slope), EMPTY)

    def normalise(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        """Size one, whatever came in; softmax shares one out. Then gain and bias."""
        x = given[0]
        by = ZERO if x.init is None else -x.init
        if signature.marks and "softmax" in printed(node.target):
            share = -self.rates(node, signature.over)
            change = None if settled(x) else times(x.delta1, share)
            return Value(share, change, least(times(x.delta, share), share), None, change, mixed=beside(x))
        change, all_orders = times(x.delta1, by), least(times(x.delta, by), ZERO)
        init = None if x.init is None else ZERO
        normed = Value(init, change, all_orders, None, change, x.generators, parts=moved(x.parts, by))
        out = []
        for term in signature.terms:
            if 0 in term and len(term) > 1:
                gain = given[term[1]]
                init = times(normed.init, gain.init)
                effective = self.effect(node, sources[term[1]], times(gain.delta1, normed.init))
                coming = times(normed.delta1, gain.init)
                delta = most((effective, times(normed.delta, gain.init), times(normed.delta, gain.delta)))
                parts = moved(normed.parts, gain.init) if gain.init is not None else ()
                out.append(
                    Value(init, most((effective, coming)), delta, effective, coming, normed.generators, parts=parts)
                )
            else:
                out.append(normed if 0 in term else self.passed(node, sources[term[0]], given[term[0]]))
        return self.joined(out or [normed])

    def layout(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        many = max(1, len(signature.operands))
        return self.joined([self.passed(node, s, v) for s, v in zip(sources[:many], given[:many], strict=True)])

    def index(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        if signature.degree is None:
            return Value(init=ZERO)
        return self.additive(node, signature, sources, given)
