"""A set-up as it stands: exponents of its own init and rates, read from two builds or recognized in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import log, sqrt

import torch
from torch import Tensor, nn

from mupc.analysis import Analysis
from mupc.audit.compare import Setup as Live
from mupc.audit.compare import counterparts, rule_named
from mupc.audit.state import Group, optimizers
from mupc.flow.powers import Power
from mupc.flow.setup import Setup, Weight
from mupc.roles import Parameter
from mupc.rulebase import Optimizer, RuleBase

EXACT = 12  # rates are multiples of 1/12: they are computed, not drawn
SIGMAS = 5.0
CENTRED = 0.5  # a mean smaller than so many standard deviations: entries of both signs


@dataclass(frozen=True, slots=True)
class Standing:
    """A set-up and how it was read. `unread` says of which tensors the init is not known."""

    setup: Setup
    how: str
    optimizer: str
    unread: tuple[str, ...] = ()
    grouped: bool = False  # its rates go with width: a parametrization is shown
    eps: Mapping[str, Fraction] = field(default_factory=dict)  # powers of what its groups say, where they do
    decay: Mapping[str, Fraction] = field(default_factory=dict)


def from_twins(
    small: Live, large: Live, ratio: Fraction, rules: RuleBase, optimizer: str, numbers: Mapping[str, Fraction],
    again: Sequence[tuple[nn.Module, nn.Module]] = (),
) -> Standing:  # fmt: skip
    """What moved from the small to the large build, as powers of their ratio; `again` are further draws of both."""
    pairs = counterparts(list(large.analysis.roles.parameters), set(small.analysis.roles.parameters))
    then, now = dict(small.model.named_parameters()), dict(large.model.named_parameters())
    draws = [(dict(a.named_parameters()), dict(b.named_parameters())) for a, b in again]
    before, after = _groups(small), _groups(large)
    weights: dict[str, Weight] = {}
    eps: dict[str, Fraction] = {}
    decay: dict[str, Fraction] = {}
    unread: list[str] = []
    for name, p in large.analysis.roles.parameters.items():
        if name not in now or pairs.get(name) not in then or p.role in ("unused", "unknown"):
            continue
        drawn = [(then[pairs[name]], now[name]), *((a[pairs[name]], b[name]) for a, b in draws)]
        power = _moved([a for a, _ in drawn], [b for _, b in drawn], ratio)
        if isinstance(power, str):
            unread.append(f"{name}: {power}")
            continue
        if after:
            a, b = before.get(pairs[name]), after.get(name)
            if a is None or b is None:  # frozen: no optimizer steps it
                weights[name] = Weight(power, None, rules.optimizer(optimizer), _centred(now[name]))
                continue
            rule = rules.optimizer(rule_named(b.optimizer, rules) or optimizer)
            lr = _power(b.lr / a.lr, ratio) if a.lr and b.lr else None
            if a.eps and b.eps:
                eps[name] = _power(b.eps / a.eps, ratio)
            if a.decay and b.decay:
                decay[name] = _power(b.decay / a.decay, ratio)
        else:
            rule, lr = _rule(p, rules.optimizer(optimizer), rules), Fraction(0)
        trained = lr if now[name].requires_grad else None
        weights[name] = Weight(power, trained, rule, _centred(now[name]))
    grouped = any(w.lr for w in weights.values())
    used = sorted({w.rule.name for w in weights.values()}) if after else [optimizer]
    return Standing(
        Setup(weights, dict(numbers)), "read from two builds", " and ".join(used), tuple(unread), grouped, eps, decay
    )


def from_model(
    model: nn.Module, analysis: Analysis, rules: RuleBase, optimizer: str, numbers: Mapping[str, Fraction]
) -> Standing:
    """From one instance with values: each std held against the formulas that people use."""
    weights, unread = {}, []
    for name, p in analysis.roles.parameters.items():
        tensor = dict(model.named_parameters()).get(name)
        if tensor is None or p.role in ("unused", "unknown"):
            continue
        power = recognized(tensor, p)
        if isinstance(power, str):
            unread.append(f"{name}: {power}")
            continue
        lr = Fraction(0) if tensor.requires_grad else None
        weights[name] = Weight(power, lr, _rule(p, rules.optimizer(optimizer), rules), _centred(tensor))
    return Standing(Setup(weights, dict(numbers)), "recognized by formula", optimizer, tuple(unread))


def recognized(tensor: Tensor, p: Parameter) -> Power | str:
    """The power of the fan with which a formula makes this std, or why none is known.

    1/sqrt(fan_in) up to a constant that names one: torch's Linear and Conv (He's uniform with a = sqrt 5), LeCun, He
    (arXiv:1502.01852), Glorot (2010); zeros; ones; a std that is a round number is a constant.
    """
    if tensor.is_meta:
        return "no values: on meta"
    size = _rms(tensor)
    if size == 0:
        return None
    if not p.fan_in and not p.fan_out:
        return Fraction(0)
    error = SIGMAS * _noise(tensor) + 1e-3
    fan_in, fan_out = max(1, p.fan_in_size), max(1, p.fan_out_size)
    if float(tensor.detach().double().std()) < 1e-9 * size:
        return Fraction(0)  # all alike: a gain's ones
    grown = bool(p.fan_in)
    formulas: list[tuple[str, float, Fraction]] = [
        ("torch's default", 1 / sqrt(3 * fan_in), Fraction(-1, 2) if grown else Fraction(0)),
        ("LeCun", 1 / sqrt(fan_in), Fraction(-1, 2) if grown else Fraction(0)),
        ("He", sqrt(2 / fan_in), Fraction(-1, 2) if grown else Fraction(0)),
        ("Glorot", sqrt(2 / (fan_in + fan_out)), Fraction(-1, 2)),
        ("1/fan_in", 1 / fan_in, Fraction(-1) if grown else Fraction(0)),
    ]
    fits = {power for _, std, power in formulas if abs(size / std - 1) < error}
    constants = any(abs(size / std - 1) < error for std in (1.0, 0.02, 0.01, 0.1, 0.05, 0.006, 0.001, 0.04, 0.03))
    if constants:
        fits.add(Fraction(0))
    if len(fits) == 1:
        return fits.pop()
    return "no formula has its std" if not fits else "several formulas have its std"


def _groups(live: Live) -> dict[str, Group]:
    names = {id(tensor): name for name, tensor in live.model.named_parameters()}
    found = {}
    for one in optimizers(live.optimizer):
        for group in one.param_groups:
            eps, decay = group.get("eps"), group.get("weight_decay")
            said = Group(
                type(one).__name__,
                float(group["lr"]),
                float(eps) if isinstance(eps, (int, float)) else None,
                float(decay) if isinstance(decay, (int, float)) else None,
            )
            for tensor in group["params"]:
                if id(tensor) in names:
                    found[names[id(tensor)]] = said
    return found


def _moved(then: Sequence[Tensor], now: Sequence[Tensor], ratio: Fraction) -> Power | str:
    """The power of a tensor's RMS over its draws, in halves where it is drawn."""
    a, b = (sqrt(sum(_rms(one) ** 2 for one in draws) / len(draws)) for draws in (then, now))
    if a == 0 and b == 0:
        return None
    if a == 0 or b == 0:
        return "zero at one width only"
    slope = log(b / a) / log(ratio)
    noise = SIGMAS * sqrt((_noise(then[0]) ** 2 + _noise(now[0]) ** 2) / len(then)) / log(float(ratio))
    near = Fraction(round(2 * slope), 2)
    if abs(slope - float(near)) <= max(0.02, min(noise, 0.25)):
        return near
    return f"its init moves as n^{slope:.2f}"


def _power(factor: float, ratio: Fraction) -> Fraction:
    return Fraction(log(factor) / log(ratio)).limit_denominator(EXACT)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().abs().double().pow(2).mean().sqrt()) if tensor.numel() else 0.0


def _noise(tensor: Tensor) -> float:
    """The relative error of an RMS; none for a tensor whose entries are all alike."""
    values = tensor.detach().abs().double()
    if values.numel() < 2 or float(values.std()) < 1e-9 * float(values.max()):
        return 0.0
    return 1 / sqrt(2 * values.numel())


def _centred(tensor: Tensor) -> bool:
    """Entries of both signs, so that sums of them cancel."""
    values = tensor.detach()
    values = torch.view_as_real(values) if values.is_complex() else values
    if values.numel() < 2:
        return False
    return bool(values.double().mean().abs() < CENTRED * values.double().std())


def _rule(p: Parameter, rule: Optimizer, rules: RuleBase) -> Optimizer:
    """The optimizer's own rule, or its fallback's for what it is not made for."""
    if rule.roles is not None and p.role not in rule.roles and rule.fallback is not None:
        return rules.optimizer(rule.fallback)
    return rule
