"""Transformers as Support Vector Machines (Tarzanagh et al. 2023): attention's W = Q K^T as one matrix.

Trained as factors Q and K, gradient descent prefers a product of small nuclear norm; trained as one W, a small
Frobenius norm. Both kinds of layer are here; the fused W is contracted with activations on both of its axes and makes
no features.
"""

import torch
import torch.nn.functional as F
from torch import nn


class FusedAttention(nn.Module):
    """Scores x^T W y: a sum over width^2 products, so that W must be smaller than any matrix that makes features."""

    def __init__(self, dim: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(dim, dim) * dim**-1.5)
        self.v = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        scores = torch.einsum("btd,de,bse->bts", x, self.W, x)
        return scores.softmax(-1) @ self.v(x)


class FactoredAttention(nn.Module):
    """Scores (Q x)^T (K y): one head, its dim m divides the scores."""

    def __init__(self, dim: int, m: int):
        super().__init__()
        self.m = m
        self.q, self.k = nn.Linear(dim, m, bias=False), nn.Linear(dim, m, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2) / self.m
        return scores.softmax(-1) @ self.v(x)


class Block(nn.Module):
    def __init__(self, dim: int, hidden: int, attention: nn.Module):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), attention, nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Classifier(nn.Module):
    """The first token is what is classified."""

    def __init__(self, inputs: int, dim: int, m: int, hidden: int, classes: int):
        super().__init__()
        self.embed = nn.Linear(inputs, dim)
        self.fused = Block(dim, hidden, FusedAttention(dim))
        self.factored = Block(dim, hidden, FactoredAttention(dim, m))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x):
        x = self.factored(self.fused(self.embed(x)))
        return self.head(self.norm(x[:, 0]))


def build(inputs=7, dim=24, m=36, hidden=52, classes=10) -> nn.Module:
    return Classifier(inputs, dim, m, hidden, classes)


WIDE = {"dim": 48, "m": 72, "hidden": 104}


def example_inputs():
    return torch.randn(4, 9, 7)


def loss(model, x):
    """Where the token is that looks most like the first."""
    target = (x[:, 1:] @ x[:, 0].unsqueeze(-1)).squeeze(-1).argmax(-1)
    return F.cross_entropy(model(x), target)
