"""A target built twice with its real init, at two widths that are small enough to be drawn in a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

from mupc.analysis import Analysis
from mupc.errors import MupcError
from mupc.instance import Instance, Maker
from mupc.roles import Parameter
from mupc.target.load import Built
from mupc.target.sizes import widths_of

MOST = 200_000_000  # elements of the larger twin
MANY = 4096  # entries of an axis that width leaves alone, where the model is too large with more
LEAST = 16  # of the smaller twin's narrowest growing axis
RATIOS = (Fraction(4), Fraction(2))


@dataclass(frozen=True, slots=True)
class Twins:
    """Two set-ups, the settings they were built with, and how many times wider the larger one is."""

    small: Instance
    large: Instance
    settings: tuple[Mapping[str, Any], Mapping[str, Any]]
    ratio: Fraction
    deep: Instance | None = None  # the smaller one with twice its blocks, where a setting says how many
    deeper: Mapping[str, Any] = field(default_factory=dict)  # its settings

    @property
    def said(self) -> str:
        """`n_embd=96 and 384`."""
        first, second = self.settings
        both = {name: [_said(size)] + [_said(second[name])] * (size != second[name]) for name, size in first.items()}
        return ", ".join(f"{name}={' and '.join(sizes)}" for name, sizes in both.items())


def _said(size: Any) -> str:
    return "(" + ",".join(map(str, size)) + ")" if isinstance(size, (list, tuple)) else str(size)


def twins(maker: Maker, analysis: Analysis) -> Twins | str:
    """The twins, or why there are none: no setting moves the widths, or any two sizes are too large or too small."""
    built, parameters, dims = maker.built, analysis.roles.parameters, analysis.roles.dims
    if not built.fields:
        return "the target takes no sizes"
    found = widths_of(built, parameters, dims)
    if found is None:
        return "no setting of the target scales its widths alone"
    why = "no two sizes of it are small enough to build"
    for fewer in _smaller(built, analysis):
        for low, high in _pairs(parameters, analysis, fewer.shapes):
            try:
                settings = ({**found.at(low), **fewer.changes}, {**found.at(high), **fewer.changes})
                if not found.keeps(found.at(low)):
                    continue
                small, large = (maker.instance(changes) for changes in settings)
            except MupcError as error:
                why = str(error)
                continue
            return Twins(small, large, settings, high / low, *_deeper(maker, analysis, settings[0]))
    return why


def _pairs(
    parameters: Mapping[str, Parameter], analysis: Analysis, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Fraction, Fraction]]:
    """Factors of the model's own widths, the smaller twin's narrowest axis not below what tells anything."""
    growing = [d.size for d in analysis.roles.dims if d.grows and d.kind != "heads"]
    narrow = min(growing, default=1)
    for ratio in RATIOS:
        for power in range(-12, 3):
            low = Fraction(2) ** power
            if narrow * low < LEAST and power < 0:
                continue
            if elements(parameters, shapes, low * ratio) <= MOST:
                yield low, low * ratio


def elements(
    parameters: Mapping[str, Parameter], shapes: Mapping[str, tuple[int, ...]], factor: Fraction
) -> float:  # fmt: skip
    """About how many tensors of these shapes have, the model's widths that many times larger."""
    grown = {name: sum(map(bool, p.infinite)) for name, p in parameters.items()}
    return sum(prod(shape) * float(factor) ** grown.get(name, 0) for name, shape in shapes.items())


def _deeper(maker: Maker, analysis: Analysis, settings: Mapping[str, Any]) -> tuple[Instance | None, Mapping[str, Any]]:
    """The same with twice as many blocks."""
    for name in _counts(maker.built, analysis.depth):
        with contextlib.suppress(MupcError):
            changes = {**settings, name: 2 * settings.get(name, maker.built.fields[name])}
            return maker.instance(changes), changes
    return None, {}


def _counts(built: Built, depth: int | None) -> list[str]:
    """Settings that may say how many blocks there are, by size and name."""
    words = ("layer", "depth", "block", "loop", "repeat", "iteration", "step")
    named = [name for name in built.fields if any(word in name for word in words)]
    return [n for n in named if isinstance(built.fields[n], int) and (depth is None or built.fields[n] == depth)]


@dataclass(frozen=True, slots=True)
class _Smaller:
    """Settings that make a model smaller and leave its widths alone, and the shapes that its tensors then have."""

    changes: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def _smaller(built: Built, analysis: Analysis) -> Iterator[_Smaller]:
    """Two blocks of many; then, where that is not enough, a short vocabulary: its size tells nothing of width."""
    fewer = _shallow(built, analysis)
    yield fewer
    sizes = {d.size for d in analysis.roles.dims if not d.grows and d.size > MANY}
    wide = [name for name, size in built.fields.items() if isinstance(size, int) and size in sizes]
    if wide:
        changes = {**fewer.changes, **dict.fromkeys(wide, MANY)}
        with contextlib.suppress(Exception):  # an index of the vocabulary is beyond it
            yield _Smaller(changes, _shapes(built, changes))


def _shallow(built: Built, analysis: Analysis) -> _Smaller:
    every = {name: p.shape for name, p in analysis.roles.parameters.items()}
    if (analysis.depth or 0) > 2:
        for name in _counts(built, analysis.depth):
            with contextlib.suppress(Exception):  # a list of blocks has another length
                fewer = _shapes(built, {name: 2})
                if set(fewer) < set(every):
                    return _Smaller({name: 2}, fewer)
    return _Smaller({}, every)


def _shapes(built: Built, changes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in built.make(changes).named_parameters()}
