"""Attention by one bilinear form, beside factored attention (Tarzanagh et al. 2023, Transformers as support vector
machines).

Scores x^T W y with a single W, both of whose axes are contracted with activations: what implicit bias makes of it is
another problem than for W = K Q^T, and so is how it must scale (std d^-3/2 where q and k would have d^-1/2).
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48, "heads": 6}


class FusedAttention(nn.Module):
    """One W for queries and keys; values as they are."""

    def __init__(self, width: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(width, width) * width**-1.5)
        self.value, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x):
        scores = torch.einsum("bsi,ij,btj->bst", x, self.W, x)
        return self.out(scores.softmax(-1) @ self.value(x))


class FactoredAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) / q.shape[-1]
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Model(nn.Module):
    def __init__(self, features: int, width: int, heads: int, classes: int):
        super().__init__()
        self.enter, self.readout = nn.Linear(features, width), nn.Linear(width, classes)
        self.fused, self.factored = FusedAttention(width), FactoredAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        x = self.enter(x)
        x = x + self.fused(self.norm1(x))
        x = x + self.factored(self.norm2(x))
        return self.readout(x.mean(1))


def build(width: int = 24, heads: int = 3) -> nn.Module:
    return Model(10, width, heads, classes=7)


def example_inputs():
    return torch.randn(4, 9, 10)


def loss(model, x):
    return F.cross_entropy(model(x), torch.arange(x.shape[0]) % 7)
