"""MgNO: operator layers whose linear maps are multigrid V-cycles (He, Liu, Xu 2023, arXiv 2310.19809).

Each layer solves on a hierarchy of grids: smooth the residual f - A u, restrict both to a coarser grid, and come back
up by transposed convolutions. Only the first layer sees the few channels of the input field.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}


class MgConv(nn.Module):
    """One V-cycle from f (c_in channels) to u (c_out channels)."""

    def __init__(self, c_in: int, c_out: int, size: int, levels: int = 3):
        super().__init__()
        for level in range(levels):
            setattr(self, f"smooth{level}", nn.Conv2d(c_in, c_out, 3, padding=1, bias=False))
            setattr(self, f"apply{level}", nn.Conv2d(c_out, c_in, 3, padding=1, bias=False))
            if level + 1 < levels:
                setattr(self, f"restrict_u{level}", nn.Conv2d(c_out, c_out, 3, stride=2, padding=1, bias=False))
                setattr(self, f"restrict_f{level}", nn.Conv2d(c_in, c_in, 3, stride=2, padding=1, bias=False))
                setattr(self, f"prolong{level}", nn.ConvTranspose2d(c_out, c_out, 4, stride=2, padding=1, bias=False))
                setattr(self, f"norm{level}", nn.LayerNorm([c_out, size >> level, size >> level]))
        self.levels = levels

    def smooth(self, level, u, f):
        return u + getattr(self, f"smooth{level}")(f - getattr(self, f"apply{level}")(u))

    def forward(self, f):
        u, on_the_way = self.smooth0(f), []
        for level in range(self.levels):
            u = self.smooth(level, u, f)
            if level + 1 < self.levels:
                on_the_way.append(u)
                u, f = getattr(self, f"restrict_u{level}")(u), getattr(self, f"restrict_f{level}")(f)
        for level in reversed(range(self.levels - 1)):
            u = on_the_way[level] + getattr(self, f"prolong{level}")(u)
            u = getattr(self, f"norm{level}")(u)
        return u


class MgNO(nn.Module):
    def __init__(self, width: int, layers: int, size: int, channels: int = 1):
        super().__init__()
        self.cycles = nn.ModuleList(MgConv(width if i else channels, width, size) for i in range(layers))
        self.skips = nn.ModuleList(nn.Conv2d(width if i else channels, width, 1) for i in range(layers))
        self.head = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, field):
        for cycle, skip in zip(self.cycles, self.skips):
            field = F.gelu(cycle(field) + skip(field))
        return self.head(field)


def build(width: int = 24, layers: int = 3, size: int = 16) -> nn.Module:
    return MgNO(width, layers, size)


def example_inputs():
    return torch.randn(2, 1, 16, 16)


def loss(model, field):
    """Relative L2 against a smooth target field."""
    target = field.roll(1, -1)
    return (model(field) - target).norm() / target.norm()
