"""Build a target at other widths: which of its settings are widths is found by scaling them and looking at the shapes.

The settings that are tried are whole numbers that some growing axis has a factor of. They are scaled together, then
with one or two left out, until every axis that grows does so by the factor asked for, and no other axis moves.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from torch import nn

from mupc.errors import MupcError, TargetError
from mupc.roles import Dim, Parameter
from mupc.target.call import Size
from mupc.target.load import Built

Make = Callable[[Mapping[str, Any]], nn.Module]
MOST = 64  # choices before giving up
FACTORS = (Fraction(2), Fraction(1, 2), Fraction(4))


@dataclass(frozen=True, slots=True)
class Widths:
    """Settings that scale together, and their values in the model at hand."""

    settings: Mapping[str, Size]

    def at(self, factor: Fraction) -> dict[str, Any]:
        """The settings of a model whose widths are that many times as large. Raises `MupcError` for no whole number."""
        return {name: _times(name, size, factor) for name, size in self.settings.items()}

    def keeps(self, changes: Mapping[str, Any]) -> bool:
        """No size falls to one: an axis of size one is no dim."""
        pairs = [(self.settings[name], size) for name, size in changes.items()]
        return all(1 not in (size if isinstance(size, list) else [size]) or was == size for was, size in pairs)


def _times(name: str, size: Size, factor: Fraction) -> Any:
    if isinstance(size, tuple):
        return [_times(name, one, factor) for one in size]
    found = size * factor
    if found.denominator != 1 or found < 1:
        raise MupcError(f"{name} = {size} times {factor} is no whole number")
    return int(found)


def widths_of(built: Built, parameters: Mapping[str, Parameter], dims: tuple[Dim, ...]) -> Widths | None:
    """The settings of a target that scale its widths, by whichever factor its code takes."""
    tried = (find_widths(built.make, built.fields, parameters, dims, factor) for factor in FACTORS)
    return next((widths for widths in tried if widths is not None), None)


def find_widths(
    make: Make, sizes: Mapping[str, Size], parameters: Mapping[str, Parameter], dims: tuple[Dim, ...], factor: Fraction
) -> Widths | None:
    """The settings to scale; None where no choice of them moves what grows, and only that, by the factor."""
    known = {dim.name: dim for dim in dims}
    for chosen in itertools.islice(_choices(_candidates(sizes, parameters, known, factor)), MOST):
        widths = Widths({name: sizes[name] for name in chosen})
        changes = widths.at(factor)
        if fits(_shapes(make, changes), parameters, known, factor):
            return _pruned(widths, make, parameters, known, factor)
    return None


def _pruned(
    widths: Widths, make: Make, parameters: Mapping[str, Parameter], dims: Mapping[str, Dim], factor: Fraction
) -> Widths:
    """Without settings that happen to have a width's size and move nothing; a number of heads moves no shape."""
    named = {re.sub(r"_\d+$", "", dim.name) for dim in dims.values() if dim.grows}
    for name in (name for name in tuple(widths.settings) if name not in named):
        fewer = Widths({other: size for other, size in widths.settings.items() if other != name})
        if fewer.settings and fits(_shapes(make, fewer.at(factor)), parameters, dims, factor):
            widths = fewer
    return widths


def fits(
    shapes: Mapping[str, tuple[int, ...]] | None,
    parameters: Mapping[str, Parameter],
    dims: Mapping[str, Dim],
    factor: Fraction,
) -> bool:
    """Does every axis have the size that its growing dims, times the factor, give it?"""
    if shapes is None or shapes.keys() != parameters.keys():
        return False
    for name, p in parameters.items():
        for size, found, axis, grows in zip(p.shape, shapes[name], p.axes, p.infinite, strict=False):
            if grows is None or len(shapes[name]) != len(p.shape):
                continue
            power = sum(1 for dim in axis if dim in dims and dims[dim].grows) if grows else 0
            if found != size * factor**power and not (grows and p.parts):
                return False
    return True


def _candidates(
    sizes: Mapping[str, Size], parameters: Mapping[str, Parameter], dims: Mapping[str, Dim], factor: Fraction
) -> list[str]:
    """Settings whose value is a growing dim's size, or that of growing and fixed factors side by side.

    One that the factor makes no whole number is left out: it cannot be scaled with the others.
    """
    wanted = set()
    for p in parameters.values():
        for axis in p.axes:
            known = [dims[dim] for dim in axis if dim in dims]
            for start, stop in itertools.combinations(range(len(known) + 1), 2):
                if any(dim.grows for dim in known[start:stop]):
                    wanted.add(prod(dim.size for dim in known[start:stop]))

    def fits_all(size: Size) -> bool:
        each = size if isinstance(size, tuple) else (size,)
        return all(one in wanted and one > 1 and (one * factor).denominator == 1 for one in each)

    return [name for name, size in sizes.items() if fits_all(size)]


def _choices(names: list[str]) -> Iterator[tuple[str, ...]]:
    """All, all but one, all but two, and so on."""
    for left_out in range(len(names)):
        for dropped in itertools.combinations(names, left_out):
            yield tuple(name for name in names if name not in dropped)


def _shapes(make: Make, changes: Mapping[str, int]) -> dict[str, tuple[int, ...]] | None:
    try:
        model = make(changes)
    except (TargetError, ValueError, TypeError, AssertionError, RuntimeError, IndexError, ZeroDivisionError):
        return None  # a width that the code refuses
    return {name: tuple(p.shape) for name, p in model.named_parameters()}
