"""A target built twice with its real init, at two widths that are small enough to be drawn in a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import nn

from mupc.analysis import Analysis, analyze
from mupc.audit.compare import Setup
from mupc.errors import MupcError
from mupc.inputs import Inputs
from mupc.roles import Parameter
from mupc.structure import unwrapped
from mupc.target.build import real
from mupc.target.load import Built
from mupc.target.sizes import Widths, find_widths

MOST = 120_000_000  # elements of the larger twin
CHEAP = 2_000_000  # elements of both, that are drawn again for a better reading of small tensors
DRAWS = 4
LEAST = 16  # of the smaller twin's narrowest growing axis
RATIOS = (Fraction(4), Fraction(2))


@dataclass(frozen=True, slots=True)
class Twins:
    """Two set-ups, the settings they were built with, and how many times wider the larger one is."""

    small: Setup
    large: Setup
    settings: tuple[Mapping[str, Any], Mapping[str, Any]]
    ratio: Fraction
    deep: Setup | None = None  # the smaller one with twice its blocks, where a setting says how many
    again: tuple[tuple[nn.Module, nn.Module], ...] = ()  # other draws of both

    @property
    def said(self) -> str:
        """`n_embd=96 and 384`."""
        pairs = [f"{name}={_said(size)} and {_said(self.settings[1][name])}" for name, size in self.settings[0].items()]
        return ", ".join(pair for pair, size in zip(pairs, self.settings[0].values(), strict=True)
                         if size != self.settings[1])  # fmt: skip


def _said(size: Any) -> str:
    return "(" + ",".join(map(str, size)) + ")" if isinstance(size, (list, tuple)) else str(size)


def twins(
    built: Built, analysis: Analysis, inputs: Callable[[nn.Module], Inputs], *, fixed: tuple[str, ...] = (),
    scaling: tuple[str, ...] = (),
) -> Twins | str:  # fmt: skip
    """The twins, or why there are none: no setting moves the widths, or any two sizes are too large or too small."""
    parameters, dims = analysis.roles.parameters, analysis.roles.dims
    if not built.fields:
        return "the target takes no sizes"
    found: Widths | None = None
    for factor in (Fraction(2), Fraction(1, 2), Fraction(4)):
        found = find_widths(built.make, built.fields, parameters, dims, factor)
        if found is not None:
            break
    if found is None:
        return "no setting of the target scales its widths alone"
    shorter = _shallow(built, analysis)
    why = "no two sizes of it are small enough to build"
    for low, high in _pairs(parameters, analysis, bool(shorter)):
        try:
            settings = ({**found.at(low), **shorter}, {**found.at(high), **shorter})
            if not found.keeps(found.at(low)):
                continue
            small, large = (_setup(built, changes, inputs, analysis.target, fixed, scaling) for changes in settings)
        except MupcError as error:
            why = str(error)
            continue
        deep = _deeper(built, analysis, settings[0], inputs, fixed, scaling)
        again = _again(built, settings) if elements(parameters, high) / layers(analysis, shorter) < CHEAP else ()
        return Twins(small, large, settings, high / low, deep, again)
    return why


def _pairs(
    parameters: Mapping[str, Parameter], analysis: Analysis, shallow: bool
) -> Iterator[tuple[Fraction, Fraction]]:
    """Factors of the model's own widths, the smaller twin's narrowest axis not below what tells anything."""
    growing = [d.size for d in analysis.roles.dims if d.grows and d.kind != "heads"]
    narrow = min(growing, default=1)
    count = layers(analysis, shallow)
    for ratio in RATIOS:
        for power in range(-12, 3):
            low = Fraction(2) ** power
            if narrow * low < LEAST and power < 0:
                continue
            if elements(parameters, low * ratio) / count <= MOST:
                yield low, low * ratio


def layers(analysis: Analysis, shorter: object) -> int:
    """By how much fewer blocks make a model smaller."""
    return (analysis.depth or 1) if shorter else 1


def _again(
    built: Built, settings: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[tuple[nn.Module, nn.Module], ...]:
    out = []
    for seed in range(1, DRAWS):
        torch.manual_seed(seed)
        with real():
            small, large = (unwrapped(built.remake(changes)[0]) for changes in settings)
        out.append((small, large))
    return tuple(out)


def elements(parameters: Mapping[str, Parameter], factor: Fraction) -> float:
    """About how many the model has, its widths that many times larger."""
    return sum(prod(p.shape) * float(factor) ** sum(bool(grows) for grows in p.infinite) for p in parameters.values())


def _deeper(
    built: Built, analysis: Analysis, settings: Mapping[str, Any], inputs: Callable[[nn.Module], Inputs],
    fixed: tuple[str, ...], scaling: tuple[str, ...],
) -> Setup | None:  # fmt: skip
    """The same with twice as many blocks."""
    for name in _counts(built, analysis.depth):
        try:
            size = settings.get(name, built.fields[name])
            return _setup(built, {**settings, name: 2 * size}, inputs, analysis.target, fixed, scaling)
        except MupcError:
            continue
    return None


def _counts(built: Built, depth: int | None) -> list[str]:
    """Settings that may say how many blocks there are, by size and name."""
    words = ("layer", "depth", "block", "loop", "repeat", "iteration", "step")
    named = [name for name in built.fields if any(word in name for word in words)]
    return [n for n in named if isinstance(built.fields[n], int) and (depth is None or built.fields[n] == depth)]


def _shallow(built: Built, analysis: Analysis) -> dict[str, Any]:
    """The setting that makes two blocks of many, where there is one."""
    if (analysis.depth or 0) <= 2:
        return {}
    for name in _counts(built, analysis.depth):
        try:
            fewer = {n for n, _ in built.make({name: 2}).named_parameters()}
        except Exception:  # a list of blocks has another length
            continue
        if fewer < set(analysis.trace.parameters):
            return {name: 2}
    return {}


def _setup(
    built: Built, changes: Mapping[str, Any], inputs: Callable[[nn.Module], Inputs], name: str,
    fixed: tuple[str, ...], scaling: tuple[str, ...],
) -> Setup:  # fmt: skip
    torch.manual_seed(0)
    with real():
        try:
            model, optimizer = built.remake(changes)
        except MupcError:
            raise
        except Exception as error:
            raise MupcError(f"{' '.join(f'{k}={v}' for k, v in changes.items())}: {error}") from error
    model = unwrapped(model)
    given = inputs(model)
    analysis = analyze(model, given.args, given.kwargs, fixed=fixed, scaling=scaling, target=name)
    return Setup(model, optimizer, analysis)
