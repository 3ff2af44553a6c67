"""Attention written in many ways: fused, grouped, latent, single-headed, with tables and learned queries."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from tests.traps.trap import FRAME, B, D, H, LanguageModel, T, ids, trap

HD = 8  # head_dim: fixed, the heads grow


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tensors as batch, length, heads, head_dim; the result is batch, length, heads * head_dim."""
    group = q.size(2) // k.size(2)
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    y = nnf.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
    return y.transpose(1, 2).flatten(2)


class Separate(nn.Module):
    """q, k, v and o as linears of their own."""

    def __init__(self, heads: int, kv: int, head_dim: int = HD) -> None:
        super().__init__()
        self.heads, self.kv, self.head_dim = heads, kv, head_dim
        self.q = nn.Linear(D, heads * head_dim, bias=False)
        self.k = nn.Linear(D, kv * head_dim, bias=False)
        self.v = nn.Linear(D, kv * head_dim, bias=False)
        self.o = nn.Linear(heads * head_dim, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, self.head_dim))
        k, v = (f(x).unflatten(-1, (self.kv, self.head_dim)) for f in (self.k, self.v))
        return self.o(attend(q, k, v))


@trap(ids, FRAME + "block.?.weight  hidden  nn   # kv * head_dim == d_model, yet another dim")
class KeysAsWideAsModel(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Separate(heads=6, kv=3))
        assert self.block.k.out_features == D


@trap(
    ids,
    FRAME
    + """
    block.[qo].weight  hidden  nn
    block.[kv].weight  output  .n   # one kv head: what is left is head_dim, which is fixed
    """,
)
class MultiQuery(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Separate(heads=6, kv=1))


@trap(
    ids,
    FRAME
    + """
    block.[qo].weight  hidden  nn
    block.[kv].weight  output  .n   # one kv head, and head_dim == d_model
    """,
)
class MultiQueryAsWideAsModel(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Separate(heads=4, kv=1, head_dim=D))


