"""Hold live state at two sizes against a plan, whatever gauge the user wrote it in.

Multiplier a, init b and rate c are equivalent where a abc-symmetry joins them (TP5, arXiv:2203.03466, Lemma J.1): the
user's are moved to the plan's multiplier first, and compared there. So a readout with std 1 and multiplier 1/n is as
right as one with std 1/n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt

from mupc.audit.document import Held, Row
from mupc.audit.state import Live
from mupc.exponents import Monomial
from mupc.plan import Exponent, Parameter, Part, Plan
from mupc.rulebase import RuleBase

EXACT = 1e-4  # relative: numbers that no chance is in
SIGMAS = 5.0  # of the sampling error of an RMS
VAGUE = 0.35  # a relative error beyond which a ratio says nothing


@dataclass(frozen=True, slots=True)
class Holder:
    """`counterpart` gives the smaller model's tensor for each of the larger's; `rule_of` an optimizer class's rule."""

    plan: Plan
    rules: RuleBase
    small: Mapping[str, Live]
    large: Mapping[str, Live]
    counterpart: Mapping[str, str]
    rule_of: Mapping[str, str | None]

    def rows(self) -> list[Row]:
        return [row for p in self.plan.parameters if p.role != "unused" for row in self.parameter(p)]

    def parameter(self, p: Parameter) -> Iterator[Row]:
        """The tensor, and after it those of its parts whose init has a law of its own."""
        if p.name not in self.large or p.name not in self.counterpart:
            yield self._row(p, (Held(what="init", base=None, size=None, verdict="unknown", note="only in one model"),))
            return
        now, then = self.large[p.name], self.small[self.counterpart[p.name]]
        if p.init_std is None:
            note = f"its role is {p.role}"
            yield self._row(p, (Held(what="init", base=then.rms, size=now.rms, verdict="unknown", note=note),))
            return
        uneven = len({str(q.init_std and q.init_std.monomial) for q in p.parts}) > 1
        held = [] if uneven else [self.init(p, p.init_std, (then.rms, then.count), (now.rms, now.count))]
        yield self._row(p, (*held, *self.rates(p)))
        for q in p.parts if uneven else ():
            yield self._part(p, q, then, now)

    def _row(
        self, p: Parameter, held: tuple[Held, ...], part: tuple[int, int, int] | None = None, role: str = ""
    ) -> Row:
        return Row(name=p.name, part=part, role=role or p.role, sub_role=p.sub_role, source=p.source, held=held)

    def _part(self, p: Parameter, q: Part, then: Live, now: Live) -> Row:
        place = (q.axis, *q.range)
        scaled = tuple(round(edge * then.shape[q.axis] / now.shape[q.axis]) for edge in q.range)
        base = then.parts.get((q.axis, *scaled), (None, 0))  # type: ignore[arg-type]
        size = now.parts.get(place, (None, 0))
        if q.init_std is None or base[0] is None:
            held = Held(what="init", base=base[0], size=size[0], verdict="unknown", note="this part could not be told")
        else:
            held = self.init(p, q.init_std, base, size)
        return self._row(p, (held,), place, q.role)

    # One quantity.

    def init(self, p: Parameter, std: Exponent, then: tuple[float | None, int], now: tuple[float | None, int]) -> Held:
        law = std.monomial
        if then[0] is None or now[0] is None:
            return Held(
                what="init", base=then[0], size=now[0], law=str(law), verdict="unknown", note="no values: on meta"
            )
        if not then[0] and not now[0]:
            return Held(what="init", base=0.0, size=0.0, wanted=0.0, law=str(law), note="zero at every size")
        if not then[0] or not now[0]:
            return Held(
                what="init", base=then[0], size=now[0], law=str(law), verdict="off", note="zero at one size only"
            )
        wanted = then[0] * self.at(law) * self.shift(p)
        vague = SIGMAS * sqrt(1 / (2 * then[1]) + 1 / (2 * now[1])) + EXACT
        factor = now[0] / wanted
        held = Held(what="init", base=then[0], size=now[0], wanted=wanted, factor=factor, law=str(law))
        if abs(now[0] / then[0] - 1) < EXACT and abs(factor - 1) < EXACT:
            return held  # ones
        if vague > VAGUE:
            return held.model_copy(
                update={"verdict": "unknown", "note": f"{min(then[1], now[1])} entries tell too little"}
            )
        if p.sub_role == "bias" and factor < 1:
            return held.model_copy(update={"note": "a smaller bias does no harm"})
        return held.model_copy(update={"verdict": "ok" if abs(factor - 1) <= vague else "off"})

    def rates(self, p: Parameter) -> Iterator[Held]:
        """Multiplier, optimizer, rate, eps, decay."""
        now, then = self.large[p.name], self.small[self.counterpart[p.name]]
        if now.multiplier != then.multiplier:
            law = str(p.multiplier.monomial if p.multiplier else Monomial.ONE)
            yield Held(
                what="multiplier", base=then.multiplier, size=now.multiplier, law=law, note="counted with init and rate"
            )
        if now.group is None or then.group is None:
            if self.rule_of and now.trained:
                never = now.group is None and then.group is None
                note = "no optimizer steps it" if never else "an optimizer steps it at one size only"
                yield Held(what="lr", base=None, size=None, verdict="off", note=note)
            return
        if not now.group.lr or not then.group.lr:
            yield Held(what="lr", base=then.group.lr, size=now.group.lr, verdict="unknown", note="a rate of zero")
            return
        rule = self.rule_of.get(now.group.optimizer)
        if rule is None:
            note = f"no rule for {now.group.optimizer}"
            yield Held(what="lr", base=then.group.lr, size=now.group.lr, verdict="unknown", note=note)
            return
        if p.optimizer is not None and rule != p.optimizer:
            yield Held(what="optimizer", base=then.group.optimizer, size=rule, wanted=p.optimizer, verdict="off")
            return
        symmetry, shift = self.rules.optimizer(rule).law(), self.shift(p)
        pairs = (
            ("lr", p.lr, then.group.lr, now.group.lr, symmetry.lr),
            ("eps", p.eps, then.group.eps, now.group.eps, symmetry.eps),
            ("weight_decay", p.weight_decay, then.group.decay, now.group.decay, symmetry.decay),
        )
        for what, scale, base, size, power in pairs:
            if scale is not None and base is not None and size is not None and (base or size):
                yield self._number(what, scale.monomial, base, size, shift ** -float(power))

    def _number(self, what: str, law: Monomial, base: float, size: float, moved: float) -> Held:
        wanted = base * self.at(law) * moved
        factor = size / wanted if wanted else None
        right = factor is not None and abs(factor - 1) < EXACT
        return Held.model_validate({
            "what": what, "base": base, "size": size, "wanted": wanted, "factor": factor, "law": str(law),
            "verdict": "ok" if right else "off",
        })  # fmt: skip

    def shift(self, p: Parameter) -> float:
        """By what the user's init is larger than in the plan's gauge, where multipliers moved differently."""
        now, then = self.large[p.name], self.small[self.counterpart[p.name]]
        ours = p.multiplier.monomial if p.multiplier else Monomial.ONE
        actual = now.multiplier / then.multiplier if then.multiplier else 1.0
        return self.at(ours) / actual if actual else 1.0

    def at(self, law: Monomial) -> float:
        return law.evaluate({dim.name: dim.size / dim.base for dim in self.plan.dims})
