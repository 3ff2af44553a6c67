"""Predictions and measurements -> a Check: value by value, then overall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import fx

from mupc.analysis import Analysis
from mupc.check.document import AGREEING, Check, Row, Series, Tensor, Verdict
from mupc.check.hold import UNCLEAR, WITHIN, Held, hold, said
from mupc.check.measure import Measured
from mupc.check.slopes import Slope, fit
from mupc.flow import Flow
from mupc.flow.findings import names_of, place_of
from mupc.flow.powers import Power
from mupc.flow.verdicts import Moved, judge, judged_nodes

PARTS = ("effective", "propagating")
BETWEEN = "between the powers of its terms, or bounded: not parted at these widths"
UNCLEAR_ROWS = 0.2  # of all values, at most


@dataclass(frozen=True, slots=True)
class Settings:
    """The powers with which a tensor's rate, decoupled decay and Adam's eps go; None where it has none."""

    lr: Power
    decay: Power
    eps: Power


def checked(
    analysis: Analysis, flow: Flow, runs: Mapping[int, Sequence[Measured]], *, target: str, setup: str, steps: int,
    how: str, notes: Sequence[str] = (), settings: Mapping[str, Settings] = MappingProxyType({}),
) -> Check:  # fmt: skip
    """One check. In the linear regime slopes are held against predictions, in training their verdicts are."""
    values, moved = judge(analysis, flow)
    names = names_of(values)
    first = next(iter(runs.values()))[0]
    nodes = {j.node.name: j.node for j in values if j.node.name in first.values}
    outputs = [node.name for node, word in judged_nodes(analysis).items() if word == "output"]
    held = hold(runs, flow, list(nodes), outputs, training=steps > 0)
    rows = []
    for name, node in nodes.items():
        own = [one for one in held if one.node == name]
        rows.append(_row(names[node], node, own, training=steps > 0))
    judged = [row for row in rows if row.verdict != "unknown"]
    agreeing = sum(row.verdict == "ok" for row in judged)
    tensors = _tensors(flow, moved, runs, settings if steps == 0 else {})
    unclear = sum(_unclear(row) for row in rows)
    healthy = not any(row.ill for row in rows) and not any(t.verdict in ("explodes", "lazy") for t in tensors)
    return Check(
        target=target, setup=setup, regime="training" if steps else "linear", widths=tuple(sorted(runs)), said=how,
        seeds=min(len(ms) for ms in runs.values()), steps=steps, rows=tuple(rows), tensors=tuple(tensors),
        judged=len(judged), agreeing=agreeing, unclear=unclear, healthy=healthy,
        passed=healthy and bool(judged) and agreeing >= AGREEING * len(judged) and unclear <= UNCLEAR_ROWS * len(rows),
        notes=tuple(notes),
    )  # fmt: skip


def _row(name: str, node: fx.Node, held: Sequence[Held], *, training: bool) -> Row:
    series = tuple(_series(one, training) for one in held if one.slope is not None or one.predicted is not None)
    change = next((one for one in held if one.quantity == "change"), None)
    init = next((one for one in held if one.quantity == "init"), None)
    parts = [one for one in held if one.quantity in PARTS]
    predicted, measured = (_verdict(init, change, parts, measured=m) for m in (False, True))
    between = predicted != measured and _verdict(init, change, parts, measured=True, loosely=True) == predicted
    verdicts = {s.verdict for s in series if s.quantity != "change"}
    if training:
        agrees = between or predicted == measured
        verdict: Verdict = "ok" if agrees else "unknown" if measured == "unclear" else "off"
    else:
        verdict = "off" if "off" in verdicts else "ok" if "ok" in verdicts else "unknown"
    place = node.meta.get("user_source") or node.meta.get("source")
    return Row(name=name, source=place and str(place), series=series, predicted=predicted, measured=measured,
               verdict=verdict, why=BETWEEN if between else "")  # fmt: skip


def _series(one: Held, training: bool) -> Series:
    if one.within is None or (training and one.quantity not in ("init", "grad")):
        verdict: Verdict = "unknown"
    else:
        verdict = "ok" if one.within else "off"
    slope = one.slope
    return Series(
        quantity=one.quantity, predicted=None if one.predicted is None else str(one.predicted),
        slope=None if slope is None else round(slope.power, 4),
        half=None if slope is None or slope.half is None else round(slope.half, 4),
        points=() if slope is None else tuple((w, float(f"{v:.6g}")) for w, v in slope.points),
        verdict=verdict, why=one.why,
    )  # fmt: skip


def _verdict(
    init: Held | None, change: Held | None, parts: Sequence[Held], *, measured: bool, loosely: bool = False
) -> str:
    """Grows if its init or its change does, else what its change does.

    A change of two parts is a sum of two powers, and its slope lies between: the larger of the parts' is its own.
    `loosely`: a slope that lies between the powers of a sum's terms is taken as predicted.
    """

    def of(one: Held | None) -> tuple[float, str]:
        if one is None or (one.slope is None if measured else one.predicted is None):
            return float("-inf"), "nothing"
        if measured and one.slope is not None and not (loosely and one.loose and one.within):
            return one.slope.power, said(one.slope.power, one.slope.half)
        return float(one.predicted or 0), said(None if one.predicted is None else float(one.predicted))

    steepest = max([of(part) for part in parts] or [of(change)])
    if steepest[1] == "nothing":
        steepest = of(change)
    return "grows" if of(init)[1] == "grows" else steepest[1]


def _unclear(row: Row) -> bool:
    return (row.measured == "unclear" and not row.why) or any(
        s.why == UNCLEAR for s in row.series if s.quantity != "change"
    )


def _tensors(
    flow: Flow, moved: Sequence[Moved], runs: Mapping[int, Sequence[Measured]], settings: Mapping[str, Settings]
) -> list[Tensor]:
    """Every parameter's slopes, and its own effect at the use where flow judges it."""
    names = list(next(iter(runs.values()))[0].weights)
    judged = {one.name: one for one in moved}
    out = []
    for name in names:
        slopes = {}
        for what in ("size", "step", "grad", "top", "top_step"):
            every = {w: [getattr(m.weights[name], what) for m in ms if name in m.weights] for w, ms in runs.items()}
            series = {w: [value for value in values if value is not None] for w, values in every.items()}
            found = fit(series) if all(series.values()) else None
            slopes[what] = None if found is None else round(found.power, 4)
        one = judged.get(name)
        power, effect = None, None
        if one is not None and one.node is not None:
            key = f"{name}|{one.node.name}"
            power = flow.effects.get((name, one.node.name))
            series = {w: [m.effects[key] for m in ms if key in m.effects] for w, ms in runs.items()}
            effect = fit(series) if all(series.values()) else None
        out.append(
            Tensor(
                name=name, source=place_of(one.node) if one is not None and one.node is not None else None,
                size=slopes["size"], update=slopes["step"], grad=slopes["grad"],
                effect=None if effect is None else round(effect.power, 4),
                half=None if effect is None or effect.half is None else round(effect.half, 4),
                predicted=None if power is None else str(power), verdict=_own(one, power, effect),
                top=slopes["top"], top_update=slopes["top_step"],
                equilibrium=_equilibrium(slopes["step"], settings.get(name)),
                eps=_gain(slopes["grad"], settings.get(name)),
            )
        )  # fmt: skip
    return out


def _equilibrium(step: float | None, said: Settings | None) -> float | None:
    """The power of the size that decay holds a tensor at: its step's, less half that of rate times decay."""
    if step is None or said is None or said.lr is None or said.decay is None:
        return None
    return round(step - float(said.lr + said.decay) / 2, 4)


def _gain(grad: float | None, said: Settings | None) -> float | None:
    return None if grad is None or said is None or said.eps is None else round(float(said.eps) - grad, 4)


def _own(one: Moved | None, power: Power, effect: Slope | None) -> str:
    """What flow says of a parameter's own update, if it is measured so; `off` if it is not."""
    if one is None or power is None or effect is None:
        return "unknown"
    if abs(effect.power - float(power)) > WITHIN + (effect.half or 0.0):
        return "off"
    return one.verdict


def worst(check: Check) -> list[Row]:
    """Rows that disagree or are ill, the steepest first."""

    def steep(row: Row) -> float:
        return max((abs(s.slope) for s in row.series if s.slope is not None and s.quantity in ("init", "change")),
                   default=0.0)  # fmt: skip

    return sorted((r for r in check.rows if r.verdict == "off" or r.ill), key=steep, reverse=True)
