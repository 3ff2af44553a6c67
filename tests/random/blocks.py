"""Blocks that random models are made of. Each maps (B, T, width) to the same; a width given twice as large doubles what
grows, and nothing else, so two builds say which axes must be infinite."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM, RANK, EXPERTS, STATE = 4, 3, 5, 6


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Glu(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class BareGlu(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.value = nn.Parameter(torch.empty(width, 2 * width)), nn.Parameter(torch.empty(width, 2 * width))
        self.out = nn.Parameter(torch.empty(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.sigmoid(x @ self.gate) * (x @ self.value)) @ self.out


class FusedAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_DIM
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d))


class SplitAttention(nn.Module):
    """Grouped: two query heads to a kv head, one projection cut by unequal sizes, scores by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kv = width // HEAD_DIM
        self.sizes = [2 * self.kv * HEAD_DIM, self.kv * HEAD_DIM, self.kv * HEAD_DIM]
        self.qkv, self.out = nn.Linear(width, sum(self.sizes), bias=False), nn.Linear(self.sizes[0], width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).split(self.sizes, -1)
        q = q.view(b, t, 2 * self.kv, HEAD_DIM).transpose(1, 2)
        k, v = (z.view(b, t, self.kv, HEAD_DIM).transpose(1, 2).repeat_interleave(2, 1) for z in (k, v))
        return self.out(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2))


class EinsumAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        heads = width // HEAD_DIM
        self.q, self.k, self.v = (nn.Parameter(torch.empty(width, heads, HEAD_DIM)) for _ in range(3))
        self.out = nn.Parameter(torch.empty(heads, HEAD_DIM, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, w) for w in (self.q, self.k, self.v))
        weights = torch.einsum("bhsk,bhtk->bhst", q, k).softmax(-1)
        return torch.einsum("bhst,bhtk,hkd->bsd", weights, v, self.out)


class Experts(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, EXPERTS, bias=False)
        self.up = nn.Parameter(torch.empty(EXPERTS, width, 2 * width))
        self.down = nn.Parameter(torch.empty(EXPERTS, 2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        weights, _ = self.router(x).softmax(-1).topk(2, -1)
        gates = torch.zeros_like(self.router(x)).scatter(-1, self.router(x).topk(2, -1)[1], weights)
        hidden = F.relu(torch.einsum("btd,edf->betf", x, self.up))
        return torch.einsum("betf,efd,bte->btd", hidden, self.down, gates)


class ExpertList(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, EXPERTS)
        self.experts = nn.ModuleList(Mlp(width) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).softmax(-1)
        return sum(gates[..., i, None] * expert(x) for i, expert in enumerate(self.experts))  # type: ignore[return-value]


class LowRank(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w = nn.Linear(width, width)
        self.a, self.b = nn.Linear(width, RANK, bias=False), nn.Linear(RANK, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.w(x) + self.b(self.a(x)))


class Gate(nn.Module):
    """Squeeze and excite over tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, width // 2), nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(1, keepdim=True)))))


class Halves(nn.Module):
    """Cut in two, each its own way, put together again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.left, self.mix = nn.Linear(width // 2, width // 2), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return self.mix(torch.cat([torch.tanh(self.left(a)), b], -1))


class Wide(nn.Module):
    """The stream beside a new value: a contraction over a sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.side, self.mix = nn.Linear(width, 3 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([x, F.silu(self.side(x))], -1))


class Depthwise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.gelu(self.conv(x.transpose(1, 2)))).transpose(1, 2)


class Scan(nn.Module):
    """A diagonal state space: the state is fixed, its parameters stand beside channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * width)
        self.bc = nn.Linear(width, 2 * STATE, bias=False)
        self.log_a, self.skip = nn.Parameter(torch.empty(width, STATE)), nn.Parameter(torch.empty(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.into(x).chunk(2, -1)
        b, c = self.bc(x).split(STATE, -1)
        drive = x.unsqueeze(-1) * b.unsqueeze(-2) * torch.exp(-torch.exp(self.log_a))
        y = (drive.cumsum(1) * c.unsqueeze(-2)).sum(-1) + x * self.skip
        return self.out(y * F.silu(z))


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(width, 2 * width, batch_first=True), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


class Modulated(nn.Module):
    """Shift and scale from the pooled stream (adaptive norm)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.both = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        shift, scale = self.both(F.silu(x.mean(1))).unsqueeze(1).chunk(2, -1)
        return self.mix(F.relu(self.norm(x) * (1 + scale) + shift))


BLOCKS: list[type[nn.Module]] = [
    Mlp,
    Glu,
    BareGlu,
    FusedAttention,
    SplitAttention,
    EinsumAttention,
    Experts,
    ExpertList,
    LowRank,
    Gate,
    Halves,
    Wide,
    Depthwise,
    Scan,
    Recurrent,
    Modulated,
]
