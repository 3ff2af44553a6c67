"""The mixture of experts of MSSP, maximal scale-stable parametrization (Vankadara et al. 2026, arXiv 2605.14200).

h <- h + K^-a sum_{i in top K} sigmoid((Q h)_i) Wout_i phi(Win_i h), with experts as 3-D tensors [M, in, out]. In which
of N (width), Ne (expert width), M (experts) and K (active) grow lies the regime, which the user declares; by default N
and Ne grow (regime I).
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48, "expert": 80}


class MoE(nn.Module):
    def __init__(self, width: int, expert: int, experts: int, active: int, aggregate: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.router = nn.Linear(width, experts, bias=False)
        self.w_in = nn.Parameter(torch.randn(experts, width, expert) * width**-0.5)
        self.w_out = nn.Parameter(torch.randn(experts, expert, width) * expert**-0.5)
        self.active, self.aggregate = active, aggregate

    def forward(self, h):
        x = self.norm(h)
        gates = torch.sigmoid(self.router(x))
        kept = torch.zeros_like(gates).scatter(-1, gates.topk(self.active, -1).indices, 1.0)
        each = torch.einsum("...en,enm->...em", F.relu(torch.einsum("...n,enf->...ef", x, self.w_in)), self.w_out)
        return h + self.active**-self.aggregate * torch.einsum("...em,...e->...m", each, gates * kept)


class MSSP(nn.Module):
    def __init__(self, features: int, width: int, expert: int, experts: int, active: int, depth: int, classes: int):
        super().__init__()
        self.enter = nn.Linear(features, width)
        self.blocks = nn.ModuleList(MoE(width, expert, experts, active) for _ in range(depth))
        self.readout = nn.Linear(width, classes, bias=False)

    def forward(self, x):
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        return self.readout(h)


def build(width: int = 24, expert: int = 40, experts: int = 6, active: int = 2) -> nn.Module:
    return MSSP(12, width, expert, experts, active, depth=2, classes=10)


def example_inputs():
    return torch.randn(32, 12)


def loss(model, x):
    return F.cross_entropy(model(x), x.argmax(-1).clamp(max=9))
