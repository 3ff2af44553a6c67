"""Flow: how every value of the graph, its change and its gradient scale under a set-up, without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from torch import fx

from mupc.analysis import Analysis
from mupc.flow.backward import Backward
from mupc.flow.forward import Forward
from mupc.flow.powers import Power
from mupc.flow.setup import Ray, Setup, Weight, from_plan
from mupc.flow.value import Value

__all__ = ["Flow", "Ray", "Setup", "Value", "Weight", "flow", "from_plan"]


@dataclass(frozen=True, slots=True)
class Flow:
    """`values` and `grads` by node; `steps` the exponents of each parameter's update entries.

    `effects`: by parameter and node, how far the parameter's own update moves the node, `effects_later` once what it
    meets has moved; `later` are gradients after a step; `numbers`: powers of the code's numbers, by node.
    """

    values: Mapping[fx.Node, Value]
    scores: Mapping[fx.Node, Value]
    grads: Mapping[fx.Node, Power]
    steps: Mapping[str, Power]
    effects: Mapping[tuple[str, str], Power]
    effects_later: Mapping[tuple[str, str], Power]
    later: Mapping[fx.Node, Power]
    numbers: Mapping[str, Fraction]


def flow(analysis: Analysis, setup: Setup, ray: Ray) -> Flow:
    """Forward at init, backward for the gradients that updates are made of, then both again with the updates."""
    dims = analysis.dims_stage
    still = Forward(dims, setup, ray, {})
    still.run()
    grads = Backward(still).run()
    nodes = dims.facts.trace.parameters
    steps = {
        name: weight.step(_own(grads.get(nodes[name]), weight), _fans(analysis, name))
        for name, weight in setup.weights.items()
        if name in nodes
    }
    moving = Forward(dims, setup, ray, steps)
    values = moving.run()
    later = Backward(moving).run()
    return Flow(values, moving.scores, grads, steps, moving.effects, moving.effects_later, later, setup.numbers)


def _own(grad: Power, weight: Weight) -> Power:
    """The tensor's own gradient: that of what it is multiplied into, times the multiplier."""
    return None if grad is None else grad + weight.multiplier


def _fans(analysis: Analysis, name: str) -> dict[str, Fraction]:
    p = analysis.roles.parameters[name]
    fan_in, fan_out = Fraction(len(p.fan_in)), Fraction(len(p.fan_out))
    vector = p.role in ("vector", "scalar")
    widest = Fraction(min(1, len(p.fan_in)))
    return {
        "fan_in": fan_in, "fan_in_widest": widest, "fan_out": Fraction(0) if vector else fan_out,
        "fan_max": fan_in if vector else max(fan_in, fan_out),
        "batch": fan_out if vector else Fraction(0), "entries": fan_in + fan_out, "multiplier": Fraction(0),
    }  # fmt: skip
