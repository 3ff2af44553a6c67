"""SaRA: fine-tuning by reviving the weights that pretraining left small (Hu et al. 2024, arXiv 2409.06633).

W = W0 + M * dW: only places where |W0| lies below a quantile are trained, under a fixed mask. An update of density rho
is a sparse one, whose rate goes by the inputs it really has, rho x fan-in.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}


class SaRALinear(nn.Module):
    def __init__(self, n_in: int, n_out: int, density: float = 0.2):
        super().__init__()
        base = nn.Linear(n_in, n_out)
        self.weight, self.bias = (nn.Parameter(p.detach(), requires_grad=False) for p in (base.weight, base.bias))
        self.delta = nn.Parameter(torch.zeros(n_out, n_in))
        small = self.weight.abs() <= torch.quantile(self.weight.abs().flatten(), density)
        self.register_buffer("mask", small.to(self.weight.dtype))

    def forward(self, x):
        return F.linear(x, self.weight + self.mask * self.delta, self.bias)


class Model(nn.Module):
    def __init__(self, features: int, width: int, classes: int):
        super().__init__()
        self.enter, self.hidden, self.readout = (
            SaRALinear(features, width),
            SaRALinear(width, width),
            SaRALinear(width, classes),
        )

    def forward(self, x):
        return self.readout(F.relu(self.hidden(F.relu(self.enter(x)))))


def build(width: int = 24) -> nn.Module:
    return Model(12, width, classes=10)


def example_inputs():
    return torch.randn(8, 12)


def loss(model, x):
    """The task, and the nuclear norm of the updates, which keeps their rank low."""
    layers = (model.enter, model.hidden, model.readout)
    rank = sum(torch.linalg.matrix_norm(layer.mask * layer.delta + 1e-6, "nuc") for layer in layers)
    return F.cross_entropy(model(x), x.argmax(-1).clamp(max=9)) + 1e-4 * rank
