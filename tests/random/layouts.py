"""Detours: the stream is cut, turned, stacked, padded and put together again, in any order, and is still the stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random.spec import SIDE, Block, Parts, Sizes

DETOURS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda x: torch.tanh(x.reshape(-1, x.shape[-1])).view_as(x),
    "swapped": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "quarters": lambda x: torch.cat([x.split(x.shape[-1] // 4, -1)[i] for i in (2, 0, 3, 1)], -1),
    "rolled": lambda x: torch.roll(x, 3, -1) + x.flip(-1),
    "padded": lambda x: F.pad(x, (0, 0, 1, 1))[:, 1:-1],
    "cropped": lambda x: F.pad(x, (2, 1))[..., 2:-1],
    "stacked": lambda x: torch.stack([x, -x, x.sin()], 2).sum(2),
    "listed": lambda x: torch.stack([z * z for z in x.unbind(1)], 1),
    "repeated": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "tiled": lambda x: x.repeat(1, 1, 2)[..., : x.shape[-1]],
    "doubled": lambda x: torch.cat([x.relu(), (-x).relu()], -1).unflatten(-1, (2, -1)).amax(2),
    "map": lambda x: x.mT.unflatten(-1, (SIDE, SIDE)).rot90(1, (2, 3)).flatten(2).mT,
    "pooled": lambda x: F.interpolate(F.avg_pool1d(x.mT, 2), scale_factor=2, mode="nearest").mT,
    "windows": lambda x: x.unfold(1, 4, 4).mT.flatten(1, 2),
    "put": lambda x: torch.zeros_like(x).index_copy(1, torch.arange(x.shape[1], device=x.device), x),
    "gathered": lambda x: x.gather(1, x.argsort(1)),
    "masked": lambda x: torch.where(x > 0, x, 0.1 * x).masked_fill(x > 9, 0.0),
    "written": lambda x: written(x),
    "scaled": lambda x: F.normalize(x, dim=-1) * x.norm(dim=-1, keepdim=True),
    "soft": lambda x: x * x.softmax(-1),
    "outer": lambda x: torch.einsum("btd,bsd,bse->bte", x, x, x) / x.shape[1],
    "complex": lambda x: torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * 1j).flatten(
        -2
    ),
}


def written(x: Tensor) -> Tensor:
    """Into a buffer, half by half."""
    out, half = torch.empty_like(x), x.shape[-1] // 2
    out[..., :half] = x[..., half:].tanh()
    out[..., half:] = x[..., :half]
    return out


@dataclass(frozen=True)
class Moved(Block):
    """A layer, detours, a layer."""

    detours: tuple[str, ...]

    def parts(self, s: Sizes) -> Parts:
        return {"into": nn.Linear(s.w, 2 * s.w), "out": nn.Linear(2 * s.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        h = F.gelu(m.into(x))
        for name in self.detours:
            h = DETOURS[name](h)
        return m.out(F.gelu(h))
