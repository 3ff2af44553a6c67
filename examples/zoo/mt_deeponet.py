"""MT-DeepONet (Kumar et al. 2024; code varunsingh88/MT-DeepONet): one DeepONet for several PDEs and geometries.

A branch network reads the input function, a trunk network the point where the solution is asked for; the solution is
the inner product of their outputs, and a mask sets it to zero outside of the geometry.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Branch(nn.Module):
    def __init__(self, size: int, channels, hidden, p: int):
        super().__init__()
        pairs = zip((1, *channels[:-1]), channels, strict=True)
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 5, padding="same") for a, b in pairs])
        left = size // 2 ** len(channels)
        self.fc1 = nn.Linear(channels[-1] * left * left, hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.out = nn.Linear(hidden[1], p)

    def forward(self, x):
        for conv in self.convs:
            x = F.avg_pool2d(F.relu(conv(x)), 2)
        x = torch.tanh(self.fc1(x.flatten(1)))
        return self.out(torch.tanh(self.fc2(x)))


class Trunk(nn.Module):
    def __init__(self, hidden, p: int):
        super().__init__()
        pairs = zip((2, *hidden[:-1]), hidden, strict=True)
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairs])
        self.out = nn.Linear(hidden[-1], p)

    def forward(self, x):
        for layer in self.layers:
            x = F.leaky_relu(layer(x))
        return self.out(x)


class MTDeepONet(nn.Module):
    def __init__(self, size: int, channels, branch_hidden, trunk_hidden, p: int):
        super().__init__()
        self.branch, self.trunk = Branch(size, channels, branch_hidden, p), Trunk(trunk_hidden, p)

    def forward(self, function, points, mask):
        return torch.einsum("bp,bnp->bn", self.branch(function), self.trunk(points)) * mask


def build(size=32, channels=(12, 20, 28, 36), branch_hidden=(44, 52), trunk_hidden=(60, 68, 76, 84), p=92) -> nn.Module:
    return MTDeepONet(size, channels, branch_hidden, trunk_hidden, p)


WIDE = {
    "channels": (24, 40, 56, 72),
    "branch_hidden": (88, 104),
    "trunk_hidden": (120, 136, 152, 168),
    "p": 184,
}


def example_inputs():
    """The input function on a grid, points, and which of them are inside."""
    return torch.randn(2, 1, 32, 32), torch.rand(2, 9, 2), (torch.rand(2, 9) < 0.8).float()


def loss(model, function, points, mask):
    """Against a solution that is zero on the boundary of the square."""
    solution = (torch.pi * points).sin().prod(-1)
    return ((model(function, points, mask) - solution) * mask).square().sum() / mask.sum().clamp(min=1)
