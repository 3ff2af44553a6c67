"""What steps each tensor: the optimizers in whatever a factory gave, and what their groups say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """The settings that step one tensor; None where its optimizer has no such knob."""

    optimizer: str  # its class, and the option that makes it another rule's: AdamW for Adam that decouples its decay
    lr: float
    eps: float | None = None
    decay: float | None = None


def optimizers(found: object | None) -> list[Any]:
    """Every torch-like optimizer in what a factory gave: one, several, or a wrapper around some."""
    if found is None:
        return []
    if isinstance(found, Mapping):
        return optimizers(list(found.values()))
    if isinstance(found, (list, tuple)):  # a scheduler holds an optimizer that may stand beside it
        return list({id(one): one for value in found for one in optimizers(value)}.values())
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
                _spoken(type(one).__name__, group),
                float(group["lr"] or group.get("initial_lr", 0.0)),  # a warm-up may begin at zero
                None if group.get("eps") is None else _number(group["eps"]),
                None if group.get("weight_decay") is None else _number(group["weight_decay"]),
            )
            found.update((id(tensor), said) for tensor in _tensors(group["params"]))
    return found


def _spoken(name: str, group: Mapping[str, Any]) -> str:
    """The class, by the name of the rule that its options ask for."""
    if group.get("decoupled_weight_decay") and not name.endswith("W"):
        return f"{name}W"
    if name == "Adafactor" and group.get("scale_parameter") is False:
        return "Adafactor(scale_parameter=False)"
    return f"{name}Moonshot" if group.get("adjust_lr_fn") == "match_rms_adamw" else name


def _number(value: Any) -> float:
    """The first of several (Adafactor's eps is a pair; its floor of the update is not meant)."""
    if isinstance(value, Sequence):
        value = next((v for v in value if v is not None), 0.0)
    return float(value)


def _tensors(params: Any) -> Iterable[Tensor]:
    return [params] if isinstance(params, Tensor) else list(params)
