"""Distributions by the standard deviation of their entries. Each fills a tensor in place and returns it.

What distinguishes them is their shape alone: muP's limits depend on the second moment where all moments are finite
(Yang, Hu 2021, arXiv:2011.14522, section 3), so any of them may carry any parametrization's std.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

Filler = Callable[[Tensor, float, Generator | None], Tensor]


def normal_(tensor: Tensor, std: float, generator: Generator | None = None) -> Tensor:
    """N(0, std^2)."""
    with torch.no_grad():
        return tensor.normal_(0.0, std, generator=generator)


def truncated_normal_(tensor: Tensor, std: float, generator: Generator | None = None, cut: float = 2.0) -> Tensor:
    """A normal cut off at `cut` of its own standard deviations, whose std after the cut is `std`.

    The cut takes variance away: what is left is 1 - 2 c phi(c) / (2 Phi(c) - 1) of it (Johnson, Kotz, Balakrishnan
    1994, Continuous Univariate Distributions 1, section 10.1), 0.774 at c = 2. torch's `trunc_normal_` leaves that to
    the caller.
    """
    if not cut > 0:
        raise ValueError(f"cut must be above 0, not {cut}")
    density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
    left = 1 - 2 * cut * density / math.erf(cut / math.sqrt(2))
    wide = std / math.sqrt(left)
    return torch.nn.init.trunc_normal_(tensor, 0.0, wide, -cut * wide, cut * wide, generator=generator)


def uniform_(tensor: Tensor, std: float, generator: Generator | None = None) -> Tensor:
    """U(-sqrt(3) std, sqrt(3) std): a uniform's variance is its half-width squared over 3."""
    bound = math.sqrt(3.0) * std
    with torch.no_grad():
        return tensor.uniform_(-bound, bound, generator=generator)


def generalized_gaussian_(tensor: Tensor, std: float, generator: Generator | None = None, shape: float = 1.0) -> Tensor:
    """Density ~ exp(-|w/alpha|^shape) (arXiv:2506.00486, with alpha^2 = std^2 Gamma(1/shape) / Gamma(3/shape)).

    `shape` 2 is the normal, 1 Laplace's; smaller ones have more small and more large entries. All moments are finite.
    |w/alpha|^shape has the law Gamma(1/shape).
    """
    if not shape > 0:
        raise ValueError(f"shape must be above 0, not {shape}")
    alpha = std * math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    with torch.no_grad():
        powers = torch._standard_gamma(torch.full_like(tensor, 1 / shape, dtype=torch.float64), generator=generator)
        signs = torch.empty_like(powers).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        return tensor.copy_(signs * powers.pow(1 / shape) * alpha)


def orthogonal_(tensor: Tensor, std: float, generator: Generator | None = None) -> Tensor:
    """A matrix with orthogonal rows or columns, uniform among these, whose entries have RMS `std` exactly.

    Saxe et al. 2013 (arXiv:1312.6120). The first axis stands against all others, as in torch. An orthonormal one has
    entries of RMS 1/sqrt(max(rows, columns)). Raises `ValueError` for fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal wants a matrix, not shape {tuple(tensor.shape)}")
    longest = max(tensor.shape[0], tensor.numel() // tensor.shape[0])
    return torch.nn.init.orthogonal_(tensor, gain=std * math.sqrt(longest), generator=generator)


def zeros_(tensor: Tensor, std: float, generator: Generator | None = None) -> Tensor:
    """Nothing at the start: readouts and queries may begin so under muP (TP5, arXiv:2203.03466, section D.2)."""
    with torch.no_grad():
        return tensor.zero_()


FILLERS: dict[str, Filler] = {
    "normal": normal_,
    "truncated_normal": truncated_normal_,
    "uniform": uniform_,
    "orthogonal": orthogonal_,
    "generalized_gaussian": generalized_gaussian_,
    "zeros": zeros_,
}
