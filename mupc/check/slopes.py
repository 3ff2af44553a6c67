"""Log-log slopes over widths, with confidence intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

TOP = 3  # a slope is fitted over so many of the largest widths: small ones drag it low

# Student's t, two-sided 95 %, by degrees of freedom (Abramowitz, Stegun, Table 26.10).
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True, slots=True)
class Slope:
    """The fitted power, half the width of its 95 % interval (None for one seed), and what was fitted."""

    power: float
    half: float | None
    points: tuple[tuple[int, float], ...]  # width, RMS over seeds


def fit(runs: Mapping[int, Sequence[float]]) -> Slope | None:
    """Of one quantity, `runs[width]` has a value a seed. None where at some width there is nothing to fit."""
    points = tuple((width, sqrt(sum(v * v for v in values) / len(values))) for width, values in sorted(runs.items())
                   if values)  # fmt: skip
    if len(points) < 2 or any(value <= 0 for _, value in points[-TOP:]):
        return None
    seeds = min(len(values) for values in runs.values())
    each = []
    for seed in range(seeds):
        one = [(width, values[seed]) for width, values in sorted(runs.items())][-TOP:]
        if all(value > 0 for _, value in one):
            each.append(_line(one))
    return Slope(_line(points[-TOP:]), _half(each), points)


def _line(points: Sequence[tuple[int, float]]) -> float:
    """The least-squares slope of log value over log width."""
    xs, ys = [log(width) for width, _ in points], [log(value) for _, value in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def _half(each: Sequence[float]) -> float | None:
    if len(each) < 2:
        return None
    mean = sum(each) / len(each)
    spread = sqrt(sum((one - mean) ** 2 for one in each) / (len(each) - 1))
    return STUDENT.get(len(each) - 1, 1.96) * spread / sqrt(len(each))
