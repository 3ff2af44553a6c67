"""What random models are made of: a block is a frozen dataclass of choices, which prints as it is written.

A block maps (batch, places, width) to the same. Twice the width doubles what grows and nothing else, so two builds say
which axes of which parameter must be infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, PLACES = 4, 16  # places are a square, so that maps of two dims can be made of them
UNIT = 4  # every width is a multiple; there are width / UNIT heads
RANK, EXPERTS, STATE, COUNT, GROUPS = 3, 5, 6, 7, 2

Act = Literal["relu", "gelu", "silu", "tanh", "square"]
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "square": lambda x: F.relu(x).square(),
}


@dataclass(frozen=True)
class Sizes:
    """The width of the stream here, and of what a second input gives."""

    w: int
    memory: int

    def half(self) -> Sizes:
        return replace(self, w=self.w // 2)

    def halves(self, count: int) -> Sizes:
        """So many halves of the width, and a little more where that could not be cut in two again."""
        return replace(self, w=-(-self.w * count // 16) * 8)


Parts = dict[str, "nn.Module | nn.Parameter | Tensor"]


@dataclass(frozen=True)
class Block:
    """`parts` are its parameters, modules and buffers by name; `run` is its forward."""

    reads: ClassVar[bool] = False

    def parts(self, s: Sizes) -> Parts:
        raise NotImplementedError

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        raise NotImplementedError

    def build(self, s: Sizes) -> nn.Module:
        return Built(self, s)

    def needs_memory(self) -> bool:
        return self.reads or any(b.needs_memory() for b in vars(self).values() if isinstance(b, Block))


class Built(nn.Module):
    """A block at one width."""

    def __init__(self, block: Block, s: Sizes) -> None:
        super().__init__()
        self.block, self.w = block, s.w
        for name, part in block.parts(s).items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.block.run(self, x, memory)


def matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


def mapped(x: Tensor) -> Tensor:
    """Places as a square map, channels first."""
    return x.transpose(1, 2).unflatten(-1, (SIDE, SIDE))


def unmapped(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)
