"""Live state: the size of every tensor's entries as initialized, and what its optimizer's group says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod, sqrt

from torch import Tensor, nn

from mupc.groups import Group, groups
from mupc.plan import Plan
from mupc.structure import unwrapped

Range = tuple[int, int, int]  # axis, start, stop


@dataclass(frozen=True, slots=True)
class Live:
    """One tensor: RMS of its entries and their number, for the whole and for the plan's parts; None on meta."""

    shape: tuple[int, ...]
    rms: float | None
    count: int
    parts: Mapping[Range, tuple[float, int]] = field(default_factory=dict)
    group: Group | None = None
    multiplier: float = 1.0
    trained: bool = True


def read(model: nn.Module, optimizer: object | None, plan: Plan, multipliers: Mapping[str, float]) -> dict[str, Live]:
    """Every parameter's state, by FQN."""
    settings = groups(optimizer)
    cuts = {p.name: [(q.axis, *q.range) for q in p.parts] for p in plan.parameters}
    found = {}
    for name, tensor in unwrapped(model).named_parameters():
        fits = [cut for cut in cuts.get(name, ()) if cut[0] < tensor.ndim and cut[2] <= tensor.shape[cut[0]]]
        parts = {cut: rms(tensor.narrow(cut[0], cut[1], cut[2] - cut[1])) for cut in fits}
        found[name] = Live(
            tuple(tensor.shape),
            rms(tensor)[0],
            tensor.numel(),
            {cut: (rms, count) for cut, (rms, count) in parts.items() if rms is not None},
            settings.get(id(tensor)),
            multipliers.get(name, 1.0),
            tensor.requires_grad,
        )
    return found


def rms(tensor: Tensor) -> tuple[float | None, int]:
    """The root mean square of the entries, None on meta, and how many there are."""
    if tensor.is_meta:
        return None, tensor.numel()
    values = tensor.detach().double()
    return (sqrt(values.abs().pow(2).mean().item()) if prod(tensor.shape) else 0.0), tensor.numel()
