"""Live state: the size of every tensor's entries as initialized, and what its optimizer's group says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

from torch import Tensor, nn

from mupc.plan import Plan
from mupc.structure import unwrapped

Range = tuple[int, int, int]  # axis, start, stop


@dataclass(frozen=True, slots=True)
class Group:
    """The settings that step one tensor; None where its optimizer has no such knob."""

    optimizer: str  # its class
    lr: float
    eps: float | None = None
    decay: float | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """One tensor: RMS of its entries and their number, for the whole and for the plan's parts; None on meta."""

    shape: tuple[int, ...]
    rms: float | None
    count: int
    parts: Mapping[Range, tuple[float, int]] = field(default_factory=dict)
    group: Group | None = None
    multiplier: float = 1.0


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
        )
    return found


def rms(tensor: Tensor) -> tuple[float | None, int]:
    """The root mean square of the entries, None on meta, and how many there are."""
    if tensor.is_meta:
        return None, tensor.numel()
    values = tensor.detach().double()
    return (sqrt(values.abs().pow(2).mean().item()) if prod(tensor.shape) else 0.0), tensor.numel()


def optimizers(found: object | None) -> list[Any]:
    """Every torch-like optimizer in what a factory gave: one, several, or a wrapper around some."""
    if found is None:
        return []
    if isinstance(found, Mapping):
        return [one for value in found.values() for one in optimizers(value)]
    if isinstance(found, (list, tuple)):
        return [one for value in found for one in optimizers(value)]
    inner = getattr(found, "optimizers", None) or getattr(found, "optimizer", None)
    if not hasattr(found, "param_groups") or (inner is not None and not isinstance(inner, str)):
        return optimizers(inner) if inner is not None and inner is not found else []
    return [found]


def groups(optimizer: object | None) -> dict[int, Group]:
    """What every tensor's group says, by the tensor's id."""
    found: dict[int, Group] = {}
    for one in optimizers(optimizer):
        for group in one.param_groups:
            said = Group(
                type(one).__name__,
                float(group["lr"]),
                None if group.get("eps") is None else _number(group["eps"]),
                None if group.get("weight_decay") is None else _number(group["weight_decay"]),
            )
            found.update((id(tensor), said) for tensor in _tensors(group["params"]))
    return found


def _number(value: Any) -> float:
    """The first of several (Adafactor's eps is a pair; its floor of the update is not meant)."""
    if isinstance(value, Sequence):
        value = next((v for v in value if v is not None), 0.0)
    return float(value)


def _tensors(params: Any) -> Iterable[Tensor]:
    return [params] if isinstance(params, Tensor) else list(params)
