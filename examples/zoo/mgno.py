"""MgNO: operator layers whose linear maps are multigrid V-cycles (He, Liu, Xu 2023, arXiv 2310.19809).

Each layer solves A u = f on a hierarchy of grids: smooth the residual f - A u, restrict u and f to a coarser grid, and
come back up by transposed convolutions. Only the first layer sees the few channels of the input field.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}
EQUAL = [{"width": 16}, {"width": 9}]  # the grid; the kernels


def conv(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)


class Start(nn.Module):
    """f -> (u, f): the first guess."""

    def __init__(self, c_u: int, c_f: int):
        super().__init__()
        self.S = conv(c_f, c_u)

    def forward(self, f):
        return self.S(f), f


class Smooth(nn.Module):
    """(u, f) -> (u + S(f - A u), f): one step against the residual."""

    def __init__(self, c_u: int, c_f: int):
        super().__init__()
        self.A, self.S = conv(c_u, c_f), conv(c_f, c_u)

    def forward(self, state):
        u, f = state
        return u + self.S(f - self.A(u)), f


class Restrict(nn.Module):
    """(u, f) on a grid of half the size."""

    def __init__(self, c_u: int, c_f: int):
        super().__init__()
        self.Pi, self.R = conv(c_u, c_u, stride=2), conv(c_f, c_f, stride=2)

    def forward(self, state):
        u, f = state
        return self.Pi(u), self.R(f)


class MgConv(nn.Module):
    """One V-cycle from f (c_f channels) to u (c_u): smooth on the way down, correct and smooth on the way up."""

    def __init__(self, c_u: int, c_f: int, size: int, levels: int = 3):
        super().__init__()
        self.levels = levels
        for level in range(levels):
            enter = Restrict(c_u, c_f) if level else Start(c_u, c_f)
            setattr(self, f"down{level}", nn.Sequential(enter, Smooth(c_u, c_f)))
        for level in range(levels - 1):
            setattr(self, f"prolong{level}", nn.ConvTranspose2d(c_u, c_u, 4, stride=2, padding=1, bias=False))
            setattr(self, f"norm{level}", nn.LayerNorm([c_u, size >> level, size >> level]))
            setattr(self, f"up{level}", Smooth(c_u, c_f))

    def forward(self, f):
        states = [self.down0(f)]
        for level in range(1, self.levels):
            states.append(getattr(self, f"down{level}")(states[-1]))
        coarse, _ = states.pop()
        for level in reversed(range(self.levels - 1)):
            u, f = states.pop()
            u = getattr(self, f"norm{level}")(u + getattr(self, f"prolong{level}")(coarse))
            coarse, _ = getattr(self, f"up{level}")((u, f))
        return coarse


class MgNO(nn.Module):
    def __init__(self, width: int, layers: int, size: int, channels: int):
        super().__init__()
        self.cycles = nn.ModuleList(MgConv(width, width if i else channels, size) for i in range(layers))
        self.skips = nn.ModuleList(nn.Conv2d(width if i else channels, width, 1) for i in range(layers))
        self.head = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, field):
        for cycle, skip in zip(self.cycles, self.skips):
            field = F.gelu(cycle(field) + skip(field))
        return self.head(field)


def build(width: int = 24, layers: int = 3, size: int = 16, channels: int = 3) -> nn.Module:
    return MgNO(width, layers, size, channels)


def example_inputs():
    """A coefficient and two coordinates on a grid."""
    return torch.randn(2, 3, 16, 16)


def loss(model, field):
    """Relative L2 against a smooth target field."""
    target = field[:, :1].roll(1, -1)
    return (model(field) - target).norm() / target.norm()
