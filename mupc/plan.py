"""The Plan, mupc's waist: a frozen, versioned document that everything after the front end reads, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from mupc.errors import MupcError
from mupc.exponents import Monomial, Setting
from mupc.roles import Parameter, Part, Roles
from mupc.rulebase import RuleBase, load_rules

SCHEMA_VERSION: Literal[1] = 1


class Frozen(BaseModel):
    """No unknown key, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Exponent(Frozen):
    """`exponent` maps dims to exact powers, as text; `value` or `scale` is the number at this size under this base."""

    exponent: dict[str, str] = {}
    value: float | None = None


class Scale(Frozen):
    """A factor on the user's own number: 1 where every growing dim is at its base."""

    exponent: dict[str, str] = {}
    scale: float = 1.0


class DimEntry(Frozen):
    """`grows` is null where it is not known. `base` is the size hyperparameters are tuned at."""

    name: str
    size: int
    base: int
    kind: str
    grows: bool | None
    why: str


class PartEntry(Frozen):
    """A range [start, stop) of one axis with a role of its own."""

    axis: int
    range: tuple[int, int]
    role: str
    init_std: Exponent


class UseEntry(Frozen):
    """One use: the op, the user's line, and a word for each axis of the parameter."""

    op: str
    module: str
    source: str | None
    axes: tuple[str, ...]
    role: str


class ParameterEntry(Frozen):
    """Everything said of one parameter. Exponents are absent (null) where the role is unknown or unused."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[tuple[str, ...], ...]
    infinite: tuple[bool | None, ...]
    role: str
    sub_role: str | None
    parts: tuple[PartEntry, ...]
    uses: tuple[UseEntry, ...]
    fan_in: tuple[str, ...]
    fan_out: tuple[str, ...]
    residual_branch: bool
    init_std: Exponent | None
    multiplier: Exponent | None
    lr: Scale | None
    weight_decay: Scale | None
    eps: Scale | None
    clip_weight: float | None
    optimizer: str | None
    why: tuple[str, ...]
    source: str | None


class ModelEntry(Frozen):
    """The target, the number of elements and of tensors, and the groups of names that hold one tensor."""

    target: str
    parameters: int
    tensors: int
    tied: tuple[tuple[str, ...], ...]
    blocks: tuple[tuple[str, ...], ...] = ()
    depth: int | None = None


class Coverage(Frozen):
    """What the verdicts rest on, and what is not known."""

    classified: int
    unknown: int
    assumed_ops: tuple[str, ...] = ()
    literals: dict[str, int] = {}
    guesses: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    held_fixed: dict[str, int] = {}


class ActivationEntry(Frozen):
    """One judged value of the graph (filled by the static coordinate check)."""

    name: str
    source: str | None
    init: str | None = None
    delta1: str | None = None
    delta: str | None = None
    grad: str | None = None
    verdict: str | None = None


class Finding(Frozen):
    """A mistake with evidence in the user's set-up."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    source: str | None = None
    parameter: str | None = None
    fix: str | None = None


class Plan(Frozen):
    """`Plan.from_json(plan.to_json()) == plan`; the text is the same byte for byte from run to run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelEntry
    coverage: Coverage
    dims: tuple[DimEntry, ...]
    parametrization: str
    optimizer: str
    hardware: str
    gauge: str
    parameters: tuple[ParameterEntry, ...]
    activations: tuple[ActivationEntry, ...] = Field(default=())
    findings: tuple[Finding, ...] = Field(default=())

    def to_json(self) -> str:
        """Indented JSON, keys in the schema's order, a newline at the end."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        return cls.model_validate_json(text)


class Analysed(Protocol):
    """What a plan needs of an analysis."""

    @property
    def target(self) -> str: ...
    @property
    def roles(self) -> Roles: ...
    @property
    def coverage(self) -> dict[str, Any]: ...
    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def depth(self) -> int | None: ...
    @property
    def guesses(self) -> tuple[str, ...]: ...
    @property
    def unused(self) -> tuple[str, ...]: ...


