"""The mixture of experts of MSSP (2605.14200; code vankadara-lab/mssp-moe), which says how MoEs scale with width.

A block adds to the stream the outputs of the K experts with the largest router scores, each times a sigmoid gate of
its own: h + K^-a sum_i sigmoid((Q h)_i) W_out,i phi(W_in,i h). No softmax couples the gates, so their sum grows with
K, and K^-a keeps it still.
"""

import torch
import torch.nn.functional as F
from torch import nn


class MoE(nn.Module):
    """Every expert's matrices are [in, out], stacked along the first axis; gates of experts not chosen are zero."""

    def __init__(self, width: int, expert_width: int, experts: int, active: int, aggregation: float):
        super().__init__()
        self.active, self.scale = active, active**-aggregation
        self.router = nn.Parameter(torch.zeros(width, experts))  # MSSP where width and expert width grow together
        self.w_in = nn.Parameter(torch.randn(experts, width, expert_width) * width**-0.5)
        self.w_out = nn.Parameter(torch.randn(experts, expert_width, width) * expert_width**-0.5)

    def forward(self, h):
        scores = h @ self.router
        best, chosen = scores.topk(self.active, dim=-1)
        gates = torch.zeros_like(scores).scatter(-1, chosen, best.sigmoid())
        hidden = F.gelu(torch.einsum("bn,mne->bme", h, self.w_in))
        return self.scale * torch.einsum("bm,bme,men->bn", gates, hidden, self.w_out)


class MoEModel(nn.Module):
    def __init__(self, inputs, width, expert_width, experts, active, layers, classes, aggregation):
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(inputs, width) * inputs**-0.5)
        self.layers = nn.ModuleList([MoE(width, expert_width, experts, active, aggregation) for _ in range(layers)])
        self.w_out = nn.Parameter(torch.randn(width, classes) / width)

    def forward(self, x):
        h = F.gelu(x @ self.w_in)
        for layer in self.layers:
            h = h + layer(h)
        return h @ self.w_out


def build(
    inputs=28, width=24, expert_width=36, experts=5, active=2, layers=3, classes=10, aggregation=0.0
) -> nn.Module:
    return MoEModel(inputs, width, expert_width, experts, active, layers, classes, aggregation)


WIDE = {"width": 48, "expert_width": 72}


def example_inputs():
    return torch.randn(4, 28)


def loss(model, x):
    """Classes that depend on the sign of the first inputs."""
    return F.cross_entropy(model(x), (x[:, :3] > 0).sum(-1))
