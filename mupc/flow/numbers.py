"""Numbers in the code: which are powers of a width. `d_model**-0.5` reaches the graph as 0.036; so would a constant.

Two traces of different widths tell: a number that moves is a power of the width, one that stays is none. From a single
trace a number is matched with the sizes in it: size^p for p = 1/2, -1/2, 1, -1; of one growing dim alone it is that
power (assumed), of a growing and a fixed one it is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import isclose, log
from typing import Any

import torch
from torch import fx, nn

from mupc.analysis import Analysis
from mupc.instance import Instance
from mupc.ops import signature_of
from mupc.ops.table import printed

POWERS = (Fraction(1, 2), Fraction(-1, 2), Fraction(1), Fraction(-1))
PLAIN = {0.0, 1.0, 2.0, 0.5, -1.0, -2.0, -0.5, 4.0, 0.25}  # too common to stand for a size
ROUND = 12  # powers are multiples of 1/12
SCALING = ("aten.mul", "aten.div")


@dataclass(frozen=True, slots=True)
class Numbers:
    """`powers` by node, those that are none left out; `told` counts how each number was told; `unknown` gives the nodes
    whose number could not be, with the place and why."""

    powers: Mapping[str, Fraction] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)


def probed(small: Instance, large: Instance, ratio: Fraction) -> Numbers:
    """From traces at two widths. What stands at one and not at the other is unknown."""
    then = {(name, place): value for name, value, place in _found(small.analysis, small.model)}
    lines: dict[str, set[float]] = {}  # where the larger has more blocks, a number is known by its line
    for (_, place), value in then.items():
        lines.setdefault(place, set()).add(value)
    alone = {place: values.pop() for place, values in lines.items() if len(values) == 1}
    powers: dict[str, Fraction] = {}
    unknown: dict[str, str] = {}
    now = list(_found(large.analysis, large.model))
    for name, value, place in now:
        power = _power(then.get((name, place), alone.get(place)), value, ratio)
        if power is None:
            unknown[name] = place
        elif power:
            powers[name] = power
    known = len(now) - len(unknown)
    counts = {"by two widths": known, "unknown": len(unknown)}
    return Numbers(powers, {how: count for how, count in counts.items() if count}, unknown)


def _power(before: float | None, now: float, ratio: Fraction) -> Fraction | None:
    """Of the ratio, that takes one number to the other; None where none does."""
    if before == now:
        return Fraction(0)
    if not before or now / before <= 0:
        return None
    power = Fraction(log(now / before) / log(ratio)).limit_denominator(ROUND)
    return power if isclose(float(ratio) ** float(power), now / before, rel_tol=1e-3) else None


def matched(analysis: Analysis, model: nn.Module | None = None) -> Numbers:
    """From one trace: by size. The model, built with values, has those of buffers."""
    growing = {d.size for d in analysis.roles.dims if d.grows}
    for p in analysis.roles.parameters.values():
        growing |= {size for size, grows in zip(p.shape, p.infinite, strict=False) if grows}
    fixed = {d.size for d in analysis.roles.dims if d.grows is False}
    powers: dict[str, Fraction] = {}
    told: Counter[str] = Counter()
    unknown: dict[str, str] = {}
    for name, value, place in _found(analysis, model):
        wide = _as_power(value, growing)
        if abs(value) in PLAIN or not wide:
            told["constant"] += 1
        elif len(wide) > 1 or _as_power(value, fixed):
            told["unknown"] += 1
            unknown[name] = f"{place} ({value:.6g} is a power of a width and of another size)"
        else:
            told["assumed"] += 1
            powers[name] = wide.pop()
    return Numbers(powers, dict(told), unknown)


def _as_power(value: float, sizes: Iterable[int]) -> set[Fraction]:
    """The powers of a size that a number is."""
    return {p for size in sizes for p in POWERS if size > 2 and isclose(value, size ** float(p), rel_tol=1e-6)}


def _found(analysis: Analysis, model: nn.Module | None) -> Iterator[tuple[str, float, str]]:
    """Every number that a value is multiplied by: node, factor, place. A division by it is its inverse.

    The `alpha` of an add is that of its second operand alone: it goes under `NODE.alpha`.
    """
    facts = analysis.dims_stage.facts
    held = dict(model.named_buffers()) if model is not None else {}
    buffers = {node: held[name] for name, node in facts.trace.buffers.items() if name in held}
    for node in facts.trace.graph.nodes:
        if node.op != "call_function" or node not in facts.live:
            continue
        name = printed(node.target)
        factor: float | None = None
        if name.startswith(SCALING):
            operands = [_value(a, buffers) for a in node.args[:2]]
            numbers = [v for v in operands if v is not None]
            if (
                len(numbers) == 1
                and len(operands) == 2
                and not (name.startswith("aten.div") and operands[0] is not None)
            ):
                factor = numbers[0] if name.startswith("aten.mul") else (1 / numbers[0] if numbers[0] else None)
        elif "scaled_dot_product" in name:
            scale = node.kwargs.get("scale")
            factor = float(scale) if isinstance(scale, (int, float)) else None
        elif name.startswith(("aten.baddbmm", "aten.addmm", "aten.addbmm")):
            alpha = node.kwargs.get("alpha", 1)
            factor = float(alpha) if isinstance(alpha, (int, float)) and alpha != 1 else None
        elif name.startswith(("aten.add.Tensor", "aten.sub.Tensor")) and node.kwargs.get("alpha", 1) != 1:
            alpha = node.kwargs["alpha"]
            if isinstance(alpha, (int, float)):
                yield f"{node.name}.alpha", abs(float(alpha)), str(node.meta.get("source") or node.name)
        if factor is not None:
            yield node.name, factor, str(node.meta.get("source") or node.meta.get("module") or node.name)


def _value(argument: Any, buffers: Mapping[fx.Node, torch.Tensor]) -> float | None:
    """A number, or a constant or buffer of one element, in another type or shape."""
    if isinstance(argument, (int, float)) and not isinstance(argument, bool):
        return float(argument)
    while isinstance(argument, fx.Node) and argument.op == "call_function" and "value" not in argument.meta:
        inputs = argument.all_input_nodes
        if len(inputs) != 1 or not _copies(argument):
            return None
        argument = inputs[0]
    value = argument.meta.get("value", buffers.get(argument)) if isinstance(argument, fx.Node) else None
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta and not value.is_complex():
        return float(value)
    return None


def _copies(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return printed(node.target).startswith(("aten.to", "aten._to_copy")) or (
        schema is not None and signature_of(node).kind == "layout"
    )
