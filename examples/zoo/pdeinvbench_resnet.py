"""PDEInvBench (ASK-Berkeley) with its ResNet encoder: frames of a solution in, the parameters of its PDE out.

The encoder keeps the grid, convolutions and pooling shrink it, and one MLP for each parameter of the PDE reads the
rest; parameters live on a logarithmic scale.
"""

import torch
import torch.nn.functional as F
from torch import nn


class ConvNorm(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x))


class BasicBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = ConvNorm(width, width), ConvNorm(width, width)

    def forward(self, x):
        return F.relu(x + self.second(F.relu(self.first(x))))


class ResNetEncoder(nn.Module):
    """No pooling and no strides: the grid stays."""

    def __init__(self, frames: int, width: int, layers: int):
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(frames, width), nn.ReLU(), ConvNorm(width, width))
        self.blocks = nn.Sequential(*[BasicBlock(width) for _ in range(layers)])

    def forward(self, x):
        return self.blocks(self.stem(x))


class ConvDownsampler(nn.Module):
    def __init__(self, width: int, layers: int):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(layers)])

    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(F.dropout(F.relu(conv(x)), 0.1, self.training), 2)
        return x


def head(features, hidden):
    last = [nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)]
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), *last)


class ParameterNet(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, size: int, downs: int, hidden: int, parameters: int):
        super().__init__()
        self.encoder, self.downsampler = encoder, ConvDownsampler(width, downs)
        features = width * (size // 2**downs) ** 2
        self.heads = nn.ModuleList([head(features, hidden) for _ in range(parameters)])

    def forward(self, x):
        x = self.downsampler(self.encoder(x)).flatten(1)
        return torch.cat([head(x) for head in self.heads], dim=-1).exp()


def build(frames=6, width=20, layers=3, size=16, downs=2, hidden=44, parameters=3) -> nn.Module:
    return ParameterNet(ResNetEncoder(frames, width, layers), width, size, downs, hidden, parameters)


WIDE = {"width": 40, "hidden": 88}


def example_inputs():
    """Past frames of the solution and its derivatives, stacked along the channels."""
    return torch.randn(2, 6, 16, 16)


def loss(model, frames):
    """The relative error of the parameters, here all one."""
    return (model(frames) - 1).abs().mean()
