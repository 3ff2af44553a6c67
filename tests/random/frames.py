"""Blocks made of blocks: norms and residuals in every style, halves, branches, copies of the stream, skips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random.spec import UNIT, Block, Parts, Sizes, matrix

Norm = Literal["layer", "rms", "none", "plus", "bare", "batch", "group", "root"]
Style = Literal["pre", "post", "none", "halved", "scale", "zero", "highway", "sandwich", "inplace"]


class OnePlus(nn.Module):
    """A norm by hand; the gain is stored as its distance from one, or as it is."""

    def __init__(self, width: int, plus: float) -> None:
        super().__init__()
        self.w, self.plus = matrix(width), plus

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (self.plus + self.w)


class ChannelsFirst(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.mT).mT


def norm_of(norm: Norm, w: int) -> nn.Module:
    if norm in ("plus", "root"):
        return OnePlus(w, float(norm == "plus"))
    if norm in ("batch", "group"):
        return ChannelsFirst(nn.BatchNorm1d(w) if norm == "batch" else nn.GroupNorm(UNIT, w))
    if norm == "bare":
        return nn.LayerNorm(w, elementwise_affine=False)
    return {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "none": nn.Identity}[norm](w)


@dataclass(frozen=True)
class Residual(Block):
    """The stream, and a block beside it."""

    body: Block
    norm: Norm
    style: Style

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"norm": norm_of(self.norm, s.w), "body": self.body.build(s)}
        extra: dict[str, Parts] = {
            "scale": {"scale": matrix(s.w)},
            "zero": {"alpha": matrix(1)},
            "highway": {"gate": nn.Linear(s.w, s.w)},
            "sandwich": {"after": norm_of(self.norm, s.w)},
        }
        return out | extra.get(self.style, {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.style == "post":
            return m.norm(x + m.body(x, memory))
        y = m.body(m.norm(x), memory)
        if self.style == "inplace":
            out = x.clone()
            out += y
            return out
        if self.style == "highway":
            gate = torch.sigmoid(m.gate(x))
            return gate * x + (1 - gate) * y
        return {
            "pre": lambda: x + y,
            "none": lambda: F.relu(y),
            "halved": lambda: (x + y) * 0.5**0.5,
            "scale": lambda: x + m.scale * y,
            "zero": lambda: torch.add(x, m.alpha * y),
            "sandwich": lambda: x + m.after(y),
        }[self.style]()


@dataclass(frozen=True)
class Halves(Block):
    """Cut in two; one half goes through a block; put together again."""

    body: Block
    cut: Literal["chunk", "slice", "strided"]
    mixed: bool
    coupled: bool  # the other half is gated by it too

    def parts(self, s: Sizes) -> Parts:
        return {"body": self.body.build(s.half())} | ({"mix": nn.Linear(s.w, s.w)} if self.mixed else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        half = m.w // 2
        a, b = {
            "chunk": lambda: x.chunk(2, -1),
            "slice": lambda: (x[..., :half], x[..., half:]),
            "strided": lambda: (x[..., ::2], x[..., 1::2]),
        }[self.cut]()
        a = m.body(a, memory)
        b = b * torch.sigmoid(a) if self.coupled else b
        y = torch.stack([a, b], -1).flatten(-2) if self.cut == "strided" else torch.cat([a, b], -1)
        return m.mix(y) if self.mixed else y


@dataclass(frozen=True)
class Branches(Block):
    """Two blocks of one input: added, multiplied, laid end to end, chosen between by a learned scalar."""

    left: Block
    right: Block
    join: Literal["add", "gate", "cat", "input", "weighted"]

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"left": self.left.build(s), "right": self.right.build(s)}
        extra: dict[str, Parts] = {
            "cat": {"mix": nn.Linear(2 * s.w, s.w)},
            "input": {"mix": nn.Linear(3 * s.w, s.w)},
            "weighted": {"weights": matrix(2)},
        }
        return out | extra.get(self.join, {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        a, b = m.left(x, memory), m.right(x, memory)
        return {
            "add": lambda: a + b,
            "gate": lambda: a * F.silu(b),
            "cat": lambda: m.mix(torch.cat([a, b], -1)),
            "input": lambda: m.mix(torch.cat([a, x, b], -1)),
            "weighted": lambda: torch.einsum("n,nbtd->btd", m.weights.softmax(0), torch.stack([a, b])),
        }[self.join]()


@dataclass(frozen=True)
class Copies(Block):
    """Hyper-connections: copies of the stream, read and written by learned weights."""

    body: Block
    count: Literal[2, 3]
    dynamic: bool
    apart: bool  # each layer's own weights

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"body": self.body.build(s)}
        for i in range(2 if self.apart else 1):
            out |= {f"read{i}": matrix(self.count), f"write{i}": matrix(self.count)}
            out |= {f"mix{i}": matrix(self.count, self.count)}
        return out | ({"depends": nn.Linear(s.w, self.count)} if self.dynamic else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        streams = x.unsqueeze(2).expand(-1, -1, self.count, -1)
        for i in (0, int(self.apart)):
            read, write, mix = (getattr(m, f"{name}{i}") for name in ("read", "write", "mix"))
            into = torch.einsum("n,btnd->btd", read, streams)
            y = m.body(F.rms_norm(into, (m.w,)), memory)
            write = write + torch.tanh(m.depends(into)) if self.dynamic else write
            streams = torch.einsum("nm,btnd->btmd", mix, streams) + write.unsqueeze(-1) * y.unsqueeze(2)
        return streams.sum(2)


@dataclass(frozen=True)
class Skip(Block):
    """Two blocks in a row, the first one's input laid beside, or added to, what comes out (U-Net)."""

    first: Block
    second: Block
    join: Literal["cat", "add"]

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"first": self.first.build(s), "second": self.second.build(s)}
        return out | ({"mix": nn.Linear(2 * s.w, s.w)} if self.join == "cat" else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        y = m.second(F.relu(m.first(x, memory)), memory)
        return m.mix(torch.cat([y, x], -1)) if self.join == "cat" else x + y


@dataclass(frozen=True)
class Wider(Block):
    """A block at another width, between matrices."""

    body: Block
    halves: Literal[2, 3, 4, 1]  # of the width here, between the matrices

    def parts(self, s: Sizes) -> Parts:
        inner = s.halves(self.halves)
        return {"into": nn.Linear(s.w, inner.w), "body": self.body.build(inner), "back": nn.Linear(inner.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        return m.back(F.gelu(m.body(F.gelu(m.into(x)), memory)))
