"""A Mamba block: a state space whose step, input and output depend on the token (Gu and Dao 2023, arXiv 2312.00752).

x_proj makes three things at once, of three kinds: the low-rank step (dt), and B and C, which write to and read from
the state. The scan is a plain loop over tokens.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}


class Mamba(nn.Module):
    def __init__(self, width: int, state: int, kernel: int, rank: int):
        super().__init__()
        inner = 2 * width
        self.norm = nn.LayerNorm(width)
        self.in_proj, self.out_proj = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.x_proj, self.dt_proj = nn.Linear(inner, rank + 2 * state, bias=False), nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, state + 1).float()).repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.sizes = (rank, state, state)

    def forward(self, h):
        x, z = self.in_proj(self.norm(h)).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, B, C = self.x_proj(x).split(self.sizes, -1)
        dt = F.softplus(self.dt_proj(dt))
        decay = torch.exp(dt[..., None] * -self.A_log.exp())
        write = (dt * x)[..., None] * B[:, :, None]
        state, out = torch.zeros_like(write[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + write[:, t]
            out.append((state @ C[:, t, :, None])[..., 0])
        y = torch.stack(out, 1) + self.D * x
        return h + self.out_proj(y * F.silu(z))


class Model(nn.Module):
    def __init__(self, vocab: int, width: int, state: int, kernel: int, rank: int, depth: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Mamba(width, state, kernel, rank) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, ids):
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def build(width: int = 24, state: int = 7, rank: int = 3) -> nn.Module:
    return Model(101, width, state, kernel=4, rank=rank, depth=2)


def example_inputs():
    return torch.randint(101, (2, 9))


def loss(model, ids):
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
