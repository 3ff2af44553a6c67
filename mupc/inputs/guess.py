"""One input as numbers: a shape, a dtype, and for integers what they count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_LARGEST_REAL = 1 << 22


@dataclass(frozen=True, slots=True)
class Guess:
    """Integers and booleans become small real tensors, floats meta ones.

    `below` bounds integers (exclusive); `planted` are (token, how many a row) that must occur, as image tokens do;
    `content` spells the values out. `several` such tensors come as a list. A `plain` value is no tensor.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    below: int | None = None
    planted: tuple[tuple[int, int], ...] = ()
    content: Any = None
    several: int = 0
    plain: Any = None

    @property
    def is_float(self) -> bool:
        return self.torch_dtype.is_floating_point or self.torch_dtype.is_complex

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def reshaped(self, *shape: int) -> Guess:
        return replace(self, shape=tuple(shape), content=None)

    def rows(self, batch: int) -> Guess:
        """The same with so many rows."""
        content = self.content if self.content is None else (list(self.content) * batch)[:batch]
        return replace(self, shape=(batch, *self.shape[1:]), content=content)

    def value(self) -> Any:
        """What to pass: a tensor, as many of them as a list is to hold, or a plain value as it is."""
        if self.plain is not None:
            return self.plain
        return [self.tensor() for _ in range(self.several)] if self.several else self.tensor()

    def tensor(self) -> Tensor:
        numel = 1
        for size in self.shape:
            numel *= size
        if self.content is not None:
            return torch.tensor(self.content, dtype=self.torch_dtype).reshape(self.shape)
        if self.is_float or numel > _LARGEST_REAL:
            return torch.empty(self.shape, dtype=self.torch_dtype, device="meta")
        if self.below is None:
            return torch.ones(self.shape, dtype=self.torch_dtype)
        return self._integers(numel)

    def _integers(self, numel: int) -> Tensor:
        """Spread over 0..below, never a planted token by accident, planted ones from the second place of a row on."""
        assert self.below is not None
        low = min(3, self.below - 1)
        values = (torch.arange(numel, dtype=torch.int64) * 7) % max(1, min(self.below, 1 << 15) - low) + low
        special = {token for token, _ in self.planted}
        for token in special:
            values[values == token] = next((v for v in range(low, self.below) if v not in special), low)
        values = values.reshape(self.shape)
        at = 1
        for token, count in self.planted:
            values[..., at : at + count] = token
            at += count + 1
        return values.to(self.torch_dtype)


def ids(below: int, *shape: int) -> Guess:
    return Guess(shape, "int64", below)


def unique(guesses: Iterable[Guess]) -> list[Guess]:
    """Each once, in order."""
    found: list[Guess] = []
    for guess in guesses:
        if guess not in found:
            found.append(guess)
    return found


def show(guesses: Mapping[str, Guess]) -> str:
    """`idx int64[2,13]<50257, pixel_values float32[2,3,224,224]`: what `--input` takes, too."""
    return ", ".join(f"{name}:{spec_of(guess)}" for name, guess in guesses.items()) or "none are needed"


def spec_of(guess: Guess) -> str:
    if guess.plain is not None:
        return repr(guess.plain)
    bound = f"<{guess.below}" if guess.below is not None else ""
    return f"{guess.dtype}[{','.join(map(str, guess.shape))}]{bound}"
