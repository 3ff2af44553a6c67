"""Sums of Gaussians, a weight each: mu and w are [features, Gaussians], and which of the two axes is the width?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.counterexamples.holds import holds, verdicts


class Sums(nn.Module):
    """feats_k(x) = sum_g w_kg exp(-1/2 |x - mu_kg|^2), then a small network; `reduce` says how the sum is written."""

    def __init__(self, features: int, gaussians: int, hidden: int = 16) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(features, gaussians))
        self.mu = nn.ParameterList(torch.randn(features, gaussians) for _ in range(2))
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = sum((x[:, j, None, None] - mu) ** 2 for j, mu in enumerate(self.mu))
        return self.net(self.reduce(torch.exp(-0.5 * near)))

    def reduce(self, phi: Tensor) -> Tensor:
        return (phi * self.w).sum(-1)


class Einsum(Sums):
    def reduce(self, phi: Tensor) -> Tensor:
        return torch.einsum("pkg,kg->pk", phi, self.w)


class Matmul(Sums):
    """A batch of rows times columns."""

    def reduce(self, phi: Tensor) -> Tensor:
        return (phi.transpose(0, 1) @ self.w[..., None]).squeeze(-1).T


FEW = """
w             output  .n   # each of four features is a readout of its own Gaussians
mu.*          vector  .n
net.0.weight  input   n.
net.0.bias    vector  n
net.2.weight  output  .n
net.2.bias    scalar  .
"""


@pytest.mark.parametrize("spelling", [Sums, Einsum, Matmul])
def test_few_features_of_many_gaussians(spelling):
    """Four numbers, linearly between forty Gaussians and sixteen units, are a bottleneck, as any rank is."""
    holds(spelling(4, 40), torch.randn(8, 2), FEW)


@pytest.mark.parametrize("spelling", [Sums, Einsum, Matmul])
def test_many_units_of_few_gaussians(spelling):
    """Forty units, each a mixture of three, are no bottleneck: what reads them contracts a width."""
    found = verdicts(spelling(40, 3), torch.randn(8, 2)).parameters
    assert found["net.0.weight"].role == "hidden" and found["net.0.weight"].infinite == (True, True)


def test_features_that_pass_through_an_activation_are_units():
    """With a nonlinearity before the network they are no factorization of anything."""
    model = Sums(4, 40)
    model.net = nn.Sequential(nn.Tanh(), *model.net)
    assert verdicts(model, torch.randn(8, 2)).parameters["net.1.weight"].role == "hidden"
