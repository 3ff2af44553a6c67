"""What a forward takes, by name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Parameters:
    """The forward's arguments in order; `annotations` as written."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    defaults: dict[str, Any]
    annotations: dict[str, str]
    takes_any: bool


def forward_parameters(model: nn.Module) -> Parameters:
    """Read off the signature; `*args` and `**kwargs` are no names."""
    try:
        found = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        found = []
    named = [p for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return Parameters(
        tuple(p.name for p in named),
        tuple(p.name for p in named if p.default is p.empty),
        {p.name: p.default for p in named if p.default is not p.empty},
        {p.name: str(getattr(p.annotation, "__name__", p.annotation)) for p in named if p.annotation is not p.empty},
        any(p.kind is p.VAR_KEYWORD for p in found),
    )
