"""Vision-token reduction in a multimodal LLM, which adds no parameter (Zhao et al. 2024, arXiv 2412.00556).

How much the text attends to an image token ranks it, and the ranking hardly changes from layer to layer; so after each
layer only the best go on. How many stay follows a sigmoid over depth, whose two numbers are searched, not trained.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 96, "heads": 6}
EQUAL = [{"width": 20, "heads": 5}, {"width": 16, "heads": 4}]  # the features; the image tokens


def keep_ratio(layer: int, depth: int, middle: float = 0.4, slope: float = 8.0) -> float:
    """P-Sigmoid: nearly all at first, few at the end; `middle` and `slope` come from Bayesian optimization."""
    return 1 / (1 + math.exp(slope * ((layer + 1) / depth - middle)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """The stream, and how much the last token attends to each."""
        y, N = self.norm1(x), x.shape[1]
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        later = torch.ones(N, N, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)))), weights[:, :, -1].mean(1)


class Reduced(nn.Module):
    def __init__(self, width: int, heads: int, vocab: int, features: int, depth: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.project = nn.Linear(features, width)  # from the vision tower's own features
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, image, ids):
        x, images = torch.cat([self.project(image), self.tokens(ids)], 1), image.shape[1]
        for layer, block in enumerate(self.blocks):
            x, attended = block(x)
            keep = max(1, round(image.shape[1] * keep_ratio(layer, len(self.blocks))))
            best = attended[:, :images].topk(keep, -1).indices.sort(-1).values  # in the order of the image
            seen = x[:, :images].gather(1, best[..., None].expand(-1, -1, x.shape[-1]))
            x, images = torch.cat([seen, x[:, images:]], 1), keep
        return self.head(self.norm(x[:, images:]))


def build(width: int = 48, heads: int = 3, vocab: int = 101, features: int = 20, depth: int = 3) -> nn.Module:
    return Reduced(width, heads, vocab, features, depth)


def example_inputs():
    """16 image tokens before 7 words."""
    return torch.randn(2, 16, 20), torch.randint(101, (2, 7))


def loss(model, image, ids):
    """The next word."""
    return F.cross_entropy(model(image, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
