"""SaTformer: full space-time attention on satellite frames (Harris, Chen 2025, arXiv 2511.11090); rain in 64 bins.

Patches of all frames and a class token form one sequence, which every layer attends over twice. The heads' inner width
is heads x head_dim, whatever the stream's is, and the query is scaled by the fixed head size.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 112, "heads": 6}
EQUAL = [{"width": 64, "heads": 8}, {"width": 176, "heads": 2}]  # the inner width and the bins; a patch


def attend(q, k, v):
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__()
        self.heads, self.scale = heads, head_dim**-0.5
        self.norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x):
        """Heads become part of the batch; the class token asks on a path of its own."""
        B, N, _ = x.shape
        q, k, v = (
            part.reshape(B, N, self.heads, -1).permute(0, 2, 1, 3).flatten(0, 1)
            for part in self.to_qkv(self.norm(x)).chunk(3, -1)
        )
        q = q * self.scale
        found = torch.cat([attend(q[:, :1], k, v), attend(q[:, 1:], k, v)], 1)
        return self.to_out(found.view(B, self.heads, N, -1).permute(0, 2, 1, 3).flatten(2))


class FeedForward(nn.Module):
    """GEGLU."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        value, gate = self.up(self.norm(x)).chunk(2, -1)
        return self.down(value * F.gelu(gate))


class SaTformer(nn.Module):
    def __init__(self, width, heads, head_dim, depth, frames, channels, patch, size, bins):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(patch * patch * channels, width)
        self.cls = nn.Parameter(torch.randn(1, width))
        self.positions = nn.Embedding(frames * (size // patch) ** 2 + 1, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([*(Attention(width, heads, head_dim) for _ in range(2)), FeedForward(width)])
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, bins)

    def patches(self, video):
        """b f c (h p1) (w p2) -> b (f h w) (p1 p2 c)."""
        B, T, C, H, W = video.shape
        p = self.patch
        return video.view(B, T, C, H // p, p, W // p, p).permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(1, 3)

    def forward(self, video):
        tokens = self.embed(self.patches(video))
        x = torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], 1)
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            for branch in block:
                x = x + branch(x)
        return self.head(self.norm(x[:, 0]))


def build(width: int = 56, heads: int = 3, head_dim: int = 8, bins: int = 64) -> nn.Module:
    return SaTformer(width, heads, head_dim, depth=2, frames=4, channels=11, patch=4, size=16, bins=bins)


def example_inputs():
    return torch.randn(2, 4, 11, 16, 16)


def loss(model, video):
    """Cross-entropy over the bins of rain; rare bins weigh more."""
    bins = (video.mean((1, 2, 3, 4)) * 32 + 32).long().clamp(0, 63)
    return F.cross_entropy(model(video), bins, weight=torch.linspace(0.1, 1, 64, device=video.device))
