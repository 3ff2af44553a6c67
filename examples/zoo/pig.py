"""PIG: a physics-informed network on trainable Gaussian features (Kang et al. 2024, arXiv 2412.05994).

A point reads G Gaussians, whose centres and widths are trained with their k feature vectors; a small network takes the
k sums. The loss is the residual of the equation, so training differentiates twice.
"""

import torch
from torch import nn

WIDE = {"gaussians": 80, "hidden": 32}


class GaussianFeatures(nn.Module):
    """feats_k(x) = sum_g w_kg exp(-1/2 sum_j ((x_j - mu_gj) / sigma_gj)^2); one tensor an axis of space."""

    def __init__(self, features: int, gaussians: int, dims: int):
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(features, gaussians))
        self.mu = nn.ParameterList(torch.rand(gaussians) * 2 - 1 for _ in range(dims))
        self.sigma = nn.ParameterList(torch.full((gaussians,), 0.1) for _ in range(dims))

    def forward(self, x):
        distance = sum(((x[:, j, None] - mu) / sigma) ** 2 for j, (mu, sigma) in enumerate(zip(self.mu, self.sigma)))
        return torch.exp(-0.5 * distance) @ self.weight.T


class PIG(nn.Module):
    def __init__(self, gaussians: int, hidden: int, features: int = 4, dims: int = 2):
        super().__init__()
        self.features = GaussianFeatures(features, gaussians, dims)
        self.up, self.head = nn.Linear(features, hidden), nn.Linear(hidden, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.up(self.features(x))))


def build(gaussians: int = 40, hidden: int = 16) -> nn.Module:
    return PIG(gaussians, hidden)


def example_inputs():
    return torch.rand(32, 2) * 2 - 1


def loss(model, x):
    """Poisson's equation: laplacian u = f, by two passes of autograd."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    laplacian = sum(torch.autograd.grad(gradient[:, j].sum(), x, create_graph=True)[0][:, j] for j in range(2))
    return ((laplacian - torch.sin(torch.pi * x).prod(-1)) ** 2).mean() + model(x).pow(2).mean()
