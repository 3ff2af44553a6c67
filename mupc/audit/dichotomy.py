"""The limit that a set-up implies under SGD: its exponents between two sizes, by TP4's dichotomy."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import log

from mupc.audit.state import Live
from mupc.plan import Plan
from mupc.regime import ABC, Regime, classify

NEAR = 0.1  # of a quarter: what a sample of entries may be off


def implied(
    plan: Plan, small: Mapping[str, Live], large: Mapping[str, Live], pairs: Mapping[str, str]
) -> tuple[ABC, Regime] | None:
    """None where widths do not grow by one factor, a tensor has no rate, or the exponents of a role disagree."""
    ratios = {dim.size / dim.base for dim in plan.dims if dim.grows and dim.kind != "depth"}
    if len(ratios) != 1 or (ratio := ratios.pop()) == 1:
        return None
    found: dict[str, set[tuple[Fraction | None, ...]]] = {"input": set(), "hidden": set(), "output": set()}
    for p in plan.parameters:
        then, now = small.get(pairs.get(p.name, "")), large.get(p.name)
        if p.role not in found or then is None or now is None:
            continue
        if then.group is None or now.group is None or not then.rms or not now.rms:
            return None
        values = ((then.multiplier, now.multiplier), (then.rms, now.rms), (then.group.lr, now.group.lr))
        found[p.role].add(tuple(_power(*pair, ratio) for pair in values))
    rows = [next(iter(rows)) for rows in (found["input"], found["hidden"], found["output"]) if len(rows) == 1]
    if len(rows) < 2 or any(len(rows) > 1 for rows in found.values()) or not (found["input"] and found["output"]):
        return None
    powers = [[-power for power in column if power is not None] for column in zip(*rows, strict=True)]
    if any(len(column) != len(rows) for column in powers):
        return None
    abc = ABC.of(*powers)
    return abc, classify(abc)


def _power(base: float, size: float, ratio: float) -> Fraction | None:
    """The power of the width, a multiple of a quarter."""
    power = log(size / base) / log(ratio)
    found = Fraction(round(4 * power), 4)
    return found if abs(float(found) - power) < NEAR else None
