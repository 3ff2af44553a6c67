"""Initializers: distributions with exactly the standard deviation that a plan asks for, and a model's reset."""

from __future__ import annotations

from mupc.initializers.distributions import (
    FILLERS,
    Filler,
    generalized_gaussian_,
    normal_,
    orthogonal_,
    truncated_normal_,
    uniform_,
    zeros_,
)
from mupc.initializers.reset import reset
from mupc.initializers.s4d import s4d_, s4d_dt_

__all__ = [
    "FILLERS",
    "Filler",
    "generalized_gaussian_",
    "normal_",
    "orthogonal_",
    "reset",
    "s4d_",
    "s4d_dt_",
    "truncated_normal_",
    "uniform_",
    "zeros_",
]
