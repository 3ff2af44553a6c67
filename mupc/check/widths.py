"""The widths of a check: settings for each, found by scaling what scales the dims, and what they come to."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any

from mupc.analysis import Analysis
from mupc.errors import MupcError
from mupc.instance import Instance
from mupc.target.load import Built
from mupc.target.sizes import Widths, widths_of
from mupc.target.twins import elements

COUNTS = (4, 3)  # widths, where none are given
NARROW = (64, 32)  # of the narrowest growing dim at the smallest width
MOST = 60_000_000  # elements of the largest model, where widths are chosen here


def points_of(
    built: Built, analysis: Analysis, widths: Mapping[str, Sequence[int]]
) -> tuple[list[dict[str, Any]], str]:
    """The settings of each width, smallest first."""
    found = widths_of(built, analysis.roles.parameters, analysis.roles.dims)
    if widths:
        points = [dict(zip(widths, values, strict=True)) for values in zip(*widths.values(), strict=True)]
        if found is not None:
            points = [{**_beside(found, point), **point} for point in points]
    elif found is None:
        raise MupcError("no setting of the target scales its widths alone: name one, --widths n_embd=64,128,256,512")
    else:
        points = _chosen(found, analysis)
    said = ", ".join(f"{name}={','.join(_said(point[name]) for point in points)}" for name in points[0])
    return points, said


def _said(value: Any) -> str:
    return "(" + " ".join(map(str, value)) + ")" if isinstance(value, (list, tuple)) else str(value)


def _beside(found: Widths, point: Mapping[str, int]) -> dict[str, Any]:
    """The other settings that have to go with the one given, where it is one of them."""
    for name, value in point.items():
        size = found.settings.get(name)
        if isinstance(size, int):
            return found.at(Fraction(value, size))
    return {}


def _chosen(found: Widths, analysis: Analysis) -> list[dict[str, Any]]:
    """Four widths, doubling, the narrowest growing dim of the first being some dozens wide; three where four cannot."""
    narrow = min((d.size for d in analysis.roles.dims if d.grows and d.kind != "heads"), default=NARROW[0])
    shapes = {name: p.shape for name, p in analysis.roles.parameters.items()}
    for count, least, power in itertools.product(COUNTS, NARROW, range(-12, 6)):
        factors = [Fraction(2) ** (power + k) for k in range(count)]
        if narrow * factors[0] < least or elements(analysis.roles.parameters, shapes, factors[-1]) > MOST:
            continue
        with contextlib.suppress(MupcError):  # no whole numbers
            points = [found.at(factor) for factor in factors]
            if found.keeps(points[0]):
                return points
    name, p = max(analysis.roles.parameters.items(), key=lambda item: prod(item[1].shape))
    raise MupcError(
        f"no three widths of the target are small enough to train ({name} alone is {' x '.join(map(str, p.shape))}): "
        "make other sizes smaller, vocab_size=512, or give widths, --widths n_embd=64,128,256"
    )


def ratio_of(small: Instance, large: Instance) -> Fraction:
    """By how much the growing axes differ."""
    for name, p in large.analysis.roles.parameters.items():
        then = small.analysis.roles.parameters.get(name)
        for at, (size, grows) in enumerate(zip(p.shape, p.infinite, strict=False)):
            if grows and then is not None and then.shape[at] != size:
                return Fraction(size, then.shape[at])
    raise MupcError("both widths give one model: the setting does not scale it")


def alike(small: Instance, large: Instance, points: Sequence[Mapping[str, Any]]) -> None:
    """At the smallest width an axis of size one is no dim: roles may be others there, and nothing could be compared."""
    for name, p in large.analysis.roles.parameters.items():
        then = small.analysis.roles.parameters.get(name)
        if then is not None and then.role != p.role:
            sizes = ", ".join(f"{k}={_said(v)}" for k, v in points[0].items())
            raise MupcError(f"{name} is {then.role} at {sizes} and {p.role} at the next width: start wider")


def width_of(point: Mapping[str, Any], at: int) -> int:
    """What stands on the axis of a plot: the largest of the settings."""
    sizes = [v for v in point.values() if isinstance(v, int)] + [max(v) for v in point.values() if isinstance(v, list)]
    return max(sizes, default=at)
