"""Weight Compander: weights pass through a saturating function of their own (Reichhuber et al., IJCNN 2024).

w = a arctan(v / b) with learnable scalars a and b a layer: magnitudes are restricted and small weights pushed away
from zero. It is a torch parametrization, so the layer's own code never sees it.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

WIDE = {"width": 48}


class Compander(nn.Module):
    def __init__(self, scale: float):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(scale)), nn.Parameter(torch.tensor(scale))

    def forward(self, v):
        return self.a * torch.arctan(v / self.b)


class Model(nn.Module):
    def __init__(self, features: int, width: int, classes: int):
        super().__init__()
        self.enter, self.hidden, self.readout = (
            nn.Linear(features, width),
            nn.Linear(width, width),
            nn.Linear(width, classes),
        )
        for layer in (self.enter, self.hidden, self.readout):
            register_parametrization(layer, "weight", Compander(layer.in_features**-0.5))

    def forward(self, x):
        return self.readout(F.relu(self.hidden(F.relu(self.enter(x)))))


def build(width: int = 24) -> nn.Module:
    return Model(12, width, classes=10)


def example_inputs():
    return torch.randn(8, 12)


def loss(model, x):
    return F.cross_entropy(model(x), x.argmax(-1).clamp(max=9))
