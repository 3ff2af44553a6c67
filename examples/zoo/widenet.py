"""WideNet: one attention and one mixture of experts, used by every layer (Xue et al. 2021, arXiv 2107.11817).

Going wider instead of deeper: all blocks share their weights, router included, and only the two norms of each block
are its own. A top-2 router sends a token to two of four experts.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 96, "heads": 6, "expert": 160}
EQUAL = [{"width": 16, "heads": 4, "expert": 16}, {"width": 40, "heads": 4, "expert": 10}]  # the patches; the classes


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MoE(nn.Module):
    """Tokens that chose an expert are taken out, passed through it and put back."""

    def __init__(self, width: int, expert: int, experts: int = 4, active: int = 2):
        super().__init__()
        self.router, self.active = nn.Linear(width, experts, bias=False), active
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, expert), nn.GELU(), nn.Linear(expert, width)) for _ in range(experts)
        )

    def forward(self, x):
        tokens = x.flatten(0, 1)
        gates, chosen = self.router(tokens).softmax(-1).topk(self.active, -1)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == index)
            out = out.index_add(0, rows, gates[rows, slot, None] * expert(tokens[rows]))
        return out.view_as(x)


class WideNet(nn.Module):
    def __init__(
        self, width: int, heads: int, expert: int, depth: int, patch: int = 4, size: int = 16, classes: int = 10
    ):
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (size // patch) ** 2, width))
        self.attention, self.moe = Attention(width, heads), MoE(width, expert)
        self.norms = nn.ModuleList(nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)]) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2) + self.positions
        for norm1, norm2 in self.norms:
            x = x + self.attention(norm1(x))
            x = x + self.moe(norm2(x))
        return self.head(self.norm(x).mean(1))


def build(width: int = 48, heads: int = 3, expert: int = 80) -> nn.Module:
    return WideNet(width, heads, expert, depth=4)


def example_inputs():
    return torch.randn(4, 3, 16, 16)


def loss(model, image):
    return F.cross_entropy(model(image), torch.arange(image.shape[0]) % 10)