def make_plan(
    analysis: Analysed,
    *,
    base: Mapping[str, int] | None = None,
    parametrization: str = "mup",
    optimizer: str = "adamw",
    hardware: str = "cpu",
    gauge: str = "fold",
    rules: RuleBase | None = None,
) -> Plan:
    """Roles -> Plan.

    `base` gives dims (by name) the size that hyperparameters are tuned at; the other growing dims then shrink in the
    same proportion (by the geometric mean of the given ratios), and without a base every ratio is 1. Raises `MupcError`
    for a dim that does not grow, or an unknown parametrization or optimizer.
    """
    rules = rules or load_rules()
    bases = base_sizes(analysis.roles, base or {})
    ratios = {dim.name: dim.size / bases[dim.name] for dim in analysis.roles.dims}
    maker = _Maker(rules, parametrization, optimizer, ratios, {d.name: d.size for d in analysis.roles.dims}, analysis)
    maker.check()
    entries = tuple(maker.entry(p) for p in analysis.roles.parameters.values())
    elements = sum(_product(p.shape) for p in analysis.roles.parameters.values())
    held = {d.name: d.size for d in analysis.roles.dims if d.kind in HELD and d.grows is False}
    return Plan(
        model=ModelEntry(
            target=analysis.target,
            parameters=elements,
            tensors=len(entries),
            tied=analysis.roles.tied,
            blocks=analysis.blocks,
            depth=analysis.depth,
        ),
        coverage=Coverage(
            **analysis.coverage, guesses=analysis.guesses, unused=_unused(analysis.roles), held_fixed=held
        ),
        dims=tuple(
            DimEntry(name=d.name, size=d.size, base=bases[d.name], kind=d.kind, grows=d.grows, why=d.why)
            for d in analysis.roles.dims
        ),
        parametrization=parametrization,
        optimizer=optimizer,
        hardware=hardware,
        gauge=gauge,
        parameters=entries,
    )


HELD = ("inner", "count", "rank", "experts")  # fixed by policy rather than by data: a user may want to know


def base_sizes(roles: Roles, base: Mapping[str, int]) -> dict[str, int]:
    """The base size of every dim: given, or in proportion to those given, or the size itself."""
    sizes = {dim.name: dim.size for dim in roles.dims}
    growing = [dim.name for dim in roles.dims if dim.grows]
    for name, size in base.items():
        if name not in growing:
            raise MupcError(f"no growing dim is called {name!r}; a base can be given for {', '.join(growing)}")
        if size < 1:
            raise MupcError(f"the base of {name} must be at least 1, not {size}")
    ratio = 1.0
    for name, size in base.items():
        ratio *= (sizes[name] / size) ** (1 / len(base))
    return {
        name: base.get(name, max(1, round(size / ratio)) if name in growing else size) for name, size in sizes.items()
    }


