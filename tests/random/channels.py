"""Blocks that act on each place alone: MLPs, gates, experts, ranks, modulation, tables, weights of several tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from tests.random.spec import ACTS, COUNT, EXPERTS, GROUPS, RANK, STATE, Act, Block, Parts, Sizes, matrix


@dataclass(frozen=True)
class Mlp(Block):
    """Two matrices, in one of several spellings."""

    act: Act
    ratio: Literal[1, 2, 3]
    bias: bool
    how: Literal["linear", "matmul", "einsum", "conv", "addmm", "tensordot", "normed", "spectral", "standard"]

    def parts(self, s: Sizes) -> Parts:
        inner = self.ratio * s.w
        if self.how == "conv":
            return {"up": nn.Conv1d(s.w, inner, 1, bias=self.bias), "down": nn.Conv1d(inner, s.w, 1)}
        if self.how in ("linear", "normed"):
            made = {"up": nn.Linear(s.w, inner, bias=self.bias), "down": nn.Linear(inner, s.w)}
            return {n: weight_norm(z) if self.how == "normed" else z for n, z in made.items()}
        out: Parts = {"up": matrix(s.w, inner), "down": matrix(inner, s.w)}
        out |= {"u": torch.empty(s.w), "v": torch.empty(inner)} if self.how == "spectral" else {}
        return out | ({"b": matrix(inner)} if self.bias or self.how == "addmm" else {})

    def matrices(self, m: Any) -> tuple[Tensor, Tensor]:
        """As they are; divided by an estimate of the largest singular value; or standardized column by column."""
        if self.how == "spectral":
            return m.up / torch.dot(m.u, m.up @ m.v), m.down / (m.v @ (m.down @ m.u))
        if self.how == "standard":
            up = (m.up - m.up.mean(0, keepdim=True)) / m.up.std(0, keepdim=True)
            return up, F.normalize(m.down, dim=0)
        return m.up, m.down

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        act = ACTS[self.act]
        if self.how in ("linear", "normed"):
            return m.down(act(m.up(x)))
        if self.how == "conv":
            return m.down(act(m.up(x.mT))).mT
        if self.how == "addmm":
            h = act(torch.addmm(m.b, x.reshape(-1, m.w), m.up))
            return (h @ m.down).view(x.shape)
        up, down = self.matrices(m)
        if self.how == "einsum":
            h = torch.einsum("...i,io->...o", x, up)
        else:
            h = torch.tensordot(x, up, dims=([2], [0])) if self.how == "tensordot" else x @ up
        return act(h + m.b if self.bias else h) @ down


@dataclass(frozen=True)
class Glu(Block):
    """A value times the activation of a gate."""

    act: Act
    how: Literal["chunk", "split", "apart", "interleaved", "glu", "stacked"]
    bias: bool

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"down": nn.Linear(2 * s.w, s.w, bias=self.bias)}
        if self.how == "apart":
            return {"gate": nn.Linear(s.w, 2 * s.w, bias=self.bias), "value": nn.Linear(s.w, 2 * s.w)} | out
        if self.how == "stacked":
            return {"both": matrix(2, s.w, 2 * s.w)} | out
        return {"both": nn.Linear(s.w, 4 * s.w, bias=self.bias)} | out

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "glu":
            return m.down(F.glu(m.both(x), -1))
        gate, value = {
            "chunk": lambda: m.both(x).chunk(2, -1),
            "split": lambda: m.both(x).split(2 * m.w, -1),
            "apart": lambda: (m.gate(x), m.value(x)),
            "interleaved": lambda: m.both(x).unflatten(-1, (-1, 2)).unbind(-1),
            "stacked": lambda: (x @ w for w in m.both),
        }[self.how]()
        return m.down(ACTS[self.act](gate) * value)


@dataclass(frozen=True)
class Experts(Block):
    """A router and a fixed number of experts."""

    how: Literal["einsum", "bmm", "dense", "list", "rows", "gathered", "masked"]
    route: Literal["soft", "top", "best"]
    act: Act
    gated: bool
    shared: bool
    router_bias: bool

    def parts(self, s: Sizes) -> Parts:
        inner = 2 * s.w
        out: Parts = {"router": nn.Linear(s.w, EXPERTS, bias=self.router_bias)}
        out |= {"all_up": nn.Linear(s.w, inner), "all_down": nn.Linear(inner, s.w)} if self.shared else {}
        if self.how in ("list", "rows", "masked"):
            one = Glu(self.act, "chunk", False) if self.gated else Mlp(self.act, 2, True, "linear")
            return out | {"experts": nn.ModuleList(one.build(s) for _ in range(EXPERTS))}
        return out | {
            "up": matrix(EXPERTS, s.w, inner * (2 if self.gated else 1)),
            "down": matrix(EXPERTS, inner, s.w),
        }

    def gates(self, m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, experts) of weights, and the experts chosen for each row."""
        probs = m.router(x).softmax(-1)
        if self.route == "soft":
            return probs, probs.topk(2, -1)[1]
        top, chosen = probs.topk(2, -1) if self.route == "top" else probs.max(-1, keepdim=True)
        return torch.zeros_like(probs).scatter(-1, chosen, top), chosen

    def activated(self, h: Tensor) -> Tensor:
        if not self.gated:
            return ACTS[self.act](h)
        gate, value = h.chunk(2, -1)
        return ACTS[self.act](gate) * value

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        rows = x.reshape(-1, m.w)
        gates, chosen = self.gates(m, rows)
        y = getattr(self, f"_{self.how}")(m, rows, gates, chosen)
        y = y + m.all_down(ACTS[self.act](m.all_up(rows))) if self.shared else y
        return y.view(x.shape)

    def _einsum(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        h = self.activated(torch.einsum("nd,edf->nef", x, m.up))
        return torch.einsum("nef,efd,ne->nd", h, m.down, gates)

    def _bmm(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        h = self.activated(torch.bmm(x.expand(EXPERTS, -1, -1), m.up))
        return (torch.bmm(h, m.down) * gates.t().unsqueeze(-1)).sum(0)

    def _dense(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        return sum(gates[:, e, None] * (self.activated(x @ m.up[e]) @ m.down[e]) for e in range(EXPERTS))  # type: ignore[return-value]

    def _list(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        return sum(gates[:, e, None] * expert(x, x) for e, expert in enumerate(m.experts))  # type: ignore[return-value]

    def _rows(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for e, expert in enumerate(m.experts):
            at = (chosen == e).any(-1).nonzero().squeeze(-1)
            out.index_add_(0, at, expert(x.index_select(0, at), x) * gates[at, e, None])
        return out

    def _masked(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for e, expert in enumerate(m.experts):
            row, _ = torch.where(chosen == e)
            out[row] += expert(x[row], x) * gates[row, e].unsqueeze(-1)
        return out

    def _gathered(self, m: Any, x: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        h = self.activated(torch.einsum("nd,nkdf->nkf", x, m.up[chosen]))
        y = torch.einsum("nkf,nkfd->nkd", h, m.down[chosen])
        return (y * gates.gather(1, chosen).unsqueeze(-1)).sum(1)


@dataclass(frozen=True)
class LowRank(Block):
    """A rank that stays: beside a matrix, merged into it, or alone."""

    how: Literal["beside", "merged", "scaled", "alone", "einsum"]
    normed: bool

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"a": matrix(RANK, s.w), "b": matrix(s.w, RANK)}
        out |= {} if self.how == "alone" else {"w": nn.Linear(s.w, s.w)}
        out |= {"scale": matrix(RANK)} if self.how == "scaled" else {}
        return out | ({"norm": nn.LayerNorm(RANK)} if self.normed and self.how != "merged" else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "merged":
            return F.relu(F.linear(x, m.w.weight + m.b @ m.a, m.w.bias))
        low = torch.einsum("btd,rd->btr", x, m.a) if self.how == "einsum" else F.linear(x, m.a)
        low = m.norm(low) if self.normed else low
        y = F.linear(low * m.scale if self.how == "scaled" else low, m.b)
        return F.relu(y if self.how == "alone" else m.w(x) + y)


@dataclass(frozen=True)
class Excite(Block):
    """Squeeze and excite: what is pooled over places gates the channels."""

    pool: Literal["mean", "sum", "amax"]
    act: Act
    slim: Literal[2, 4]
    onto: Literal["product", "einsum", "residual"]

    def parts(self, s: Sizes) -> Parts:
        return {"squeeze": nn.Linear(s.w, s.w // self.slim), "excite": nn.Linear(s.w // self.slim, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        pooled = getattr(x, self.pool)(1)
        gate = torch.sigmoid(m.excite(ACTS[self.act](m.squeeze(pooled))))
        if self.onto == "einsum":
            return torch.einsum("btd,bd->btd", x, gate)
        return x * gate.unsqueeze(1) if self.onto == "product" else x + x * (2 * gate[:, None] - 1)


@dataclass(frozen=True)
class Modulate(Block):
    """Shift, scale and gate from the pooled stream or the second input: FiLM, adaptive norms."""

    source: Literal["self", "memory"]
    count: Literal[2, 3]
    how: Literal["chunk", "view", "apart"]

    def needs_memory(self) -> bool:
        return self.source == "memory"

    def parts(self, s: Sizes) -> Parts:
        into = s.memory if self.source == "memory" else s.w
        film: Parts = {"film": nn.Linear(into, self.count * s.w)}
        if self.how == "apart":
            film = {f"film{i}": nn.Linear(into, s.w) for i in range(self.count)}
        return film | {"mix": nn.Linear(s.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        c = F.silu((memory if self.source == "memory" else x).mean(1))
        if self.how == "apart":
            shift, scale, *gate = (getattr(m, f"film{i}")(c).unsqueeze(1) for i in range(self.count))
        elif self.how == "view":
            shift, scale, *gate = m.film(c).view(-1, self.count, m.w).unsqueeze(2).unbind(1)
        else:
            shift, scale, *gate = m.film(c)[:, None].chunk(self.count, -1)
        y = m.mix(F.relu(F.layer_norm(x, (m.w,)) * (1 + scale) + shift))
        return y * gate[0] if gate else y


@dataclass(frozen=True)
class Unequal(Block):
    """One projection cut into parts of several kinds: two widths, and a fixed number of weights over learned rows."""

    sliced: bool
    first: bool  # where the fixed part stands

    def parts(self, s: Sizes) -> Parts:
        return {
            "into": nn.Linear(s.w, 3 * s.w + COUNT),
            "rows": matrix(COUNT, 2 * s.w),
            "out": nn.Linear(3 * s.w, s.w),
        }

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        sizes = [COUNT, m.w, 2 * m.w] if self.first else [2 * m.w, COUNT, m.w]
        z = m.into(x)
        parts = z.split(sizes, -1)
        if self.sliced:
            stops = [sum(sizes[: i + 1]) for i in range(3)]
            parts = tuple(z[..., stop - n : stop] for n, stop in zip(sizes, stops, strict=True))
        few, one, two = parts if self.first else (parts[1], parts[2], parts[0])
        return m.out(torch.cat([F.gelu(one), F.relu(two) + few.softmax(-1) @ m.rows], -1))


@dataclass(frozen=True)
class Quantize(Block):
    """A codebook searched by distance, looked up, with a straight-through gradient."""

    far: Literal["cdist", "expanded", "cosine"]
    lookup: Literal["index", "embedding", "onehot"]

    def parts(self, s: Sizes) -> Parts:
        return {"into": nn.Linear(s.w, s.w), "codes": matrix(COUNT, s.w), "out": nn.Linear(s.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z, codes = m.into(x), m.codes
        far = {
            "cdist": lambda: torch.cdist(z, codes.expand(z.shape[0], -1, -1)),
            "expanded": lambda: codes.square().sum(-1) - 2 * z @ codes.t(),
            "cosine": lambda: -F.normalize(z, dim=-1) @ F.normalize(codes, dim=-1).t(),
        }[self.far]()
        at = far.argmin(-1)
        code = {
            "index": lambda: codes[at],
            "embedding": lambda: F.embedding(at, codes),
            "onehot": lambda: F.one_hot(at, COUNT).to(z.dtype) @ codes,
        }[self.lookup]()
        return m.out(F.relu(z + (code - z).detach()))


@dataclass(frozen=True)
class Grouped(Block):
    """A matrix per group of the width: groups stay, what is in each grows."""

    how: Literal["einsum", "bmm", "list"]
    normed: bool

    def parts(self, s: Sizes) -> Parts:
        d = s.w // GROUPS
        blocks = nn.ModuleList(nn.Linear(d, d) for _ in range(GROUPS))
        out: Parts = {"blocks": blocks} if self.how == "list" else {"blocks": matrix(GROUPS, d, d)}
        return out | {"out": nn.Linear(s.w, s.w)} | ({"norm": nn.GroupNorm(GROUPS, s.w)} if self.normed else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z = x.unflatten(-1, (GROUPS, -1))
        if self.how == "list":
            y = torch.cat([block(part) for block, part in zip(m.blocks, x.chunk(GROUPS, -1), strict=True)], -1)
        elif self.how == "einsum":
            y = torch.einsum("btgi,gio->btgo", z, m.blocks).flatten(2)
        else:
            y = torch.bmm(z.flatten(0, 1).transpose(0, 1), m.blocks).transpose(0, 1).reshape(x.shape)
        y = m.norm(y.mT).mT if self.normed else y
        return m.out(F.relu(y))


@dataclass(frozen=True)
class Features(Block):
    """Fixed random projections of the stream, from a buffer, and a matrix that reads them.

    A weight reads the stream too: what constants alone read may be features or bins, and is unknown.
    """

    act: Act
    pairs: bool

    def parts(self, s: Sizes) -> Parts:
        return {
            "random": torch.empty(s.w, STATE),
            "read": nn.Linear(2 * STATE if self.pairs else STATE, s.w),
            "out": nn.Linear(s.w, s.w),
        }

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        z = x @ m.random
        z = torch.cat([z.sin(), z.cos()], -1) if self.pairs else z.exp()
        return m.out(ACTS[self.act](m.read(z)) * x)
