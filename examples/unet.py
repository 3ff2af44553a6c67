"""A small U-Net for images: group norm, skips by concatenation, attention in the middle."""

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + self.skip(x)


class SelfAttention(nn.Module):
    def __init__(self, channels: int, num_heads: int, groups: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).view(B, 3, self.num_heads, C // self.num_heads, H * W)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(y.transpose(-1, -2).reshape(B, C, H, W))


class UNet(nn.Module):
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 4),
        num_heads: int = 4,
        groups: int = 8,
    ):
        super().__init__()
        widths = [channels * m for m in multipliers]
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down, self.pool, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        c = channels
        for w in widths:
            self.down.append(ResBlock(c, w, groups))
            self.pool.append(nn.Conv2d(w, w, 3, stride=2, padding=1))
            c = w
        self.mid1 = ResBlock(c, c, groups)
        self.attn = SelfAttention(c, num_heads, groups)
        self.mid2 = ResBlock(c, c, groups)
        for w in reversed(widths):
            self.grow.append(nn.ConvTranspose2d(c, w, 2, stride=2))
            self.up.append(ResBlock(2 * w, w, groups))
            c = w
        self.norm = nn.GroupNorm(groups, c)
        self.out = nn.Conv2d(c, out_channels, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        skips = []
        for block, pool in zip(self.down, self.pool, strict=True):
            x = block(x)
            skips.append(x)
            x = pool(x)
        x = self.mid2(self.attn(self.mid1(x)))
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([grow(x), skips.pop()], dim=1))
        return self.out(F.silu(self.norm(x)))
