"""Attention in many layouts: fused or not, grouped or not, rotated, latent, linear, over oneself or a second input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random.spec import COUNT, RANK, UNIT, Block, Parts, Sizes, matrix

Rope = Literal["none", "halves", "pairs", "partial", "complex"]
Scores = Literal["sdpa", "gqa", "matmul", "einsum", "bmm", "linear"]


def rotate(x: Tensor, how: Rope) -> Tensor:
    """(batch, places, heads, head_dim), turned by its place."""
    if how == "none":
        return x
    if how == "partial":
        front, back = x.split([2, x.shape[-1] - 2], -1)
        return torch.cat([rotate(front, "halves"), back], -1)
    half = x.shape[-1] // 2
    speed = 100.0 ** (-torch.arange(half, device=x.device) / half)
    angle = (torch.arange(x.shape[1], device=x.device)[:, None] * speed)[:, None]
    if how == "complex":
        turned = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous()) * torch.polar(
            torch.ones_like(angle), angle
        )
        return torch.view_as_real(turned).flatten(-2)
    cos, sin = angle.cos(), angle.sin()
    if how == "pairs":
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return x * torch.cat([cos, cos], -1) + torch.cat([-b, a], -1) * torch.cat([sin, sin], -1)


def repeated(x: Tensor, times: int) -> Tensor:
    """Each kv head as often as there are queries for it: (b, t, kv, d) -> (b, t, kv * times, d)."""
    return x[:, :, :, None].expand(-1, -1, -1, times, -1).flatten(2, 3)


def mix(q: Tensor, k: Tensor, v: Tensor, scores: Scores, causal: bool) -> Tensor:
    """All as (batch, places, heads, head_dim)."""
    group = q.shape[2] // k.shape[2]
    if scores == "einsum":
        q = q.unflatten(2, (k.shape[2], group))
        weights = torch.einsum("bskgd,btkd->bkgst", q, k).softmax(-1)
        return torch.einsum("bkgst,btkd->bskgd", weights, v).flatten(2, 3)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if scores == "gqa":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=group > 1).transpose(1, 2)
    if group > 1 and scores != "sdpa":
        k, v = (repeated(z.transpose(1, 2), group).transpose(1, 2) for z in (k, v))
    elif group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    if scores == "sdpa":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)
    if scores == "linear":
        q, k = F.elu(q) + 1, F.elu(k) + 1
        total = torch.einsum("bhsd,bhd->bhs", q, k.sum(2)).unsqueeze(-1)
        return ((q @ (k.transpose(-1, -2) @ v)) / total).transpose(1, 2)
    if scores == "bmm":
        b, h, t, d = q.shape
        weights = torch.bmm(q.reshape(b * h, t, d), k.reshape(b * h, -1, d).transpose(1, 2)).softmax(-1)
        return torch.bmm(weights, v.reshape(b * h, -1, d)).view(b, h, t, d).transpose(1, 2)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
        logits = logits.masked_fill(~mask, float("-inf"))
    return (logits.softmax(-1) @ v).transpose(1, 2)


@dataclass(frozen=True)
class Attention(Block):
    """`rows` is the layout of the projection; `one` kv head, or `group` queries to each of width / UNIT kv heads."""

    rows: Literal["apart", "three", "chunk", "first", "inner", "split", "keys", "groups"]
    group: Literal[1, 2, 3]
    one: bool
    head_dim: Literal[4, 6, 16]
    rope: Rope
    scores: Scores
    causal: bool
    normed: bool
    gated: bool
    bias: bool

    def counts(self, w: int) -> tuple[int, int]:
        return (w // UNIT, 1) if self.one else (w // UNIT * self.group, w // UNIT)

    def layout(self, w: int) -> str:
        h, kv = self.counts(w)
        return "split" if h != kv and self.rows in ("three", "chunk", "first", "inner") else self.rows

    def parts(self, s: Sizes) -> Parts:
        (h, kv), d = self.counts(s.w), self.head_dim
        sizes = {"apart": {"q": h, "k": kv, "v": kv}, "keys": {"q": h, "kv": 2 * kv}}
        rows = sizes.get(self.layout(s.w), {"qkv": h + 2 * kv})
        out: Parts = {name: nn.Linear(s.w, n * d, bias=self.bias) for name, n in rows.items()}
        out |= {"q_norm": nn.RMSNorm(d), "k_norm": nn.RMSNorm(d)} if self.normed else {}
        out |= {"gate": nn.Linear(s.w, h * d)} if self.gated else {}
        return out | {"o": nn.Linear(h * d, s.w, bias=self.bias)}

    def cut(self, m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (h, kv), d, layout = self.counts(m.w), self.head_dim, self.layout(m.w)
        b, t, _ = x.shape
        if layout == "apart":
            return m.q(x).view(b, t, h, d), m.k(x).view(b, t, kv, d), m.v(x).view(b, t, kv, d)
        if layout == "keys":
            k, v = m.kv(x).view(b, t, kv, 2 * d).chunk(2, -1)
            return m.q(x).view(b, t, h, d), k, v
        rows = m.qkv(x)
        if layout == "split":
            q, k, v = rows.split([h * d, kv * d, kv * d], -1)
            return q.unflatten(-1, (h, d)), k.unflatten(-1, (kv, d)), v.unflatten(-1, (kv, d))
        if layout == "groups":
            rows = rows.view(b, t, kv, h // kv + 2, d)
            return rows[..., :-2, :].flatten(2, 3), rows[..., -2, :], rows[..., -1, :]
        if layout == "first":
            return rows.view(b, t, h, 3 * d).split(d, -1)  # type: ignore[return-value]
        if layout == "inner":
            return rows.view(b, t, h, d, 3).unbind(-1)  # type: ignore[return-value]
        if layout == "chunk":
            q, k, v = (z.view(b, t, h, d) for z in rows.chunk(3, -1))
            return q, k, v
        q, k, v = rows.view(b, t, 3, h, d).permute(2, 0, 1, 3, 4)
        return q, k, v

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = self.cut(m, x)
        if self.normed:
            q, k = m.q_norm(q), m.k_norm(k)
        y = mix(rotate(q, self.rope), rotate(k, self.rope), v, self.scores, self.causal).flatten(2)
        return m.o(y * torch.sigmoid(m.gate(x)) if self.gated else y)


@dataclass(frozen=True)
class Cross(Block):
    """Queries from the stream, keys and values from the second input."""

    fused: bool
    module: bool
    scores: Literal["sdpa", "matmul", "einsum", "bmm"]
    reads = True

    def parts(self, s: Sizes) -> Parts:
        if self.module:
            wide = s.memory + 3  # never as wide as the stream: the module would hold its weights in another way
            return {"both": nn.MultiheadAttention(s.w, s.w // UNIT, kdim=wide, vdim=wide, batch_first=True)}
        rows = {"kv": 2 * s.w} if self.fused else {"k": s.w, "v": s.w}
        out: Parts = {name: nn.Linear(s.memory, n) for name, n in rows.items()}
        return {"q": nn.Linear(s.w, s.w)} | out | {"o": nn.Linear(s.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.module:
            memory = F.pad(memory, (0, 3))
            return m.both(x, memory, memory, need_weights=False)[0]
        k, v = m.kv(memory).chunk(2, -1) if self.fused else (m.k(memory), m.v(memory))
        q, k, v = (z.unflatten(-1, (-1, UNIT)) for z in (m.q(x), k, v))
        return m.o(mix(q, k, v, self.scores, False).flatten(2))


@dataclass(frozen=True)
class ByLetters(Block):
    """Attention as einsums whose letters, and whose weights' axes, stand in any order."""

    letters: tuple[str, ...]  # batch, place, other place, width, head, head_dim
    order: tuple[int, ...]  # of a weight's axes: width, head, head_dim
    together: bool  # the last two products as one

    def parts(self, s: Sizes) -> Parts:
        shape = (s.w, s.w // UNIT, UNIT)
        return {name: matrix(*(shape[i] for i in self.order)) for name in ("q", "k", "v", "o")}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        b, s, t, d, h, k = self.letters
        weight = "".join((d, h, k)[i] for i in self.order)
        q, key, v = (torch.einsum(f"{b}{s}{d},{weight}->{b}{h}{s}{k}", x, w) for w in (m.q, m.k, m.v))
        weights = torch.einsum(f"{b}{h}{s}{k},{b}{h}{t}{k}->{b}{h}{s}{t}", q, key).softmax(-1)
        if self.together:
            return torch.einsum(f"{b}{h}{s}{t},{b}{h}{t}{k},{weight}->{b}{s}{d}", weights, v, m.o)
        y = torch.einsum(f"{b}{h}{s}{t},{b}{h}{t}{k}->{b}{s}{h}{k}", weights, v)
        return (
            torch.einsum(f"{b}{s}{h}{k},{weight}", y, m.o)
            if b < s < d
            else torch.einsum(f"{b}{s}{h}{k},{weight}->{b}{s}{d}", y, m.o)
        )


@dataclass(frozen=True)
class Latent(Block):
    """Multi-head latent attention: ranks that stay, a rotary key that the heads share."""

    query: bool  # queries through a rank too
    sliced: bool
    normed: bool

    def parts(self, s: Sizes) -> Parts:
        h = s.w // UNIT
        out: Parts = {"a": nn.Linear(s.w, RANK + 2, bias=False), "b": nn.Linear(RANK, h * 10, bias=False)}
        out |= {"norm": nn.RMSNorm(RANK)} if self.normed else {}
        out |= {"q_a": nn.Linear(s.w, RANK), "q_norm": nn.RMSNorm(RANK)} if self.query else {}
        return out | {"q": nn.Linear(RANK if self.query else s.w, h * 6), "o": nn.Linear(h * 6, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        h = m.w // UNIT
        q = m.q(m.q_norm(m.q_a(x)) if self.query else x).unflatten(-1, (h, 6))
        both = m.a(x)
        latent, rope = (both[..., :RANK], both[..., RANK:]) if self.sliced else both.split([RANK, 2], -1)
        k, v = m.b(m.norm(latent) if self.normed else latent).unflatten(-1, (h, 10)).split([4, 6], -1)
        plain, turned = q.split([4, 2], -1)
        q = torch.cat([plain, rotate(turned, "halves")], -1)
        rope = rotate(rope.unsqueeze(2), "halves").expand(-1, -1, h, -1)
        return m.o(mix(q, torch.cat([k, rope], -1), v, "matmul", True).flatten(2))


@dataclass(frozen=True)
class SingleHead(Block):
    """Nothing splits what the scores contract, so it grows."""

    shared: bool  # keys are values

    def parts(self, s: Sizes) -> Parts:
        return {n: nn.Linear(s.w, s.w) for n in ("q", "k", "o")} | ({} if self.shared else {"v": nn.Linear(s.w, s.w)})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        k = m.k(x)
        weights = torch.bmm(m.q(x), k.mT).div(m.w**0.5).softmax(-1)
        return m.o(F.relu(weights @ (k if self.shared else m.v(x))))


@dataclass(frozen=True)
class Latents(Block):
    """A fixed number of learned latents reads the stream, and the stream reads them."""

    scores: Literal["sdpa", "matmul", "einsum"]

    def parts(self, s: Sizes) -> Parts:
        names = ("q1", "k1", "v1", "q2", "k2", "v2", "o")
        return {"latents": matrix(COUNT, s.w)} | {n: nn.Linear(s.w, s.w) for n in names}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        latents = m.latents.expand(x.shape[0], -1, -1)
        q, k, v = (f(z).unflatten(-1, (-1, UNIT)) for f, z in ((m.q1, latents), (m.k1, x), (m.v1, x)))
        latents = latents + mix(q, k, v, self.scores, False).flatten(2)
        q, k, v = (f(z).unflatten(-1, (-1, UNIT)) for f, z in ((m.q2, x), (m.k2, latents), (m.v2, latents)))
        return m.o(mix(q, k, v, self.scores, False).flatten(2))