class _Maker:
    """One plan's choices, applied parameter by parameter."""

    def __init__(
        self,
        rules: RuleBase,
        parametrization: str,
        optimizer: str,
        ratios: Mapping[str, float],
        sizes: Mapping[str, int],
        analysis: Analysed,
    ) -> None:
        self.rules, self.parametrization, self.optimizer = rules, parametrization, optimizer
        self.ratios, self.sizes = ratios, sizes
        self.kinds = {dim.name: dim.kind for dim in analysis.roles.dims}

    def check(self) -> None:
        """Unknown names are errors even where no parameter needs them."""
        self.rules.find("parametrization", self.parametrization)
        self.rules.find("optimizer", self.optimizer)

    def setting(self, role: str, fan_in: Sequence[str], fan_out: Sequence[str], p: Parameter) -> Setting:
        widest = sorted(fan_in, key=lambda dim: -self.sizes[dim])
        kinds = [self.kinds[dim] for axis in p.axes for dim in axis]
        return self.rules.setting(
            self.parametrization,
            self.optimizer,
            role,
            widest,
            fan_out,
            sub_role=p.sub_role,
            branch=p.residual_branch,
            kinds=kinds,
        )

    def entry(self, p: Parameter) -> ParameterEntry:
        """A parameter's exponents; none are given where its role is not known."""
        known = p.role not in ("unknown", "unused")
        setting = self.setting(p.role, p.fan_in, p.fan_out, p) if known else None
        parts = tuple(self.part(part, p) for part in p.parts) if known else ()
        why = p.why
        if setting and parts:
            setting, note = self.slowest(setting, p)
            why += (note,) if note else ()
        return ParameterEntry(
            name=p.name,
            shape=p.shape,
            axes=p.axes,
            infinite=p.infinite,
            role=p.role,
            sub_role=p.sub_role,
            parts=parts,
            uses=tuple(UseEntry(op=u.op, module=u.module, source=u.source, axes=u.axes, role=u.role) for u in p.uses),
            fan_in=p.fan_in,
            fan_out=p.fan_out,
            residual_branch=p.residual_branch,
            init_std=setting and self.std(p.role, setting.std, p.fan_in_size),
            multiplier=setting and Exponent(exponent=setting.multiplier.to_json(), value=self.at(setting.multiplier)),
            lr=setting and self.scale(setting.lr),
            weight_decay=setting and self.scale(setting.decay),
            eps=setting and self.scale(setting.eps),
            clip_weight=1.0 if setting else None,
            optimizer=self.optimizer if setting else None,
            why=why,
            source=p.source,
        )

    def part(self, part: Part, p: Parameter) -> PartEntry:
        role = part.role if part.role != "unknown" else p.role
        std = self.setting(role, part.fan_in, part.fan_out, p).std
        return PartEntry(
            axis=part.axis,
            range=(part.start, part.stop),
            role=part.role,
            init_std=self.std(role, std, part.fan_in_size),
        )

    def slowest(self, setting: Setting, p: Parameter) -> tuple[Setting, str | None]:
        """One tensor has one rate: the smallest of its parts'; a part that wanted more becomes lazy, and is named."""
        rates = [(self.setting(q.role, q.fan_in, q.fan_out, p), q) for q in p.parts if q.role != "unknown"]
        if not rates:
            return setting, None
        least, _ = min(rates, key=lambda pair: _degree(pair[0].lr))
        lazy = [q for s, q in rates if _degree(s.lr) > _degree(least.lr)]
        chosen = Setting(setting.multiplier, setting.std, least.lr, least.eps, least.decay)
        if not lazy:
            return chosen, None
        names = ", ".join(f"[{q.start}:{q.stop}] on axis {q.axis} ({q.role})" for q in lazy)
        return chosen, f"one tensor, one rate: it is that of the slowest part; {names} becomes lazy"

    def at(self, monomial: Monomial) -> float:
        return monomial.evaluate(self.ratios)

    def scale(self, monomial: Monomial) -> Scale:
        return Scale(exponent=monomial.to_json(), scale=self.at(monomial))

    def std(self, role: str, monomial: Monomial, fan_in_size: int) -> Exponent:
        """The exponent, and the value of the plain recipe: 1/sqrt(fan_in) at the base, moved by ratio^exponent.

        fan_in counts every contracted place, finite ones and kernels too. Vectors and scalars have no recipe (gains are
        one, biases zero): null.
        """
        if role in ("vector", "scalar") and fan_in_size == 1:
            return Exponent(exponent=monomial.to_json(), value=None)
        fan = fan_in_size / self._shrink(monomial)
        return Exponent(exponent=monomial.to_json(), value=fan**-0.5 * self.at(monomial))

    def _shrink(self, monomial: Monomial) -> float:
        """How much wider than at the base the growing part of fan_in is."""
        value = 1.0
        for dim in monomial.dims:
            value *= self.ratios[dim]
        return value


def _degree(monomial: Monomial) -> Fraction:
    return sum((power for _, power in monomial.factors), Fraction(0))


def _product(shape: Iterable[int]) -> int:
    value = 1
    for n in shape:
        value *= n
    return value


def _unused(roles: Roles) -> tuple[str, ...]:
    return tuple(name for name, p in roles.parameters.items() if p.role == "unused")
