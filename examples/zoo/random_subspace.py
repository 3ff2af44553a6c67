"""Intrinsic dimension (Li, Farkhoor, Liu, Yosinski 2018, 1804.08838): training in a random subspace of all weights.

theta = theta_0 + P theta': the network's weights at initialization, a fixed random matrix with columns of length one,
and d numbers that start at zero and are all that is trained. The smallest d that reaches nine tenths of the full
performance is the intrinsic dimension of the task.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call


class RandomSubspace(nn.Module):
    """Any network, all of whose parameters move together along d random directions."""

    def __init__(self, net: nn.Module, d: int):
        super().__init__()
        self.net = net.requires_grad_(False)
        self.sizes = {name: p.numel() for name, p in net.named_parameters()}
        self.register_buffer("P", F.normalize(torch.randn(sum(self.sizes.values()), d), dim=0))
        self.theta = nn.Parameter(torch.zeros(d))

    def forward(self, x):
        steps = (self.P @ self.theta).split(list(self.sizes.values()))
        start = dict(self.net.named_parameters())
        theta = {name: start[name] + step.view_as(start[name]) for name, step in zip(self.sizes, steps, strict=True)}
        return functional_call(self.net, theta, (x,))


class MLP(nn.Module):
    def __init__(self, inputs: int, width: int, hidden: int, classes: int):
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(inputs, width), nn.Linear(width, hidden), nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(F.relu(self.fc2(F.relu(self.fc1(x)))))


def build(inputs=28, width=24, hidden=36, classes=10, d=13) -> nn.Module:
    return RandomSubspace(MLP(inputs, width, hidden, classes), d)


WIDE = {"width": 48, "hidden": 72}


def example_inputs():
    return torch.randn(4, 28)


def loss(model, x):
    return F.cross_entropy(model(x), (x[:, :3] > 0).sum(-1))
