"""Mamba (Gu and Dao 2023, 2312.00752): a diagonal state space whose step, input and output depend on the token.

One matrix makes all three from the channels, dt through a low rank; the scan, h_t = exp(dt_t A) h_(t-1) + dt_t B_t
x_t and y_t = C_t h_t, is written in cumulative form: y_t sums over s <= t what came in at s and decayed from s to t.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Mamba(nn.Module):
    def __init__(self, dim: int, inner: int, state: int, kernel: int, rank: int):
        super().__init__()
        self.sizes = [rank, state, state]
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        dt = torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_proj.bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus makes dt of it

    def forward(self, x):
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., : x.size(1)].transpose(1, 2))
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)
        y = self.scan(x, F.softplus(self.dt_proj(dt)), B, C) + self.D * x
        return self.out_proj(y * F.silu(gate))

    def scan(self, x, dt, B, C):
        decay = (dt.unsqueeze(-1) * -self.A_log.exp()).cumsum(1)  # batch, time, channel, state
        lag = decay.unsqueeze(2) - decay.unsqueeze(1)  # from s, the third axis, to t, the second
        past = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).tril()[..., None, None]
        weights = torch.exp(lag.masked_fill(~past, -math.inf))
        return torch.einsum("btn,btscn,bsn,bsc->btc", C, weights, B, dt * x)


class Block(nn.Module):
    def __init__(self, dim: int, inner: int, state: int, kernel: int, rank: int):
        super().__init__()
        self.norm, self.mixer = nn.RMSNorm(dim), Mamba(dim, inner, state, kernel, rank)

    def forward(self, x):
        return x + self.mixer(self.norm(x))


class MambaLM(nn.Module):
    def __init__(self, vocab, dim, inner, layers, state, kernel, rank):
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim)
        self.layers = nn.Sequential(*[Block(dim, inner, state, kernel, rank) for _ in range(layers)])
        self.norm = nn.RMSNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens):
        return self.lm_head(self.norm(self.layers(self.embedding(tokens))))


def build(vocab=101, dim=24, inner=48, layers=2, state=5, kernel=4, rank=3) -> nn.Module:
    return MambaLM(vocab, dim, inner, layers, state, kernel, rank)


WIDE = {"dim": 48, "inner": 96}


def example_inputs():
    return torch.randint(101, (2, 13))


def loss(model, tokens):
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
