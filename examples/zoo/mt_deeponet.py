"""MT-DeepONet: one operator network for many tasks and geometries (Kumar et al. 2024, arXiv 2408.02198).

A convolutional branch reads the input field, a trunk reads where the solution is asked for, and their p features are
contracted; a mask of the geometry multiplies the result.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 64, "p": 36, "channels": (32, 64)}


class Branch(nn.Module):
    def __init__(self, channels: tuple[int, int], width: int, p: int, size: int):
        super().__init__()
        first, second = channels
        self.conv1, self.conv2 = nn.Conv2d(1, first, 5, padding=2), nn.Conv2d(first, second, 5, padding=2)
        self.up, self.out = nn.Linear(second * (size // 4) ** 2, width), nn.Linear(width, p)

    def forward(self, field):
        x = F.avg_pool2d(F.relu(self.conv1(field)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2)
        return self.out(torch.tanh(self.up(x.flatten(1))))


class MTDeepONet(nn.Module):
    def __init__(self, channels: tuple[int, int], width: int, p: int, size: int):
        super().__init__()
        self.branch = Branch(channels, width, p, size)
        self.trunk = nn.Sequential(
            nn.Linear(2, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, p)
        )
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, field, points, mask):
        """u(y) = sum_p b_p(field) t_p(y) + b, inside the geometry."""
        return (torch.einsum("bp,bnp->bn", self.branch(field), self.trunk(points)) + self.bias) * mask


def build(width: int = 32, p: int = 18, channels: tuple[int, int] = (16, 32)) -> nn.Module:
    return MTDeepONet(channels, width, p, size=16)


def example_inputs():
    return torch.randn(3, 1, 16, 16), torch.rand(3, 25, 2), (torch.rand(3, 25) > 0.3).float()


def loss(model, field, points, mask):
    return F.mse_loss(model(field, points, mask), points.sum(-1) * mask)