class FusedUnequal(nn.Module):
    def __init__(self, heads: int, kv: int) -> None:
        super().__init__()
        self.heads, self.kv = heads, kv
        self.qkv = nn.Linear(D, (heads + 2 * kv) * HD)
        self.o = nn.Linear(heads * HD, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split([self.heads * HD, self.kv * HD, self.kv * HD], dim=-1)
        q, k, v = (t.unflatten(-1, (-1, HD)) for t in (q, k, v))
        return self.o(attend(q, k, v))


@trap(
    ids,
    FRAME
    + """
    block.*.weight  hidden  nn   # 6 * 8 rows of q, then 2 * 8 of k, then 2 * 8 of v
    block.*.bias    vector  n
    """,
    {"block.qkv.weight": (0, [(0, 48, "hidden"), (48, 64, "hidden"), (64, 80, "hidden")])},
)
class FusedByUnequalSplit(LanguageModel):
    def __init__(self) -> None:
        super().__init__(FusedUnequal(6, 2))


@trap(
    ids,
    FRAME
    + """
    block.*.weight  hidden  nn   # the q rows grow; k and v are one head each
    block.*.bias    vector  n
    """,
    {"block.qkv.weight": (0, [(0, 48, "hidden"), (48, 56, "output"), (56, 64, "output")])},
)
class FusedMultiQuery(LanguageModel):
    def __init__(self) -> None:
        super().__init__(FusedUnequal(6, 1))


class ByView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, H, d // H).unbind(2)
        return self.o(attend(q, k, v))


@trap(ids, FRAME + "block.*.weight  hidden  nn   # rows are 3 * heads * head_dim\nblock.*.bias  vector  n")
class FusedByView(LanguageModel):
    def __init__(self) -> None:
        super().__init__(ByView())


class Masked(nn.Module):
    """Scores by hand, a causal mask from a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(16, 16, dtype=torch.bool)))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (y.view(b, t, H, d // H).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
        scores = scores.masked_fill(~self.mask[:t, :t], float("-inf"))
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


@trap(ids, FRAME + "block.*.weight  hidden  nn")
class MaskFromBuffer(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Masked())


class SingleHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(D, 16), nn.Linear(D, 16), nn.Linear(D, 20)
        self.o = nn.Linear(20, D)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.einsum("btd,bsd->bts", self.q(x), self.k(x)) / 4
        return self.o(scores.softmax(-1) @ self.v(x))


@trap(ids, FRAME + "block.?.weight  hidden  nn   # nothing splits q and k: they grow\nblock.?.bias  vector  n")
class NoHeads(LanguageModel):
    def __init__(self) -> None:
        super().__init__(SingleHead())


class Ellipsis_(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.zeros(3, D, H, HD))
        self.out = nn.Parameter(torch.zeros(H, HD, D))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("...d,dhk->...hk", x, w) for w in self.qkv)
        weights = torch.einsum("...qhd,...khd->...hqk", q, k).softmax(-1)
        y = torch.einsum("...hqk,...khd->...qhd", weights, v)
        return torch.einsum("...hd,hdo->...o", y, self.out)


@trap(
    ids,
    FRAME
    + """
    block.qkv  hidden  .nn.   # (3, d_model, heads, head_dim): heads grow, head_dim does not
    block.out  hidden  n.n
    """,
)
class EinsumEllipsis(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Ellipsis_())


class Latent(nn.Module):
    """Multi-head latent attention (DeepSeek-V2): q and kv through ranks, a rotary part beside."""

    def __init__(
        self, heads: int = 4, q_rank: int = 10, rank: int = 9, nope: int = 8, rope: int = 4, v: int = 6
    ) -> None:
        super().__init__()
        self.heads, self.rank, self.nope, self.rope, self.v = heads, rank, nope, rope, v
        self.q_a, self.q_norm = nn.Linear(D, q_rank, bias=False), nn.RMSNorm(q_rank)
        self.q_b = nn.Linear(q_rank, heads * (nope + rope), bias=False)
        self.kv_a, self.kv_norm = nn.Linear(D, rank + rope, bias=False), nn.RMSNorm(rank)
        self.kv_b = nn.Linear(rank, heads * (nope + v), bias=False)
        self.o = nn.Linear(heads * v, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_b(self.q_norm(self.q_a(x))).view(b, t, self.heads, self.nope + self.rope).transpose(1, 2)
        latent, rope = self.kv_a(x).split([self.rank, self.rope], dim=-1)
        kv = self.kv_b(self.kv_norm(latent)).view(b, t, self.heads, self.nope + self.v).transpose(1, 2)
        k, v = kv.split([self.nope, self.v], dim=-1)
        rope = rope.view(b, 1, t, self.rope).expand(b, self.heads, t, self.rope)
        k = torch.cat([k, torch.tanh(rope)], dim=-1)
        scores = (q @ k.transpose(-1, -2) * self.nope**-0.5).softmax(-1)
        return self.o((scores @ v).transpose(1, 2).reshape(b, t, self.heads * self.v))


@trap(
    ids,
    FRAME
    + """
    block.q_a.weight      output  .n   # d_model -> rank
    block.q_norm.weight   scalar  .
    block.q_b.weight      input   n.   # rank -> heads
    block.kv_a.weight     output  .n   # d_model -> rank + rope
    block.kv_norm.weight  scalar  .
    block.kv_b.weight     input   n.
    block.o.weight        hidden  nn
    """,
)
class MultiHeadLatent(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Latent())


class Pool(nn.Module):
    """A few learned queries read the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(5, D))
        self.attn = nn.MultiheadAttention(D, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query.expand(x.size(0), -1, -1)
        return self.attn(query, x, x, need_weights=False)[0].mean(1, keepdim=True)


@trap(
    ids,
    FRAME
    + """
    block.query                 input   .n   # a table of 5 tokens: the count is fixed
    block.attn.in_proj_weight   hidden  nn
    block.attn.in_proj_bias     vector  n
    block.attn.out_proj.weight  hidden  nn
    block.attn.out_proj.bias    vector  n
    """,
)
class LearnedQueries(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Pool())


@trap(
    ids,
    FRAME
    + """
    block.self_attn.*weight  hidden  nn
    block.linear?.weight     hidden  nn
    block.*bias              vector  n
    block.norm?.weight       vector  n
    """,
)
class TorchEncoderLayer(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.TransformerEncoderLayer(D, H, 40, batch_first=True))


@trap(
    lambda: (ids(), torch.zeros(B, 5, 18)),
    """
    wte.weight         input   .n
    block.q_proj*      hidden  nn
    block.k_proj*      input   n.   # the memory is data
    block.v_proj*      input   n.
    block.in_proj_bias vector  n
    block.out_proj.weight hidden nn
    block.out_proj.bias   vector n
    norm.*             vector  n
    head.weight        output  .n
    """,
)
class CrossAttention(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.MultiheadAttention(D, H, kdim=18, vdim=18, batch_first=True))

    def forward(self, idx: Tensor, memory: Tensor) -> Tensor:  # type: ignore[override]
        x = self.wte(idx)
        return self.head(self.norm(x + self.block(x, memory, memory)[0]))


class Biased(nn.Module):
    """A relative bias, one number a head, looked up by distance."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)

    def attend(self, x: Tensor, bias: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, H, d // H).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) + bias
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class Buckets(Biased):
    def __init__(self) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(32, H)

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.size(1), device=x.device)
        distance = (at[None, :] - at[:, None]).abs().clamp(max=31)
        return self.attend(x, self.relative_attention_bias(distance).permute(2, 0, 1).unsqueeze(0))


@trap(
    ids,
    FRAME
    + """
    block.qkv.weight  hidden  nn
    block.o.weight    hidden  nn
    block.relative_attention_bias.weight  input  .n   # (buckets, heads), as T5's
    """,
)
class RelativeBuckets(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Buckets())


class Window(Biased):
    def __init__(self, window: int = T) -> None:
        super().__init__()
        self.window = window
        self.table = nn.Parameter(torch.zeros(2 * window - 1, H))
        at = torch.arange(window)
        self.register_buffer("index", at[:, None] - at[None, :] + window - 1)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(self.window, self.window, -1).permute(2, 0, 1).contiguous()
        return self.attend(x, bias.unsqueeze(0))


@trap(
    ids,
    FRAME
    + """
    block.qkv.weight  hidden  nn
    block.o.weight    hidden  nn
    block.table       input   .n   # (2 * window - 1, heads), as Swin's
    """,
)
class RelativeTable(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Window())
