"""SaRA (Hu et al. 2024): fine-tuning a diffusion model by reviving its smallest weights.

The pretrained weights whose magnitude is in the lowest tenth or fifth do next to nothing; they alone are trained,
behind a mask, while all others stay. A penalty on the update's nuclear norm keeps it of low rank.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class SaRALinear(nn.Module):
    """A frozen weight, and a trainable update of the entries below a threshold."""

    def __init__(self, inputs: int, outputs: int, share: float = 0.2):
        super().__init__()
        pretrained = nn.Linear(inputs, outputs)
        self.weight = nn.Parameter(pretrained.weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(pretrained.bias.detach(), requires_grad=False)
        size = self.weight.abs().flatten()
        threshold = size.sort().values[int(share * len(size))]
        self.register_buffer("mask", (self.weight.abs() < threshold).float())
        self.update = nn.Parameter(torch.zeros_like(self.weight))

    def delta(self):
        return self.mask * self.update

    def forward(self, x):
        return F.linear(x, self.weight + self.delta(), self.bias)


class TimeEmbedding(nn.Module):
    def __init__(self, frequencies: int, dim: int):
        super().__init__()
        self.frequencies = frequencies
        self.fc1, self.fc2 = SaRALinear(2 * frequencies, dim), SaRALinear(dim, dim)

    def forward(self, time):
        powers = torch.arange(self.frequencies, device=time.device) / self.frequencies
        angles = time.unsqueeze(-1) * torch.exp(-math.log(10000) * powers)
        return self.fc2(F.silu(self.fc1(torch.cat([angles.sin(), angles.cos()], dim=-1))))


class Block(nn.Module):
    """Attention over the patches, and an MLP; the time shifts what goes in."""

    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.time = SaRALinear(dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.k, self.v, self.out = (SaRALinear(dim, dim) for _ in range(4))
        self.fc1, self.fc2 = SaRALinear(dim, hidden), SaRALinear(hidden, dim)
        for norm in (self.norm1, self.norm2):
            norm.requires_grad_(False)

    def forward(self, x, time):
        h = self.norm1(x + self.time(F.silu(time)).unsqueeze(1))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.q(h), self.k(h), self.v(h)))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Denoiser(nn.Module):
    """Noisy patches and the time in, the noise out."""

    def __init__(self, patch: int, frequencies: int, dim: int, heads: int, hidden: int, layers: int):
        super().__init__()
        self.time, self.embed = TimeEmbedding(frequencies, dim), SaRALinear(patch, dim)
        self.blocks = nn.ModuleList([Block(dim, heads, hidden) for _ in range(layers)])
        self.head = SaRALinear(dim, patch)

    def forward(self, x, time):
        h, time = self.embed(x), self.time(time)
        for block in self.blocks:
            h = block(h, time)
        return self.head(h)


def build(patch=10, frequencies=7, dim=24, heads=3, hidden=52, layers=2) -> nn.Module:
    return Denoiser(patch, frequencies, dim, heads, hidden, layers)


WIDE = {"dim": 48, "heads": 6, "hidden": 104}


def example_inputs():
    """Clean patches, and how far into the diffusion they are taken."""
    return torch.randn(2, 9, 10), 1000 * torch.rand(2)


def loss(model, x, time):
    noise = torch.randn_like(x)
    keep = torch.cos(time / 1000 * math.pi / 2).view(-1, 1, 1)
    predicted = model(keep * x + (1 - keep**2).sqrt() * noise, time)
    layers = [layer for layer in model.modules() if isinstance(layer, SaRALinear)]
    rank = sum(torch.linalg.matrix_norm(layer.delta(), "nuc") for layer in layers)
    return F.mse_loss(predicted, noise) + 1e-4 * rank
