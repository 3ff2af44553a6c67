"""One step of an optimizer as its first is, in the limit of no rate and no eps: its direction alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor

from mupc.errors import MupcError
from mupc.rulebase import Optimizer

SMALL = 1e-9  # of the largest singular value: below it a direction is noise


def direction(rule: Optimizer, grad: Tensor, weight: Tensor, words: Sequence[str]) -> Tensor:
    """What is subtracted, over the rate. `words`: per axis of the tensor, what its use does to it.

    SGD: the gradient. Adam and its like: its sign. Adafactor and LAMB: the sign, in units of the weight. Muon: the
    orthogonal factor of its matrix, times the factor of the shape that the named scaling builds in (torch.optim.Muon,
    `adjust_lr_fn`; Bernstein, Newhouse 2024, arXiv:2410.21265); Shampoo's and SOAP's first is that factor alone.
    """
    if rule.family == "sgd":
        return grad
    if rule.family == "muon":
        return _orthogonal(grad, words, FACTORS.get(rule.name, _plain))
    if rule.family == "adafactor":
        return _signs(grad) * weight.abs().pow(2).mean().sqrt()
    if rule.family == "adam":
        return _signs(grad)
    raise MupcError(f"the first step of {rule.name} is not known in the limit of no rate; use --regime training")


def _signs(grad: Tensor) -> Tensor:
    """Of complex numbers, of the two parts: torch's optimizers see them as pairs."""
    return torch.view_as_complex(torch.view_as_real(grad).sign()) if grad.is_complex() else grad.sign()


def _plain(rows: int, columns: int) -> float:
    return 1.0


def _jordan(rows: int, columns: int) -> float:
    return sqrt(max(1.0, rows / columns))


def _moonshot(rows: int, columns: int) -> float:
    return 0.2 * sqrt(max(rows, columns))


def _spectral(rows: int, columns: int) -> float:
    return sqrt(rows / columns)


FACTORS: dict[str, Callable[[int, int], float]] = {
    "muon": _jordan, "muon_moonshot": _moonshot, "muon_spectral": _spectral, "muonpp": _spectral,
}  # fmt: skip


def _orthogonal(grad: Tensor, words: Sequence[str], factor: Callable[[int, int], float]) -> Tensor:
    """Per matrix of a batch; a kernel's places go with the axis that is summed over."""
    out = next((at for at, word in enumerate(words) if word == "out"), 0)
    batch = [at for at, word in enumerate(words) if word == "batch"] if grad.ndim > 2 else []
    rest = [at for at in range(grad.ndim) if at != out and at not in batch]
    order = [*batch, out, *rest]
    moved = grad.permute(order)
    lead = len(batch)
    matrix = moved.reshape(*moved.shape[: lead + 1], -1)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = (s > SMALL * s[..., :1]).to(grad.dtype)
    step: Tensor = (u * kept.unsqueeze(-2)) @ v * factor(matrix.shape[-2], matrix.shape[-1])
    back = sorted(range(grad.ndim), key=lambda at: order[at])
    return step.reshape(moved.shape).permute(back)
