"""Gravity-wave fluxes from a frozen weather model (Gupta et al. 2025, arXiv 2509.03816, on Prithvi WxC).

New convolutions lead into and out of a pretrained transformer whose blocks alternate attention within windows and
across them; the way out is that of an Attention U-Net (Oktay et al. 2018, arXiv 1804.03999), whose gates weigh the
skips.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 80, "heads": 10, "gate": 24, "stem": 40}
EQUAL = [
    {"width": 20, "gate": 20, "stem": 20},
    {"width": 12, "heads": 3, "gate": 6, "stem": 6},
]  # each other; the fields


class Block(nn.Module):
    """Attention within windows, or across them at the same place, then a feed-forward network."""

    def __init__(self, width: int, heads: int, window: int, across: bool):
        super().__init__()
        self.heads, self.window, self.across = heads, window, across
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def attend(self, x):
        B, H, W, C = x.shape
        w = self.window
        x = x.view(B, H // w, w, W // w, w, C).permute(0, 1, 3, 2, 4, 5).reshape(B, -1, w * w, C)
        x = x.transpose(1, 2) if self.across else x
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, C // self.heads)).permute(3, 0, 1, 4, 2, 5)
        x = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(3))
        x = x.transpose(1, 2) if self.across else x
        return x.view(B, H // w, W // w, w, w, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gate(nn.Module):
    """psi = sigmoid(w^T relu(Wg g + Wx x)): how much of the skip x the coarser g lets through."""

    def __init__(self, coarse: int, skip: int, inner: int):
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(coarse, inner, 1, bias=False), nn.BatchNorm2d(inner))
        self.x = nn.Sequential(nn.Conv2d(skip, inner, 1, bias=False), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1, bias=False), nn.BatchNorm2d(1))

    def forward(self, g, x):
        return x * torch.sigmoid(self.psi(F.relu(self.g(g) + self.x(x))))


class FluxModel(nn.Module):
    def __init__(self, variables: int, fluxes: int, stem: int, width: int, heads: int, gate: int, depth: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(variables, stem, 3, padding=1)
        self.patch = nn.Conv2d(stem, width, 2, stride=2)
        self.trunk = nn.Sequential(*(Block(width, heads, 4, bool(i % 2)) for i in range(depth)))
        self.trunk.requires_grad_(False)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.gate = Gate(width, stem, gate)
        self.mix = nn.Conv2d(width + stem, stem, 3, padding=1)
        self.head = nn.Conv2d(stem, fluxes, 1)

    def forward(self, fields):
        skip = F.relu(self.stem(fields))
        x = self.trunk(self.patch(skip).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.up(x)
        return self.head(F.relu(self.mix(torch.cat([self.gate(x, skip), x], 1))))


def build(width: int = 40, heads: int = 5, gate: int = 12, stem: int = 20) -> nn.Module:
    return FluxModel(variables=6, fluxes=3, stem=stem, width=width, heads=heads, gate=gate)


def example_inputs():
    return torch.randn(2, 6, 16, 16)


def loss(model, fields):
    return F.mse_loss(model(fields), fields[:, :3] * fields[:, 3:])
