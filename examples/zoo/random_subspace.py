"""Training in a random subspace: the intrinsic dimension of a task (Li et al. 2018, arXiv 1804.08838).

theta = theta_0 + P theta', with P frozen and of unit columns and theta' the only thing trained. The smallest theta'
that reaches 90% of the full network's score measures the task.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

WIDE = {"width": 48}


class RandomSubspace(nn.Module):
    """One block of P a tensor, as rows of that tensor's shape; all read the same theta'."""

    def __init__(self, inner: nn.Module, dimension: int):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.theta = nn.Parameter(torch.zeros(dimension))
        total = sum(p.numel() for p in inner.parameters())
        for name, p in inner.named_parameters():
            block = torch.randn(dimension, *p.shape) / total**0.5
            self.register_buffer(f"P_{name.replace('.', '_')}", block)

    def forward(self, x):
        moved = {
            name: p + torch.tensordot(self.theta, getattr(self, f"P_{name.replace('.', '_')}"), 1)
            for name, p in self.inner.named_parameters()
        }
        return functional_call(self.inner, moved, (x,))


def build(width: int = 24, dimension: int = 11) -> nn.Module:
    inner = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    return RandomSubspace(inner, dimension)


def example_inputs():
    return torch.randn(8, 12)


def loss(model, x):
    return F.cross_entropy(model(x), x.argmax(-1).clamp(max=9))
