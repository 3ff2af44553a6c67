"""Measures of a running training that activations do not show: updates against weights, singular values, decay, eps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor

STEPS = 8  # of power iteration


def rms(value: Tensor) -> Tensor:
    """The root mean square of a tensor's entries, as a tensor of no axes."""
    return value.detach().float().pow(2).mean().sqrt()


def as_matrix(value: Tensor) -> Tensor:
    """(..., out, in): a kernel's places go with the in-axis; three axes are a bank of matrices."""
    if value.ndim <= 3:
        return value
    return value.flatten(1)


def top_singular(values: Mapping[str, Tensor], steps: int = STEPS, seed: int = 0) -> dict[str, Tensor]:
    """The largest singular value of each matrix; of a bank (..., out, in) the largest of its matrices.

    Power iteration on W^T W (Golub, Van Loan, Matrix Computations, Section 8.2), matrices of one shape as one batch; an
    estimate from below, which after `steps` rounds is within a few per cent where the first two values differ.
    """
    stacks: dict[tuple[int, ...], list[tuple[str, Tensor]]] = defaultdict(list)
    for name, value in values.items():
        matrix = as_matrix(value.detach().float())
        if matrix.ndim >= 2:
            stacks[tuple(matrix.shape)].append((name, matrix))
    found = {}
    for shape, group in stacks.items():
        batch = torch.stack([matrix for _, matrix in group])
        generator = torch.Generator(device="cpu").manual_seed(seed)
        v = torch.randn(*batch.shape[:-2], shape[-1], 1, generator=generator).to(batch.device)
        for _ in range(steps):
            v = torch.nn.functional.normalize(batch.mT @ (batch @ v), dim=-2)
        sizes = (batch @ v).norm(dim=(-2, -1))
        for (name, _), size in zip(group, sizes, strict=True):
            found[name] = size.max() if size.ndim else size
    return found


def equilibrium(update: float, lr: float, decay: float) -> float | None:
    """The RMS at which decoupled decay balances updates that are uncorrelated with the weight; None without decay.

    w <- (1 - lr decay) w - u keeps E|w|^2 = |u|^2 / (2 lr decay) (Kosson, Messmer, Jaggi 2023, arXiv:2305.17212,
    Section 3). `update` is the RMS of u, the whole step.
    """
    strength = lr * decay
    return update / sqrt(2 * strength) if strength > 0 else None


def eps_share(second_moment: Tensor, eps: float, correction: float = 1.0) -> Tensor:
    """The share of entries in which Adam's eps is larger than sqrt(v): there the step is no longer scale-free."""
    return (second_moment.detach().float().div(correction).sqrt() < eps).float().mean()


def spectral_scale(size: float, shape: Sequence[int]) -> float:
    """sigma_max sqrt(n_in / n_out): the same at every width under the spectral condition (arXiv:2310.17813; with decay
    at equilibrium, arXiv:2510.15262)."""
    return size * sqrt(shape[-1] / shape[-2]) if len(shape) >= 2 else size
