"""Whole random models: a start, units, an end; how they are drawn, built and fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random import attention, channels, frames, layouts, maps, sequences, variants
from tests.random.frames import Norm, Residual, norm_of
from tests.random.spec import COUNT, PLACES, RANK, SIDE, Block, Built, Sizes, matrix

Starts = Literal[
    "ids", "positions", "types", "factorized", "floats", "image", "patches", "columns", "coordinates", "line", "onehot"
]
Ends = Literal[
    "tokens", "tied", "pooled", "last", "flat", "query", "deep", "value", "several", "named", "image", "bare", "max"
]
BATCH, EXTRA = 2, 5  # of the second input: places


@dataclass(frozen=True)
class Recipe:
    """A random model; its width is left to the builder. Sizes that stay may be as large as the width, by accident."""

    start: Starts
    units: tuple[Residual, ...]
    end: Ends
    norm: Norm
    repeated: Literal[1, 2, 4]
    shared: bool
    width: Literal[32, 16, 48]
    fixed: Literal[11, 16, 48, 10, 32]  # vocabulary, features, classes
    encoded: bool  # the second input goes through a layer first
    frozen: bool

    def needs_memory(self) -> bool:
        return any(unit.needs_memory() for unit in self.units)

    def streams(self) -> bool:
        """Is there a residual stream through all of it?"""
        return all(unit.style != "none" for unit in self.units)


class Start(nn.Module):
    """Anything to (batch, places, width)."""

    def __init__(self, recipe: Recipe, w: int) -> None:
        super().__init__()
        self.kind, n = recipe.start, recipe.fixed
        if self.kind in ("ids", "positions", "types"):
            self.table = nn.Embedding(n, w)
        if self.kind == "positions":
            self.places = matrix(PLACES + 3, w)
        elif self.kind == "types":
            self.types, self.norm = nn.Embedding(2, w), nn.LayerNorm(w)
        elif self.kind == "factorized":
            self.table, self.widen = nn.Embedding(n, RANK), nn.Linear(RANK, w)
        elif self.kind in ("floats", "onehot"):
            self.layer = nn.Linear(n, w)
        elif self.kind == "image":
            self.layer = nn.Conv2d(3, w, 2, stride=2)
        elif self.kind == "patches":
            self.layer = nn.Linear(12, w)
        elif self.kind == "columns":
            self.one, self.two = nn.Embedding(n, w // 2), nn.Embedding(COUNT, w // 2)
        elif self.kind == "coordinates":
            self.register_buffer("random", torch.empty(3, n))
            self.layer = nn.Linear(2 * n, w)
        elif self.kind == "line":
            self.layer = nn.Conv1d(n, w, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind in ("ids", "positions", "types", "factorized"):
            h = self.table(x)
            if self.kind == "positions":
                return h + self.places[: x.shape[1]]
            if self.kind == "types":
                return self.norm(h + self.types(torch.zeros_like(x)))
            return self.widen(h) if self.kind == "factorized" else h
        if self.kind == "columns":
            return torch.cat([self.one(x[..., 0]), self.two(x[..., 1])], -1)
        if self.kind == "onehot":
            return self.layer(F.one_hot(x, self.layer.in_features).to(self.layer.weight.dtype))
        if self.kind == "image":
            return self.layer(x).flatten(2).mT
        if self.kind == "patches":
            b = x.shape[0]
            x = x.view(b, 3, SIDE, 2, SIDE, 2).permute(0, 2, 4, 3, 5, 1).reshape(b, PLACES, 12)
        elif self.kind == "coordinates":
            x = torch.cat([(x @ self.random).sin(), (x @ self.random).cos()], -1)
        elif self.kind == "line":
            return F.gelu(self.layer(x.mT)).mT
        return self.layer(x)


class End(nn.Module):
    """(batch, places, width) to outputs."""

    def __init__(self, recipe: Recipe, w: int, start: Start) -> None:
        super().__init__()
        self.kind, n = recipe.end, recipe.fixed
        if self.kind == "bare":  # the stream is returned; something reads it, or its width would be data
            self.last = nn.Sequential(nn.Linear(w, w), nn.ReLU(), nn.Linear(w, w))
            return
        if self.kind == "deep":
            self.inner, self.norm = nn.Linear(w, w), nn.LayerNorm(w)
        if self.kind in ("value", "several"):
            self.value = nn.Linear(w, 1)
        if self.kind == "image":
            self.grow = nn.ConvTranspose2d(w, w // 2, 2, stride=2)
            self.pixels = nn.Conv2d(w // 2, 3, 3, padding=1)
        elif self.kind == "query":
            self.query, self.head = matrix(1, 1, w), nn.Linear(w, n)
        elif self.kind != "value":
            self.head = nn.Linear(PLACES * w if self.kind == "flat" else w, n)
        if self.kind == "tied" and recipe.start in ("ids", "positions", "types"):
            self.head.weight = start.table.weight

    def forward(self, x: Tensor) -> Any:
        if self.kind == "several":
            return self.head(x), self.value(x).squeeze(-1)
        if self.kind == "named":
            return {"hidden": x, "logits": self.head(x)}
        if self.kind == "query":
            return self.head(((self.query * x).sum(-1).softmax(-1).unsqueeze(1) @ x).squeeze(1))
        return {
            "tokens": lambda: self.head(x),
            "tied": lambda: self.head(x * x.shape[-1] ** -0.5),
            "pooled": lambda: self.head(x.mean(1)),
            "last": lambda: self.head(x[:, -1]),
            "max": lambda: self.head(x.amax(1)),
            "flat": lambda: self.head(F.relu(x).flatten(1)),
            "deep": lambda: self.head(self.norm(F.gelu(self.inner(x)))),
            "value": lambda: self.value(x).sum(1),
            "image": lambda: self.pixels(F.relu(self.grow(x.mT.unflatten(-1, (SIDE, SIDE))))),
            "bare": lambda: x + self.last(x),
        }[self.kind]()


class Random(nn.Module):
    def __init__(self, recipe: Recipe, w: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.start = Start(recipe, w)
        self.encoder = nn.Linear(recipe.fixed, 3 * w // 2) if recipe.needs_memory() and recipe.encoded else None
        s = Sizes(w, 3 * w // 2 if self.encoder else recipe.fixed)
        units: list[Built] = []
        for i in range(recipe.repeated):
            units += [u.build(s) for u in recipe.units] if i == 0 or not recipe.shared else units[: len(recipe.units)]
        self.units = nn.ModuleList(units)
        self.norm, self.end = norm_of(recipe.norm, w), End(recipe, w, self.start)
        if recipe.frozen:
            self.units.requires_grad_(False)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Any:
        if self.encoder is not None and memory is not None:
            memory = F.gelu(self.encoder(memory))
        x = self.start(x)
        if (
            self.recipe.units[0].style == "none"
        ):  # without a stream, two layers in a row would be one that is factorized
            x = F.gelu(x)
        for unit in self.units:
            x = unit(x, memory)
        return self.end(self.norm(x))


def inputs(recipe: Recipe) -> tuple[Tensor, ...]:
    ids = {"ids", "positions", "types", "factorized", "onehot"}
    shapes = {
        "columns": (BATCH, PLACES, 2),
        "image": (BATCH, 3, 2 * SIDE, 2 * SIDE),
        "patches": (BATCH, 3, 2 * SIDE, 2 * SIDE),
        "coordinates": (BATCH, PLACES, 3),
    }
    shape = shapes.get(recipe.start, (BATCH, PLACES) if recipe.start in ids else (BATCH, PLACES, recipe.fixed))
    x = torch.zeros(shape, dtype=torch.long if recipe.start in ids | {"columns"} else torch.float)
    return (x, torch.zeros(BATCH, EXTRA, recipe.fixed)) if recipe.needs_memory() else (x,)


LEAVES: list[type[Block]] = [
    channels.Mlp,
    channels.Glu,
    channels.Experts,
    channels.LowRank,
    channels.Excite,
    channels.Modulate,
    channels.Unequal,
    channels.Quantize,
    channels.Grouped,
    channels.Features,
    attention.Attention,
    attention.Cross,
    attention.ByLetters,
    attention.Latent,
    attention.SingleHead,
    attention.Latents,
    maps.Conv,
    maps.Shuffle,
    maps.Pixels,
    maps.Window,
    sequences.Recurrent,
    sequences.Scan,
    sequences.Gates,
    sequences.Memory,
    sequences.Fourier,
    sequences.Tokens,
    variants.Library,
    variants.Biased,
    variants.Twice,
    variants.Chosen,
    variants.Channelwise,
    variants.Generated,
    variants.Reduced,
    variants.Structured,
    layouts.Moved,
]


def leaf(kind: type[Block]) -> st.SearchStrategy[Block]:
    """One kind of block, with any choices."""
    if kind is attention.ByLetters:
        letters = st.permutations("abcdefghijklmnopqrstuvwxyzABCXYZ").map(lambda p: tuple(p[:6]))
        return st.builds(kind, letters=letters, order=st.permutations(range(3)).map(tuple))
    if kind is layouts.Moved:
        return st.builds(
            kind, detours=st.lists(st.sampled_from(list(layouts.DETOURS)), min_size=1, max_size=4).map(tuple)
        )
    return st.builds(kind)


leaves = st.one_of(*map(leaf, LEAVES))
halves = st.builds(frames.Halves, body=leaves)
narrow = st.builds(frames.Wider, body=leaves, halves=st.just(1))


def around(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    """Blocks of blocks, at the width or above."""
    return st.one_of(
        st.builds(Residual, body=inner),
        st.builds(frames.Branches, left=inner, right=inner),
        st.builds(frames.Skip, first=inner, second=inner),
        st.builds(frames.Copies, body=inner),
        st.builds(frames.Wider, body=inner, halves=st.sampled_from([2, 3, 4])),
    )


bodies = st.recursive(leaves | leaves | halves | narrow, around, max_leaves=3)
units = st.builds(Residual, body=bodies)
recipes = st.builds(
    Recipe,
    units=st.lists(units, min_size=1, max_size=3).map(tuple),
    repeated=st.sampled_from([1, 1, 1, 2, 2, 4]),
).filter(lambda r: (r.end != "bare" or r.streams()) and (r.start != "factorized" or r.units[0].style != "none"))
