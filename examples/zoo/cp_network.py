"""Pressure on a wing from its Riemannian geometry (Hu, Wang, Xiang, Sommer 2023, arXiv 2401.09452).

The metric tensor, Christoffel symbols and curvature of the surface, the point, and the flow's Mach number and angle of
attack each have a branch of their own; attention over the branches fuses them.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48, "heads": 6}
EQUAL = [{"width": 16, "heads": 8}, {"width": 6}]  # all inputs together; the branches; heads and batch
SIZES = {"metric": 3, "christoffel": 6, "curvature": 2, "point": 3, "flow": 2}


class CpNetwork(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.raw = nn.Linear(sum(SIZES.values()), width)  # all of it at once, beside the branches
        self.branches = nn.ModuleDict({name: nn.Linear(size, width) for name, size in SIZES.items()})
        self.hidden = nn.ModuleDict({name: nn.Linear(width, width) for name in SIZES})
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.fuse, self.head = nn.Linear(width, width), nn.Linear(width, 1)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, metric, christoffel, curvature, point, flow):
        given = dict(zip(SIZES, (metric, christoffel, curvature, point, flow)))
        tokens = [self.hidden[name](F.silu(self.branches[name](x))) for name, x in given.items()]
        x = torch.stack([*tokens, self.raw(torch.cat(list(given.values()), -1))], 1)
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(F.silu(self.fuse(x.mean(1))))


def build(width: int = 24, heads: int = 3) -> nn.Module:
    return CpNetwork(width, heads)


def example_inputs():
    return tuple(torch.randn(8, size) for size in SIZES.values())


def loss(model, *fields):
    return F.mse_loss(model(*fields), fields[3][:, :1] * fields[4][:, :1])
