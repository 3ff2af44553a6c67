"""Convolutions over places, as a line or as a map; shuffles of channels and pixels; patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random.spec import ACTS, GROUPS, SIDE, UNIT, Act, Block, Parts, Sizes, mapped, matrix, unmapped

Norm = Literal["none", "batch", "group", "instance"]


def norm_of(norm: Norm, channels: int, dims: int) -> nn.Module:
    if norm == "batch":
        return (nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d)(channels)
    if norm == "instance":
        return (nn.InstanceNorm1d if dims == 1 else nn.InstanceNorm2d)(channels, affine=True)
    return nn.GroupNorm(UNIT, channels) if norm == "group" else nn.Identity()


@dataclass(frozen=True)
class Conv(Block):
    """Two convolutions with a norm and an activation between; the first one is of some kind."""

    dims: Literal[1, 2]
    kind: Literal["full", "depthwise", "grouped", "dilated", "multiplied", "strided", "transposed"]
    norm: Norm
    act: Act
    bias: bool

    def parts(self, s: Sizes) -> Parts:
        conv = nn.Conv1d if self.dims == 1 else nn.Conv2d
        back = nn.ConvTranspose1d if self.dims == 1 else nn.ConvTranspose2d
        inner = s.w if self.kind == "depthwise" else 2 * s.w
        groups = {"depthwise": s.w, "multiplied": s.w, "grouped": GROUPS}.get(self.kind, 1)
        last: nn.Module = conv(inner, s.w, 1)
        if self.kind == "strided":
            first, last = conv(s.w, inner, 2, stride=2, bias=self.bias), back(inner, s.w, 2, stride=2)
        elif self.kind == "transposed":
            first, last = back(s.w, inner, 2, stride=2, bias=self.bias), conv(inner, s.w, 3, stride=2, padding=1)
        else:
            spread = 2 if self.kind == "dilated" else 1
            first = conv(s.w, inner, 3, padding=spread, dilation=spread, groups=groups, bias=self.bias)
        return {"first": first, "norm": norm_of(self.norm, inner, self.dims), "last": last}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z = x.mT if self.dims == 1 else mapped(x)
        z = m.last(ACTS[self.act](m.norm(m.first(z))))
        return z.mT if self.dims == 1 else unmapped(z)


@dataclass(frozen=True)
class Shuffle(Block):
    """Grouped convolutions with a channel shuffle between."""

    how: Literal["view", "op", "stack", "index"]
    depthwise: bool

    def parts(self, s: Sizes) -> Parts:
        return {
            "first": nn.Conv2d(s.w, 2 * s.w, 1, groups=GROUPS),
            "deep": nn.Conv2d(2 * s.w, 2 * s.w, 3, padding=1, groups=2 * s.w) if self.depthwise else nn.Identity(),
            "last": nn.Conv2d(2 * s.w, s.w, 1, groups=GROUPS),
        }

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z = F.relu(m.first(mapped(x)))
        if self.how == "op":
            z = F.channel_shuffle(z, GROUPS)
        elif self.how == "stack":
            z = torch.stack(z.chunk(GROUPS, 1), 2).flatten(1, 2)
        elif self.how == "index":
            z = z[:, torch.arange(z.shape[1], device=z.device).view(GROUPS, -1).t().flatten()]
        else:
            b, c, h, w = z.shape
            z = z.view(b, GROUPS, c // GROUPS, h, w).transpose(1, 2).reshape(b, c, h, w)
        return unmapped(m.last(m.deep(z)))


@dataclass(frozen=True)
class Pixels(Block):
    """More places of fewer channels and back, or fewer places of more channels and back."""

    how: Literal["up", "down", "view", "unfold"]
    act: Act

    def parts(self, s: Sizes) -> Parts:
        if self.how == "up":
            return {"more": nn.Conv2d(s.w, 4 * s.w, 1), "back": nn.Conv2d(s.w, s.w, 2, stride=2)}
        if self.how == "down":
            return {"more": nn.Conv2d(4 * s.w, s.w, 1), "back": nn.Conv2d(s.w, 4 * s.w, 1)}
        return {"more": nn.Linear(4 * s.w, s.w), "back": nn.Linear(s.w, 4 * s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z, act = mapped(x), ACTS[self.act]
        if self.how == "up":
            return unmapped(m.back(act(F.pixel_shuffle(m.more(z), 2))))
        if self.how == "down":
            return unmapped(F.pixel_shuffle(m.back(act(m.more(F.pixel_unshuffle(z, 2)))), 2))
        if self.how == "unfold":
            patches = F.unfold(z, 2, stride=2).mT
            return unmapped(F.fold(m.back(act(m.more(patches))).mT, (SIDE, SIDE), 2, stride=2))
        b, h = x.shape[0], SIDE // 2
        patches = x.view(b, h, 2, h, 2, m.w).permute(0, 1, 3, 2, 4, 5).reshape(b, h * h, 4 * m.w)
        y = m.back(act(m.more(patches))).view(b, h, h, 2, 2, m.w)
        return y.permute(0, 1, 3, 2, 4, 5).reshape(b, SIDE * SIDE, m.w)


@dataclass(frozen=True)
class Window(Block):
    """Places cut into windows, each mixed by attention with a bias per head and offset, and put together again."""

    shifted: bool
    rolled: bool

    def parts(self, s: Sizes) -> Parts:
        at = torch.arange(4, device="cpu")
        index = (at[:, None] // 2 - at[None] // 2 + 1) * 3 + at[:, None] % 2 - at[None] % 2 + 1
        return {
            "qkv": nn.Linear(s.w, 3 * s.w),
            "o": nn.Linear(s.w, s.w),
            "table": matrix(9, s.w // UNIT),
            "index": index,
        }

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z = x.unflatten(1, (SIDE, SIDE))
        z = torch.roll(z, (-1, -1), (1, 2)) if self.rolled else z
        b, h = x.shape[0], SIDE // 2
        z = z.view(b, h, 2, h, 2, m.w).transpose(2, 3).reshape(-1, 4, m.w)
        q, k, v = m.qkv(z).view(-1, 4, 3, m.w // UNIT, UNIT).permute(2, 0, 3, 1, 4)
        bias = m.table[m.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        weights = (q @ k.mT + bias.unsqueeze(0)).softmax(-1)
        z = m.o((weights @ v).transpose(1, 2).flatten(2))
        z = z.view(b, h, h, 2, 2, m.w).transpose(2, 3).reshape(b, SIDE, SIDE, m.w)
        z = torch.roll(z, (1, 1), (1, 2)) if self.rolled else z
        return (z + z.flip(1) if self.shifted else z).flatten(1, 2)
