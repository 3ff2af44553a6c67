"""Measured slopes held against predicted powers, value by value and part by part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mupc.check.measure import QUANTITIES, Measured
from mupc.check.slopes import Slope, fit
from mupc.flow import Flow
from mupc.flow.powers import Power
from mupc.flow.value import Value

WITHIN = 0.12
FEW = 0.25  # of outputs with few entries, at init, where chance is large
NOISE = 1e-6  # relative to a value: a change or part so small is rounding
VERDICT = 0.25  # a slope beyond it grows or vanishes
UNCLEAR = "unclear: the seeds differ too much"


@dataclass(frozen=True, slots=True)
class Held:
    """One quantity of one value: predicted power, measured slope; `within` the tolerance, None if not comparable."""

    node: str
    quantity: str
    predicted: Power
    slope: Slope | None
    within: bool | None
    why: str = ""
    loose: Fraction = Fraction(0)  # how far below its power a sum of terms may yet be measured


def hold(
    runs: Mapping[int, Sequence[Measured]], flow: Flow, nodes: Iterable[str], outputs: Iterable[str] = (),
    chance: bool = True, training: bool = False,
) -> list[Held]:  # fmt: skip
    """Every judged value's quantities. `runs` has a measurement a seed, by width.

    `chance` allows for half of each slope's 95 % interval beside the tolerance, and for sums whose terms have not
    parted yet at the widths measured. `training`: after real steps what is bounded may have stopped growing.
    """
    values = {node.name: (node, value) for node, value in flow.values.items()}
    few = set(outputs)
    found = []
    for name in nodes:
        node, value = values[name]
        if not value.known:
            found += [Held(name, quantity, None, None, None, "not known") for quantity in QUANTITIES]
            continue
        predicted: dict[str, Power] = {
            "init": value.init, "change": value.delta1, "effective": value.effective,
            "propagating": value.propagating, "grad": flow.grads.get(node),
        }  # fmt: skip
        for quantity in QUANTITIES:
            series = {w: [getattr(m.values[name], quantity) for m in ms if name in m.values] for w, ms in runs.items()}
            sizes = {w: [m.values[name].init for m in ms if name in m.values] for w, ms in runs.items()}
            within = FEW if name in few else WITHIN
            loose = {"init": value.mixed, "propagating": value.loose, "change": value.spread}.get(quantity, Fraction(0))
            if training and quantity in ("change", "propagating"):
                loose = max(loose, _bounded(value))
            found.append(_one(name, quantity, predicted[quantity], series, sizes, within, chance, loose))
    return found


def _bounded(value: Value) -> Fraction:
    """How far below its first-order change a value's change to all orders stays."""
    if value.delta1 is None or value.delta is None:
        return Fraction(0)
    return value.delta1 - value.delta


def _one(
    name: str, quantity: str, predicted: Power, series: Mapping[int, Sequence[float | None]],
    sizes: Mapping[int, Sequence[float]], within: float, chance: bool, loose: Fraction,
) -> Held:  # fmt: skip
    if any(v is None for values in series.values() for v in values):
        return Held(name, quantity, predicted, None, None, "no such part")
    known = {w: [float(v) for v in values if v is not None] for w, values in series.items()}
    widest = max(known, default=0)
    if not known or not known[widest]:
        return Held(name, quantity, predicted, None, None, "not measured")
    noise = NOISE if quantity != "init" else 0.0
    if quantity != "grad" and all(
        v <= noise * max(s, 1e-30) for v, s in zip(known[widest], sizes[widest], strict=True)
    ):
        agreed = None if predicted is not None else True
        return Held(name, quantity, predicted, None, agreed, "measured: nothing")
    slope = fit(known)
    if slope is None:
        return Held(name, quantity, predicted, None, None, "measured: nothing")
    if predicted is None:
        return Held(name, quantity, predicted, slope, False, "predicted: nothing")
    allowed = within if quantity == "init" else WITHIN
    off = abs(slope.power - float(predicted))
    if chance and slope.power < predicted:
        off = max(0.0, off - float(loose))
    half = slope.half or 0.0 if chance else 0.0
    if half > VERDICT and allowed < off <= allowed + half:  # an interval so wide would hold anything
        return Held(name, quantity, predicted, slope, None, UNCLEAR, loose)
    return Held(name, quantity, predicted, slope, off <= allowed + half, loose=loose)


def said(power: float | None, half: float | None = None) -> str:
    """Grows, stable or vanishes; unclear where chance could bring it back to stable."""
    if power is None:
        return "nothing"
    if abs(power) <= VERDICT:
        return "stable"
    if half is not None and abs(power) - half <= VERDICT:
        return "unclear"
    return "grows" if power > 0 else "vanishes"
