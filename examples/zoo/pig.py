"""PIG: a physics-informed network on trainable Gaussian features (Kang et al. 2024, arXiv 2412.05994).

Each of k features sums G Gaussians whose centres and widths are trained with their weights; a small network takes the
k sums. The loss is the residual of the equation, so training differentiates twice.
"""

import torch
from torch import nn

WIDE = {"gaussians": 80, "hidden": 32}
EQUAL = [{"gaussians": 32, "hidden": 32}]  # the points


class GaussianFeatures(nn.Module):
    """feats_k(t, x) = sum_g w_kg exp(-((t - mu_t) / sigma_t)^2 / 2 - ((x - mu_x) / sigma_x)^2 / 2), mu and sigma of
    each k and g."""

    def __init__(self, features: int, gaussians: int):
        super().__init__()
        shape = features, gaussians
        self.weight = nn.Parameter(0.01 * torch.randn(shape))
        self.mu_t, self.mu_x = (nn.Parameter(torch.rand(shape) * 2 - 1) for _ in range(2))
        self.sigma_t, self.sigma_x = (nn.Parameter(torch.full(shape, 0.1)) for _ in range(2))

    def forward(self, points):
        """[points, 2] -> [points, features]."""
        mu, sigma = torch.stack([self.mu_t, self.mu_x], -1), torch.stack([self.sigma_t, self.sigma_x], -1)
        squared = (((points[:, None, None] - mu) / sigma) ** 2).sum(-1)
        return (torch.exp(-0.5 * squared) * self.weight).sum(-1)


def build(gaussians: int = 40, hidden: int = 16, features: int = 4) -> nn.Module:
    network = nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1)
    return nn.Sequential(GaussianFeatures(features, gaussians), *network)


def example_inputs():
    return torch.rand(32, 2) * 2 - 1


def loss(model, points):
    """Poisson's equation: laplacian u = f, by two passes of autograd, and u = 0 on the right edge."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(points).sum(), points, create_graph=True)
    second = [torch.autograd.grad(gradient[:, j].sum(), points, create_graph=True)[0][:, j] for j in range(2)]
    edge = torch.cat([points[:, :1], torch.ones_like(points[:, 1:])], -1)
    return ((sum(second) - torch.sin(torch.pi * points).prod(-1)) ** 2).mean() + model(edge).pow(2).mean()


def optimizers(model):
    """The paper trains by Adam; with LBFGS, which has no notion of a rate per tensor, nothing here would apply."""
    return (torch.optim.Adam(model.parameters(), lr=1e-2),)
