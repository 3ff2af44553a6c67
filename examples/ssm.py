"""A selective diagonal state space model in the manner of Mamba (Gu and Dao 2023), the scan written as a loop."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class SSMConfig:
    vocab_size: int = 50280
    d_model: int = 256
    n_layer: int = 4
    expand: int = 2
    d_state: int = 16
    d_conv: int = 4
    dt_rank: int = 8

    @property
    def d_inner(self):
        return self.expand * self.d_model


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class SelectiveSSM(nn.Module):
    def __init__(self, config: SSMConfig):
        super().__init__()
        self.config = config
        d_inner = config.d_inner
        self.in_proj = nn.Linear(config.d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, config.d_conv, groups=d_inner, padding=config.d_conv - 1)
        self.x_proj = nn.Linear(d_inner, config.dt_rank + 2 * config.d_state, bias=False)
        self.dt_proj = nn.Linear(config.dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, config.d_state + 1).float()).repeat(d_inner, 1))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, config.d_model, bias=False)
        nn.init.uniform_(self.dt_proj.bias, math.log(1e-3), math.log(1e-1))

    def forward(self, x):
        T = x.size(1)
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv1d(x.transpose(1, 2))[..., :T].transpose(1, 2))
        y = self.scan(x) + x * self.D
        return self.out_proj(y * F.silu(gate))

    def scan(self, x):
        d_state = self.config.d_state
        dt, B, C = self.x_proj(x).split([self.config.dt_rank, d_state, d_state], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        A = -torch.exp(self.A_log)
        decay = torch.exp(dt.unsqueeze(-1) * A)  # batch, length, d_inner, d_state
        drive = (dt * x).unsqueeze(-1) * B.unsqueeze(2)
        state = torch.zeros_like(drive[:, 0])
        ys = []
        for t in range(x.size(1)):
            state = decay[:, t] * state + drive[:, t]
            ys.append((state * C[:, t, None, :]).sum(-1))
        return torch.stack(ys, dim=1)


class Block(nn.Module):
    def __init__(self, config: SSMConfig):
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.mixer = SelectiveSSM(config)

    def forward(self, x):
        return x + self.mixer(self.norm(x))


class SSM(nn.Module):
    def __init__(self, config: SSMConfig = SSMConfig()):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.norm = RMSNorm(config.d_model)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))
