"""SaTformer: full space-time attention over satellite frames, rain as one of 64 bins (Space-Time Transformer).

Patches of all frames and a class token form one sequence. The heads' inner width is heads x 64, whatever the stream's
is; the query is scaled by the fixed head size.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 96, "heads": 6}


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__()
        self.heads, self.scale = heads, head_dim**-0.5
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.to_qkv(self.norm(x)).chunk(3, -1))
        q = q * self.scale
        cls = (q[:, :, :1] @ k.transpose(-1, -2)).softmax(
            -1
        ) @ v  # the class token reads everything, on a path of its own
        rest = (q[:, :, 1:] @ k[:, :, 1:].transpose(-1, -2)).softmax(-1) @ v[:, :, 1:]
        return self.to_out(torch.cat([cls, rest], 2).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """GEGLU."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        value, gate = self.up(self.norm(x)).chunk(2, -1)
        return self.down(value * F.gelu(gate))


class SaTformer(nn.Module):
    def __init__(
        self, width: int, heads: int, head_dim: int, depth: int, frames: int, channels: int, patch: int, size: int
    ):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(channels * patch * patch, width)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Embedding(frames * (size // patch) ** 2 + 1, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Attention(width, heads, head_dim), FeedForward(width)]) for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 64)

    def forward(self, video):
        B, T, C, H, W = video.shape
        p = self.patch
        x = video.view(B, T, C, H // p, p, W // p, p).permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(1, 3)
        x = torch.cat([self.cls.expand(B, 1, -1), self.embed(x)], 1)
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        for attention, feed_forward in self.blocks:
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.head(self.norm(x)[:, 0])


def build(width: int = 48, heads: int = 3, head_dim: int = 8) -> nn.Module:
    return SaTformer(width, heads, head_dim, depth=2, frames=4, channels=11, patch=4, size=16)


def example_inputs():
    return torch.randn(2, 4, 11, 16, 16)


def loss(model, video):
    """Cross-entropy over the 64 bins of rain."""
    return F.cross_entropy(model(video), (video.mean((1, 2, 3, 4)) * 32 + 32).long().clamp(0, 63))
