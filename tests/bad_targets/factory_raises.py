"""Its factory fails."""

from torch import nn


def make(width: int = 30, heads: int = 4) -> nn.Module:
    if width % heads:
        raise ValueError(f"width {width} is not divisible by {heads} heads")
    return nn.Linear(width, width)
