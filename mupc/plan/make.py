"""Roles -> Plan: every parameter's exponents and, under a base, its factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, fsum, log, prod
from typing import TYPE_CHECKING, Any, Protocol

from mupc.errors import MupcError
from mupc.plan.document import Coverage, Dim, Finding, Model, Plan
from mupc.plan.settle import Settler
from mupc.rulebase import RuleBase, load_rules
from mupc.rulebase.base import GAUGES
from mupc.rulebase.schema import Parametrization

if TYPE_CHECKING:  # importing roles imports torch, which a plan's reader does not need
    from mupc.roles import Dim as FoundDim
    from mupc.roles import Roles


class Analysed(Protocol):
    """What a plan needs of an analysis."""

    @property
    def target(self) -> str: ...
    @property
    def roles(self) -> Roles: ...
    @property
    def coverage(self) -> dict[str, Any]: ...
    @property
    def depth(self) -> int | None: ...
    @property
    def guesses(self) -> tuple[str, ...]: ...
    @property
    def open_branches(self) -> tuple[str, ...]: ...


def make_plan(
    analysis: Analysed,
    *,
    base: Mapping[str, int] | None = None,
    parametrization: str = "mup",
    optimizer: str = "adamw",
    hardware: str = "cpu",
    gauge: str = "fold",
    weight_decay: str | None = None,
    run: Mapping[str, float] | None = None,
    rulebase: RuleBase | None = None,
) -> Plan:
    """The plan of a model under a parametrization and an optimizer.

    `base` gives dims, by name, the size that hyperparameters were tuned at; the other growing dims shrink in the same
    proportion (the geometric mean of the given ratios), and their `why` says so. Without a base all ratios are 1.
    `weight_decay` names a rule of its own for decay; `run` gives `batch` and `tokens` as ratios to those that the decay
    was tuned at. Raises `MupcError` for a dim that does not grow, or for a name that is not known.
    """
    rules = rulebase or load_rules()
    rules.parametrization(parametrization), rules.optimizer(optimizer)
    _named(rules.parametrization(parametrization), analysis.roles.dims)
    if gauge not in GAUGES:
        raise MupcError(f"no gauge is called {gauge!r}; there are {', '.join(GAUGES)}")
    roles = analysis.roles
    dims = with_bases(_dims(analysis, rules, parametrization), base or {})
    depth = next((dim.name for dim in dims if dim.kind == "depth"), None)
    flat = depth is None and rules.parametrization(parametrization).names("depth")
    shallow = [f"no blocks with residual branches found: {parametrization}'s laws of depth say nothing"] if flat else []
    if strange := sorted(set(run or {}) - {"batch", "tokens"}):
        raise MupcError(f"run: {strange[0]!r} is neither batch nor tokens")
    ratios = {d.name: d.size / d.base for d in dims}
    settler = Settler(
        rules, parametrization, optimizer, gauge, roles, ratios, depth, weight_decay, dict(run or {})
    )  # fmt: skip
    return Plan(
        model=_model(analysis),
        coverage=_coverage(analysis, shallow),
        dims=dims,
        parametrization=parametrization,
        optimizer=optimizer,
        hardware=hardware,
        gauge=gauge,
        parameters=tuple(settler.parameter(p) for p in roles.parameters.values()),
        findings=tuple(_open(analysis, rules.parametrization(parametrization))) if depth else (),
    )


def _named(parametrization: Parametrization, dims: Sequence[FoundDim]) -> None:
    """A symbol by a dim's name needs that dim."""
    known = [dim.name for dim in dims]
    for symbol, means in parametrization.symbols.items():
        if means.name is not None and not means.optional and means.name not in known:
            said = f"{parametrization.name}: {symbol} stands for the dim {means.name}, which this model lacks"
            raise MupcError(f"{said}; it has {', '.join(known[:8])}")


def _open(analysis: Analysed, parametrization: Parametrization) -> Iterator[Finding]:
    """Branches that the parametrization multiplies, where no factor on a tensor does it."""
    laws = [rule.multiplier for rule in parametrization.rule if rule.ends_branch and rule.multiplier]
    for place in analysis.open_branches if laws else ():
        message = f"no factor on a tensor multiplies this residual branch; {parametrization.name} wants {laws[0]}"
        fix = "multiply the branch in the forward, by (blocks / blocks at the base) to that power"
        yield Finding(code="MUP208", severity="warning", message=message, source=place, fix=fix)


def _model(analysis: Analysed) -> Model:
    parameters = analysis.roles.parameters.values()
    return Model(
        target=analysis.target,
        parameters=sum(prod(p.shape) for p in parameters),
        tensors=len(parameters),
        tied=analysis.roles.tied,
    )


def _coverage(analysis: Analysed, notes: Sequence[str]) -> Coverage:
    said = dict(analysis.coverage)
    return Coverage(**said | {"assumed_ops": (*said.get("assumed_ops", ()), *analysis.guesses, *notes)})


def _dims(analysis: Analysed, rules: RuleBase, parametrization: str) -> list[Dim]:
    """The dims of the parameters, then the depth; it grows where the parametrization has a law in it."""
    dims = [
        Dim(name=d.name, size=d.size, base=d.size, kind=d.kind, grows=d.grows, why=d.why) for d in analysis.roles.dims
    ]
    if analysis.depth is None:
        return dims
    taken = {d.name for d in dims}
    name = next(name for name in ("depth", "n_blocks", "depth_of_blocks") if name not in taken)
    scaled = rules.parametrization(parametrization).names("depth")
    why = "blocks with residual branches, one after the other" + (
        "" if scaled else f"; {parametrization} has no law in it"
    )
    return [*dims, Dim(name=name, size=analysis.depth, base=analysis.depth, kind="depth", grows=scaled, why=why)]


def _follows(dim: Dim) -> bool:
    return bool(dim.grows) and dim.kind != "depth"


def with_bases(dims: Sequence[Dim], base: Mapping[str, int]) -> tuple[Dim, ...]:
    """The base of every dim: as given, in proportion to those given if it is a growing width, else its size."""
    known = {dim.name: dim for dim in dims}
    for name, size in base.items():
        if name not in known or not known[name].grows:
            fate = "does not grow" if name in known else "is no dim of this model"
            growing = ", ".join(dim.name for dim in dims if dim.grows) or "none"
            raise MupcError(f"base: {name} {fate}; dims that grow: {growing}")
        if size < 1:
            raise MupcError(f"base: {name} must be at least 1, not {size}")
    logs = [log(size / known[name].size) for name, size in base.items() if _follows(known[name])]
    shrink = exp(fsum(logs) / max(1, len(logs)))

    def based(dim: Dim) -> Dim:
        if dim.name in base:
            return dim.model_copy(update={"base": base[dim.name]})
        if not logs or not _follows(dim):
            return dim
        size = max(1, round(dim.size * shrink))
        return dim.model_copy(update={"base": size, "why": f"{dim.why}; base in proportion to those given"})

    return tuple(based(dim) for dim in dims)
