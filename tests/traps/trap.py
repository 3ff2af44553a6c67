"""The registry of traps: a model, its inputs and what a person says each parameter does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

B, T, D, F, H, V, C = 2, 7, 24, 40, 3, 101, 10  # batch, length, width, feed-forward, heads, vocabulary, classes

Parts = dict[str, tuple[int, list[tuple[int, int, str]]]]  # parameter -> axis, [(start, stop, role)]


@dataclass(frozen=True)
class Trap:
    """`parts` are the ranges of a fused axis that must have a role of their own."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]
    table: str
    parts: Parts = field(default_factory=dict)


TRAPS: dict[str, Trap] = {}


def trap(inputs: Callable[[], Any], table: str, parts: Parts | None = None) -> Callable[[type], type]:
    """Register a module class. `inputs` gives one tensor, a tuple of them, or a dict of keyword arguments."""

    def call() -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = inputs()
        if isinstance(given, dict):
            return (), given
        return (given if isinstance(given, tuple) else (given,)), {}

    def register(cls: type) -> type:
        assert cls.__name__ not in TRAPS
        TRAPS[cls.__name__] = Trap(cls, call, table, parts or {})
        return cls

    return register


def ids() -> Tensor:
    return torch.zeros(B, T, dtype=torch.long)


def vectors(features: int = 16) -> Tensor:
    return torch.zeros(B, features)


def sequence(features: int = 16) -> Tensor:
    return torch.zeros(B, T, features)


def image(size: int = 16) -> Tensor:
    return torch.zeros(B, 3, size, size)


class LanguageModel(nn.Module):
    """Embedding, one residual block, norm, head: the frame most traps sit in."""

    def __init__(self, block: nn.Module, width: int = D) -> None:
        super().__init__()
        self.wte = nn.Embedding(V, width)
        self.block = block
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, V, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx)
        return self.head(self.norm(x + self.block(x)))


FRAME = """
    wte.weight   input   .n
    norm.*       vector  n
    head.weight  output  .n
"""
