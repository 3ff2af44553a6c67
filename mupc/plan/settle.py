"""One tensor's settings: what the rules say of the whole, its parts and its uses, settled into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from mupc.exponents import Monomial, Setting
from mupc.plan.document import Exponent, Parameter, Part, Scale, Use
from mupc.rulebase import Applied, RuleBase, Subject

if TYPE_CHECKING:
    from mupc.roles import Parameter as Found
    from mupc.roles import Part as FoundPart
    from mupc.roles import Roles
    from mupc.roles import Use as FoundUse

EXPERTS = ("expert_in", "expert_out")
NAMELESS = ("unknown", "unused")  # roles that get no exponents: never guessed


@dataclass(frozen=True)
class Settler:
    """The choices of one plan. `ratios` are size/base by dim."""

    rules: RuleBase
    parametrization: str
    optimizer: str
    gauge: str
    roles: Roles
    ratios: Mapping[str, float]
    depth: str | None = None
    weight_decay: str | None = None
    run: Mapping[str, float] = field(default_factory=dict)  # batch and tokens, over those tuned at

    def parameter(self, p: Found) -> Parameter:
        """A parameter's entry. Exponents are those of its parts and uses where they agree; `why` says how if not."""
        known = p.role not in NAMELESS
        subject = self.subject(p)
        applied = self.apply(subject) if known else None
        parts = [(part, self.part_subject(part, p, subject)) for part in p.parts] if known else []
        settled, notes = self.slowest(applied, parts) if applied else (None, ())
        uses = tuple(self.use(u, p, settled) for u in p.uses)
        return Parameter(
            name=p.name,
            shape=p.shape,
            axes=p.axes,
            infinite=p.infinite,
            role=p.role,
            sub_role=p.sub_role,
            parts=tuple(self.part(part, one, p) for part, one in parts),
            uses=uses,
            fan_in=tuple(dim for axis in subject.fan_in for dim in axis),
            fan_out=p.fan_out,
            residual_branch=p.residual_branch,
            **self.settings(settled, subject, p.fan_in_size),
            why=(*p.why, *notes, *self.tie_notes(uses), *self.citations(settled)),
            source=p.source,
        )

    def settings(self, settled: Applied | None, subject: Subject, fan_in_size: int) -> dict[str, Any]:
        """The numbers of an entry; null, all of them, where nothing is known."""
        if settled is None:
            names = ("init_std", "multiplier", "lr", "weight_decay", "eps", "clip_weight", "optimizer")
            return dict.fromkeys(names)
        setting = settled.setting
        return {
            "init_std": self.std(subject, setting.std, fan_in_size / self.at(Monomial.product(_flat(subject.fan_in)))),
            "multiplier": Exponent(exponent=setting.multiplier.to_json(), value=self.at(setting.multiplier)),
            "lr": self.scale(setting.lr),
            "weight_decay": self.decay(settled),
            "eps": self.scale(setting.eps),
            "clip_weight": self.scale(setting.clip),
            "optimizer": settled.optimizer,
        }

    def apply(self, subject: Subject) -> Applied:
        applied = self.rules.apply(self.parametrization, self.optimizer, subject, self.weight_decay)
        return self.rules.in_gauge(self.gauge, applied, subject)

    # What rules can see of a parameter, of a part, of a use.

    def subject(self, p: Found) -> Subject:
        """The parameter as its leading use sees it."""
        main = next((use for use in p.uses if use.role == p.role), None)
        fan_in, fan_out, batch = self.sides(p, main.axes if main else ())
        known = p.sub_role not in EXPERTS
        if known and set(_flat(fan_in)) != set(p.fan_in):  # an axis with several words: which dims, but not which axes
            fan_in = (p.fan_in,) if p.fan_in else ()
        if known and p.role not in ("vector", "scalar") and set(fan_out) != set(p.fan_out):
            fan_out = p.fan_out
        if p.role in ("vector", "scalar"):
            fan_out, batch = (), p.fan_out
        kinds = {dim.name: (dim.kind, dim.grows) for dim in self.roles.dims}
        return Subject(
            role=p.role,
            fan_in=fan_in,
            fan_out=fan_out,
            batch=batch,
            sub_role=p.sub_role,
            ops=frozenset(use.op for use in p.uses),
            residual_branch=p.stacked,
            ends_branch=p.ends_branch,
            tied=any(p.name in names for names in self.roles.tied),
            dims={dim: kinds[dim] for axis in p.axes for dim in axis if dim in kinds},
            depth=self.depth,
            sides=(p.fan_in_size, p.fan_out_size),
        )

    def sides(
        self, p: Found, words: Sequence[str]
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...], tuple[str, ...]]:
        """Growing dims by what a use does to them: contracted (one entry an axis, widest first), created, carried.

        Which expert it is counts as carried: all read the same, and shares of one add what they make.
        """
        growing = {dim.name: dim.size for dim in self.roles.dims if dim.grows}
        apart = {dim.name for dim in self.roles.dims if dim.kind == "experts"} if p.sub_role in EXPERTS else set()
        held: dict[str, list[tuple[str, ...]]] = {"in": [], "out": [], "batch": []}
        for word, axis in zip(words, p.axes, strict=False):
            dims = tuple(dim for dim in axis if dim in growing)
            where = "batch" if dims and apart.issuperset(dims) else word
            if where in held and dims:
                held[where].append(dims)
        held["in"].sort(key=lambda dims: [-growing[dim] for dim in dims])
        return tuple(held["in"]), _flat(held["out"]), _flat(held["batch"])

    def part_subject(self, part: FoundPart, p: Found, whole: Subject) -> Subject:
        """A part has the whole's other axes, and its own dims on the axis that is cut."""
        here = {*p.axes[part.axis], *(dim for q in _summed_with(part, p) for dim in q.fan_in)}
        others = tuple(axis for axis in whole.fan_in if not set(axis) <= here)
        own = tuple(dim for dim in part.fan_in if dim not in _flat(others))
        fan_in = whole.fan_in if set(_flat(whole.fan_in)) == set(part.fan_in) else (*others, own) if own else others
        role = part.role if part.role not in NAMELESS else p.role
        sub_role = part.sub_role or whole.sub_role
        if role in ("vector", "scalar"):
            return replace(whole, role=role, batch=part.fan_out, sub_role=sub_role)
        return replace(whole, role=role, fan_in=fan_in, fan_out=part.fan_out, sub_role=sub_role)

    # How several verdicts on one tensor are settled.

    def slowest(self, whole: Applied, parts: Sequence[tuple[FoundPart, Subject]]) -> tuple[Applied, tuple[str, ...]]:
        """One tensor has one rate, eps and decay: the smallest rate and eps of its parts, and the decay of that rate.

        A part that would have had a larger rate learns ever more slowly beside the others as width grows (it becomes
        lazy); the note names it. An eps larger than a part's gradients would silence it, hence the smallest.
        """
        judged = [(part, self.apply(subject)) for part, subject in parts if part.role not in NAMELESS]
        if not judged:
            return whole, ()
        slow = min((a for _, a in judged), key=lambda a: self.order(a.setting.lr))
        settings = [a.setting for _, a in judged]
        setting = Setting(
            multiplier=slow.setting.multiplier,
            std=whole.setting.std if len({s.std for s in settings}) > 1 else slow.setting.std,
            lr=slow.setting.lr,
            eps=min((s.eps for s in settings), key=self.order),
            decay=slow.setting.decay if slow.decay_power else min((s.decay for s in settings), key=self.order),
            clip=min((s.clip for s in settings), key=self.order),
        )
        lazy = [part for part, a in judged if a.setting.lr.degree() > slow.setting.lr.degree()]
        names = ", ".join(f"[{q.start}:{q.stop}] of axis {q.axis} ({q.role})" for q in lazy)
        note = (f"one tensor has one rate, that of its slowest part: {names} becomes lazy",) if lazy else ()
        return replace(slow, setting=setting), note

    def order(self, monomial: Monomial) -> tuple[Fraction, float]:
        """Smaller with width first; of equal degrees, smaller at this size."""
        return monomial.degree(), self.at(monomial)

    def use(self, use: FoundUse, p: Found, settled: Applied | None) -> Use:
        """A use, with the multiplier that it needs where the tensor's init is not its own (TP5, Table 8, tied readout).

        The abc-symmetry makes that enough: a readout of std 1 with multiplier 1/fan_in takes the rate of an input.
        """
        multiplier = None
        if settled and use.role != p.role and {use.role, p.role} <= {"input", "hidden", "output"}:
            fan_in, fan_out, batch = self.sides(p, use.axes)
            subject = replace(self.subject(p), role=use.role, fan_in=fan_in, fan_out=fan_out, batch=batch)
            wanted = self.rules.apply(self.parametrization, self.optimizer, subject).setting
            needs = wanted.std * wanted.multiplier / settled.setting.std
            if needs != Monomial.ONE:
                multiplier = Exponent(exponent=needs.to_json(), value=self.at(needs))
        return Use(op=use.op, module=use.module, source=use.source, axes=use.axes, role=use.role, multiplier=multiplier)

    def tie_notes(self, uses: Iterable[Use]) -> tuple[str, ...]:
        return tuple(
            f"as {use.role} ({use.op} at {use.source or use.module}) it still needs a multiplier ~ "
            f"{use.multiplier.monomial}, outside the shared tensor"
            for use in uses
            if use.multiplier
        )

    def citations(self, settled: Applied | None) -> tuple[str, ...]:
        if settled is None:
            return ()
        said = tuple(f"rule {self.parametrization}: {rule.source}" for rule in settled.rules)
        if self.weight_decay is None:
            return said
        return (*said, f"decay {self.weight_decay}: {self.rules.weight_decays[self.weight_decay].source}")

    # Numbers.

    def at(self, monomial: Monomial) -> float:
        return monomial.evaluate(self.ratios)

    def scale(self, monomial: Monomial) -> Scale:
        return Scale(exponent=monomial.to_json(), scale=self.at(monomial))

    def decay(self, settled: Applied) -> Scale:
        """The law's factor, and what another batch or length does; 0 where nothing is decayed."""
        if not settled.decays:
            return Scale(scale=0.0)
        found = self.scale(settled.setting.decay)
        if self.weight_decay is None:
            return found
        by = self.rules.weight_decays[self.weight_decay].run().evaluate({"batch": 1.0, "tokens": 1.0, **self.run})
        return Scale(exponent=found.exponent, scale=found.scale * by)

    def part(self, part: FoundPart, subject: Subject, p: Found) -> Part:
        """A part of an out-axis sums over the whole fan-in; so do the parts of an in-axis, together."""
        std = None
        if part.role not in NAMELESS:
            beside = _summed_with(part, p) or [part]
            base = sum(q.fan_in_size / self.at(Monomial.product(q.fan_in)) for q in beside)
            std = self.std(subject, self.apply(subject).setting.std, base)
        return Part(axis=part.axis, range=(part.start, part.stop), role=part.role, init_std=std)

    def std(self, subject: Subject, std: Monomial, base_fan_in: float) -> Exponent:
        """See `Exponent`: the recipe at the base, 1/sqrt(fan_in), moved by the ratios."""
        if subject.role in ("vector", "scalar") and base_fan_in == 1:
            return Exponent(exponent=std.to_json())
        return Exponent(exponent=std.to_json(), value=base_fan_in**-0.5 * self.at(std))


def _summed_with(part: FoundPart, p: Found) -> list[FoundPart]:
    """The parts of an in-axis, which all add into one output; none where the axis that is cut is an out-axis."""
    return [q for q in p.parts if q.axis == part.axis] if part.fan_in_size != p.fan_in_size else []


def _flat(axes: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dim for axis in axes for dim in axis)
