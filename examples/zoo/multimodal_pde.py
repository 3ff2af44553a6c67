"""A multimodal PDE foundation model (Negrini, Liu, Yang, Osher, Schaeffer 2025; code enegrini/MOL-LLM).

A GPT-2 trunk reads text and numbers side by side, numbers through MLPs of their own. Two readouts share it: a
language model that describes the solution, its head tied to the token embedding, and a decoder of cross-attention
that answers what the solution is at any query time.
"""

import torch
import torch.nn.functional as F
from torch import nn


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (y.view(B, T, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    """A block of GPT-2: norms come first."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), SelfAttention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), mlp(dim, 4 * dim, dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """Queries look at the trunk's states and not at each other; norms come last."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.attn, self.norm1 = nn.MultiheadAttention(dim, heads, batch_first=True), nn.LayerNorm(dim)
        self.mlp, self.norm2 = mlp(dim, 4 * dim, dim), nn.LayerNorm(dim)

    def forward(self, x, states):
        x = self.norm1(x + self.attn(x, states, states, need_weights=False)[0])
        return self.norm2(x + self.mlp(x))


class MultimodalPDE(nn.Module):
    def __init__(self, vocab, places, state, coeffs, dim, heads, layers, decoder_layers):
        super().__init__()
        self.tokens, self.places, self.types = nn.Embedding(vocab, dim), nn.Embedding(places, dim), nn.Embedding(2, dim)
        self.data, self.coeffs = mlp(1 + state, dim, dim), mlp(coeffs, dim, dim)
        self.trunk = nn.Sequential(*[Block(dim, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        self.lm_head.weight = self.tokens.weight
        self.query, self.query_norm = nn.Linear(1, dim), nn.LayerNorm(dim)
        self.decoder = nn.ModuleList([CrossBlock(dim, heads) for _ in range(decoder_layers)])
        self.solution = nn.Linear(dim, state)

    def forward(self, coeffs, data, text, times):
        numbers = torch.cat([self.coeffs(coeffs).unsqueeze(1), self.data(data)], dim=1)
        x = torch.cat([numbers, self.tokens(text)], dim=1)
        place = torch.arange(x.size(1), device=x.device)
        is_text = (place >= numbers.size(1)).long()
        states = self.norm(self.trunk(x + self.places(place) + self.types(is_text)))
        answers = self.query_norm(self.query(times.unsqueeze(-1)))
        for block in self.decoder:
            answers = block(answers, states)
        return {"logits": self.lm_head(states[:, numbers.size(1) :]), "solution": self.solution(answers)}


def build(vocab=101, places=32, state=3, coeffs=7, dim=48, heads=4, layers=2, decoder_layers=2) -> nn.Module:
    return MultimodalPDE(vocab, places, state, coeffs, dim, heads, layers, decoder_layers)


WIDE = {"dim": 96, "heads": 8}


def example_inputs():
    """Coefficients, the first states with their times, the text, and the times that are asked for."""
    return torch.randn(2, 7), torch.randn(2, 5, 4), torch.randint(101, (2, 11)), torch.rand(2, 6)


def loss(model, coeffs, data, text, times):
    """The next word and, relatively, the solution, here a wave."""
    out = model(coeffs, data, text, times)
    words = F.cross_entropy(out["logits"][:, :-1].flatten(0, 1), text[:, 1:].flatten())
    wave = torch.sin(times.unsqueeze(-1) + data[:, :1, 1:])
    return words + (out["solution"] - wave).norm() / wave.norm()
