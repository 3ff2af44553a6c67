"""S4D's diagonal state matrices (Gu et al. 2022, arXiv:2206.11893) as they are stored: log(-Re A), Im A, log dt."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

Diagonal = tuple[Tensor, Tensor]  # real and imaginary parts, float64, shape [half]


def s4d_(log_neg_real: Tensor, imag: Tensor | None, kind: str = "lin") -> None:
    """Fill log(-Re A) and Im A, both [..., half], `half` conjugate pairs of a state of 2*half; all channels alike.

    `lin`: A_n = -1/2 + i pi n (S4D-Lin). `inv`: -1/2 + i (N/pi)(N/(2n+1) - 1) (S4D-Inv), N = 2*half. `legs`: the
    eigenvalues of HiPPO-LegS's normal part (S4D-LegS). `real`: -(n+1), with no imaginary part. None of them depends on
    the width. Raises `ValueError` for another kind, and for an imaginary part that is missing or has no use.
    """
    if kind not in KINDS:
        raise ValueError(f"no S4D initializer is called {kind!r}; there are {', '.join(KINDS)}")
    if (imag is None) != (kind == "real"):
        raise ValueError(f"{kind}: " + ("has no imaginary part" if kind == "real" else "the imaginary part is missing"))
    if imag is not None and imag.shape[-1] != log_neg_real.shape[-1]:
        raise ValueError(f"{log_neg_real.shape[-1]} real parts, {imag.shape[-1]} imaginary ones")
    real, imaginary = KINDS[kind](log_neg_real.shape[-1])
    with torch.no_grad():
        log_neg_real.copy_((-real).log().expand(log_neg_real.shape))
        if imag is not None:
            imag.copy_(imaginary.expand(imag.shape))


def s4d_dt_(log_dt: Tensor, low: float = 1e-3, high: float = 1e-1, generator: Generator | None = None) -> Tensor:
    """log dt ~ U[log low, log high], one step size a channel (arXiv:2206.11893, section 5; S4's defaults)."""
    if not 0 < low < high:
        raise ValueError(f"a step size between {low} and {high}: 0 < low < high is wanted")
    with torch.no_grad():
        return log_dt.uniform_(math.log(low), math.log(high), generator=generator)


def _lin(half: int) -> Diagonal:
    n = torch.arange(half, dtype=torch.float64)
    return torch.full_like(n, -0.5), math.pi * n


def _inv(half: int) -> Diagonal:
    n, size = torch.arange(half, dtype=torch.float64), 2 * half
    return torch.full_like(n, -0.5), size / math.pi * (size / (2 * n + 1) - 1)


def _legs(half: int) -> Diagonal:
    """HiPPO-LegS is normal plus rank one: A + P P^T with P_n = sqrt(n + 1/2) is -1/2 plus a skew-symmetric matrix."""
    n = torch.arange(2 * half, dtype=torch.float64)
    p, b = (n + 0.5).sqrt(), (2 * n + 1).sqrt()
    hippo = -(torch.outer(b, b).tril(-1) + torch.diag(n + 1))
    normal = hippo + torch.outer(p, p)
    skew = normal - torch.diag(normal.diagonal())
    imaginary = torch.linalg.eigvalsh(skew * -1j)
    return torch.full((half,), -0.5, dtype=torch.float64), imaginary[half:].clone()  # one of every pair, the positive


def _real(half: int) -> Diagonal:
    n = torch.arange(half, dtype=torch.float64)
    return -(n + 1), torch.zeros_like(n)


KINDS: dict[str, Callable[[int], Diagonal]] = {"lin": _lin, "inv": _inv, "legs": _legs, "real": _real}
