"""A set-up as it stands: exponents of its own init and rates, read from two builds or recognized in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import log, sqrt

import torch
from torch import Tensor, nn

from mupc.analysis import Analysis
from mupc.audit.compare import counterparts, rule_named
from mupc.flow.numbers import Numbers
from mupc.flow.powers import Power
from mupc.flow.setup import Setup, Weight
from mupc.groups import groups
from mupc.instance import Draws, Instance
from mupc.roles import Parameter
from mupc.rulebase import RuleBase

EXACT = 12  # rates are multiples of 1/12: they are computed, not drawn
SIGMAS = 4.0
UNCLEAR = "too few entries to read its init from"
ENOUGH = 1 << 20  # entries of a tensor that tell its noise
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
    small: Instance, large: Instance, ratio: Fraction, rules: RuleBase, optimizer: str, numbers: Numbers, draws: Draws
) -> Standing:
    """What moved from the small to the large build, as powers of their ratio; `draws` are of both."""
    pairs = counterparts(list(large.analysis.roles.parameters), set(small.analysis.roles.parameters))
    then, now = dict(small.model.named_parameters()), dict(large.model.named_parameters())
    before, after = groups(small.optimizer), groups(large.optimizer)
    weights: dict[str, Weight] = {}
    eps: dict[str, Fraction] = {}
    decay: dict[str, Fraction] = {}
    unread: list[str] = []
    for name, p in large.analysis.roles.parameters.items():
        if name not in now or pairs.get(name) not in then or p.role in ("unused", "unknown"):
            continue
        power = _moved(*draws.of_pair(pairs[name], name), ratio)
        while power is UNCLEAR and draws.more():
            power = _moved(*draws.of_pair(pairs[name], name), ratio)
        if isinstance(power, str):
            unread.append(f"{name}: {power}")
            continue
        if after:
            a, b = before.get(id(then[pairs[name]])), after.get(id(now[name]))
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
            rule, lr = rules.stepping(optimizer, p.role), Fraction(0)
        trained = lr if now[name].requires_grad else None
        weights[name] = Weight(power, trained, rule, _centred(now[name]))
    grouped = any(w.lr for w in weights.values())
    used = sorted({w.rule.name for w in weights.values()}) if after else [optimizer]
    setup = Setup(weights, numbers.powers, unsure=frozenset(numbers.unknown))
    return Standing(setup, "read from two builds", " and ".join(used), tuple(unread), grouped, eps, decay)


def from_model(model: nn.Module, analysis: Analysis, rules: RuleBase, optimizer: str, numbers: Numbers) -> Standing:
    """From one instance with values: each std held against the formulas that people use."""
    weights, unread = {}, []
    tensors = dict(model.named_parameters())
    for name, p in analysis.roles.parameters.items():
        tensor = tensors.get(name)
        if tensor is None or p.role in ("unused", "unknown"):
            continue
        power = recognized(tensor, p)
        if isinstance(power, str):
            unread.append(f"{name}: {power}")
            continue
        lr = Fraction(0) if tensor.requires_grad else None
        weights[name] = Weight(power, lr, rules.stepping(optimizer, p.role), _centred(tensor))
    setup = Setup(weights, numbers.powers, unsure=frozenset(numbers.unknown))
    return Standing(setup, "recognized by formula", optimizer, tuple(unread))


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
    error = SIGMAS * _noise([tensor]) + 1e-3
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


def _moved(then: Sequence[Tensor], now: Sequence[Tensor], ratio: Fraction) -> Power | str:
    """The power of a tensor's RMS over its draws, in halves where it is drawn."""
    a, b = (sqrt(sum(_rms(one) ** 2 for one in draws) / len(draws)) for draws in (then, now))
    if a == 0 and b == 0:
        return None
    if a == 0 or b == 0:
        return "zero at one width only"
    slope = log(b / a) / log(ratio)
    noise = SIGMAS * sqrt(_noise(then) ** 2 + _noise(now) ** 2) / log(float(ratio))
    near = Fraction(round(2 * slope), 2)
    if abs(slope - float(near)) > max(0.02, noise):
        return f"its init moves as n^{slope:.2f}"
    return near if noise < 0.25 else UNCLEAR


def _power(factor: float, ratio: Fraction) -> Fraction:
    return Fraction(log(factor) / log(ratio)).limit_denominator(EXACT)


def _rms(tensor: Tensor) -> float:
    size = torch.linalg.vector_norm(tensor.detach().flatten(), dtype=_double(tensor))
    return float(size) / sqrt(tensor.numel()) if tensor.numel() else 0.0


def _double(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _noise(draws: Sequence[Tensor]) -> float:
    """The relative error of the RMS of all draws; none where their entries are all alike.

    Of N entries x it is sqrt((m4 / m2^2 - 1) / 4N), m2 and m4 the means of x^2 and x^4 (the delta method).
    """
    squares = torch.cat([one.detach().flatten()[:ENOUGH].abs() for one in draws]).square()
    if squares.numel() < 2:
        return 0.0
    var, mean = torch.var_mean(squares, correction=0)
    spread = float(var) / float(mean) ** 2 if mean else 0.0
    return sqrt(spread / squares.numel()) / 2 if spread > 1e-6 else 0.0


def _centred(tensor: Tensor) -> bool:
    """Entries of both signs, so that sums of them cancel."""
    values = tensor.detach()
    values = torch.view_as_real(values) if values.is_complex() else values
    if values.numel() < 2:
        return False
    std, mean = torch.std_mean(values if values.is_floating_point() else values.double())
    return bool(mean.abs() < CENTRED * std)
