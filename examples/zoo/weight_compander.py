"""Weight Compander (Cakaj, Mehnert, Yang 2023): weights w = a arctan(v / b), with a and b learned for every layer.

The function is steep at zero and saturates, so that no weight grows large and few stay near zero. It is a torch
parametrization: any layer can have it, and its `weight` is computed where it is read.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize


class Compander(nn.Module):
    """a and b start as large as the weights are: a / b = 1 is the slope at zero."""

    def __init__(self, std: float):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(std)), nn.Parameter(torch.tensor(std))

    def forward(self, v):
        return self.a * torch.atan(v / self.b)


def companded(layer: nn.Module) -> nn.Module:
    fan_in = layer.weight[0].numel()
    parametrize.register_parametrization(layer, "weight", Compander(fan_in**-0.5))
    return layer


class ConvNet(nn.Module):
    def __init__(self, channels, hidden: int, classes: int):
        super().__init__()
        self.conv1 = companded(nn.Conv2d(3, channels[0], 3, padding=1))
        self.conv2 = companded(nn.Conv2d(channels[0], channels[1], 3, padding=1))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels[0]), nn.BatchNorm2d(channels[1])
        self.fc, self.head = companded(nn.Linear(channels[1], hidden)), companded(nn.Linear(hidden, classes))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)
        return self.head(F.relu(self.fc(x.mean((2, 3)))))


def build(channels=(20, 28), hidden=44, classes=10) -> nn.Module:
    return ConvNet(channels, hidden, classes)


WIDE = {"channels": (40, 56), "hidden": 88}


def example_inputs():
    return torch.randn(4, 3, 16, 16)


def loss(model, x):
    return F.cross_entropy(model(x), torch.arange(len(x)))
