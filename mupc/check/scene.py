"""One model at one width, ready to be measured: values, inputs, loss, and how each tensor is stepped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mupc.analysis import Analysis
from mupc.groups import Group
from mupc.plan import Plan
from mupc.rulebase import Optimizer, RuleBase

Loss = Callable[[Any], Tensor]
AVERAGED = 3  # an output of at most so many axes holds classes along its last; of more, it is an image


@dataclass(frozen=True, slots=True)
class Knobs:
    """How one tensor is stepped: by which rule, and by which factor its rate and eps differ from the others'."""

    rule: Optimizer
    lr: float = 1.0
    eps: float = 1.0
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """`knobs` by parameter; a tensor without any stays as it is. `loss` is given what the forward returns.

    A plan's multipliers: `scales` of whole tensors, `multipliers` of the results of single uses, by node.
    """

    model: nn.Module
    analysis: Analysis
    inputs: Mapping[str, Any]
    knobs: Mapping[str, Knobs]
    loss: Loss | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    multipliers: Mapping[str, float] = field(default_factory=dict)


def planned(analysis: Analysis, plan: Plan, rules: RuleBase) -> dict[str, Knobs]:
    """What the plan says of each tensor."""
    found = {}
    for p in plan.parameters:
        if p.lr is None or p.optimizer is None:
            continue
        found[p.name] = Knobs(
            rules.optimizer(p.optimizer), p.lr.scale, p.eps.scale if p.eps else 1.0,
            words_of(analysis, p.name),
        )  # fmt: skip
    return found


def multiplied(analysis: Analysis, plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """The plan's multipliers of whole tensors, by name, and of single uses, by the node whose result they scale."""
    tensors: dict[str, float] = {}
    uses: dict[str, float] = {}
    for p in plan.parameters:
        if p.multiplier is not None and p.multiplier.value not in (None, 1.0):
            tensors[p.name] = float(p.multiplier.value or 1.0)
        for use, planned in zip(analysis.roles.parameters[p.name].uses, p.uses, strict=True):
            if planned.multiplier is not None and planned.multiplier.value not in (None, 1.0):
                uses[use.node] = float(planned.multiplier.value or 1.0)
    return tensors, uses


def shared(analysis: Analysis, optimizer: str, rules: RuleBase) -> dict[str, Knobs]:
    """One rate for all, as a plain set-up has it; what the rule is not made for is stepped by its fallback."""
    return {
        name: Knobs(rules.stepping(optimizer, p.role), words=words_of(analysis, name))
        for name, p in analysis.roles.parameters.items() if p.role not in ("unused", "unknown")
    }  # fmt: skip


def of_optimizer(
    analysis: Analysis, model: nn.Module, said: Mapping[int, Group], rule_of: Mapping[str, str | None],
    rules: RuleBase, unit: float,
) -> dict[str, Knobs]:  # fmt: skip
    """What the groups of a live optimizer say, over `unit`, a rate that is the same at every width."""
    found = {}
    for name, tensor in model.named_parameters():
        group = said.get(id(tensor))
        rule = rule_of.get(group.optimizer) if group is not None else None
        if group is not None and rule is not None and name in analysis.roles.parameters:
            found[name] = Knobs(rules.optimizer(rule), group.lr / unit, words=words_of(analysis, name))
    return found


def words_of(analysis: Analysis, name: str) -> tuple[str, ...]:
    """What the leading use does to each axis."""
    p = analysis.roles.parameters[name]
    return next((use.axes for use in p.uses if use.role == p.role), ())


def materialized(args: Sequence[Any], kwargs: Mapping[str, Any], seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs with values: what is on meta is drawn from N(0, 1), the same for a seed at every width."""
    generator = torch.Generator().manual_seed(seed)

    def real(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_meta:
            if value.dtype is torch.bool:
                return torch.ones(value.shape, dtype=torch.bool)
            if value.is_complex() or value.is_floating_point():
                return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
            return torch.ones(value.shape, dtype=value.dtype)
        if isinstance(value, (list, tuple)):
            return type(value)(real(one) for one in value)
        if isinstance(value, dict):
            return {key: real(one) for key, one in value.items()}
        return value

    return tuple(real(value) for value in args), {key: real(value) for key, value in kwargs.items()}


def synthetic(output: Tensor, seed: int, features: bool = False) -> Tensor:
    """A loss where none is given: cross-entropy with random classes; for images and features, the distance to noise."""
    generator = torch.Generator().manual_seed(seed + 1)
    if output.is_complex():
        output = torch.view_as_real(output)
    if 2 <= output.ndim <= AVERAGED and output.shape[-1] > 1 and not features:
        classes = torch.randint(output.shape[-1], output.shape[:-1], generator=generator)
        return F.cross_entropy(output.flatten(0, -2), classes.flatten())
    target = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)
    return F.mse_loss(output, target)
