"""Models that nobody wrote: blocks in any order, norms, residuals and ends at random, held against two widths."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mupc.analysis import analyze
from tests.random.blocks import BLOCKS

VOCAB, FEATURES, CLASSES, LENGTH = 11, 7, 9, 13


@dataclass(frozen=True)
class Recipe:
    """What a random model is made of; `width` is left to the builder."""

    start: str  # ids, positions, floats
    blocks: tuple[tuple[int, str, bool], ...]  # (block, norm, residual)
    end: str  # tokens, tied, pooled, class
    repeated: int
    shared: bool


class Random(nn.Module):
    def __init__(self, recipe: Recipe, width: int) -> None:
        super().__init__()
        self.recipe = recipe
        if recipe.start == "floats":
            self.start: nn.Module = nn.Linear(FEATURES, width)
        else:
            self.start = nn.Embedding(VOCAB, width)
        self.position = nn.Parameter(torch.empty(LENGTH + 3, width)) if recipe.start == "positions" else None
        self.token = nn.Parameter(torch.empty(1, 1, width)) if recipe.end == "class" else None
        made = [BLOCKS[at](width) for at, _, _ in recipe.blocks]
        self.blocks = nn.ModuleList(made * recipe.repeated if recipe.shared else made)
        if not recipe.shared:
            for _ in range(recipe.repeated - 1):
                self.blocks.extend(BLOCKS[at](width) for at, _, _ in recipe.blocks)
        kinds = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "none": nn.Identity}
        self.norms = nn.ModuleList(kinds[norm](width) for _, norm, _ in recipe.blocks * recipe.repeated)
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCAB if recipe.end == "tied" else CLASSES)
        if recipe.end == "tied" and recipe.start != "floats":
            self.head.weight = self.start.weight  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        if self.position is not None:
            x = x + self.position[: x.shape[1]]
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        for i, (_, _, residual) in enumerate(self.recipe.blocks * self.recipe.repeated):
            y = self.blocks[i](self.norms[i](x))
            x = x + y if residual else torch.relu(y)
        x = self.last(x)
        if self.recipe.end in ("pooled", "class"):
            x = x.mean(1) if self.recipe.end == "pooled" else x[:, 0]
        return self.head(x)


recipes = st.builds(
    Recipe,
    start=st.sampled_from(["ids", "positions", "floats"]),
    blocks=st.lists(
        st.tuples(st.integers(0, len(BLOCKS) - 1), st.sampled_from(["layer", "rms", "none"]), st.booleans()),
        min_size=1,
        max_size=4,
    ).map(tuple),
    end=st.sampled_from(["tokens", "tied", "pooled", "class"]),
    repeated=st.sampled_from([1, 1, 2, 5]),
    shared=st.booleans(),
)


def disagreements(recipe: Recipe) -> list[str]:
    """Parameters whose growing axes are not those that two widths show; unknown ones are none."""
    with torch.device("meta"):
        model, wide = Random(recipe, 24), Random(recipe, 48)
    ids = torch.zeros(2, LENGTH, dtype=torch.long)
    found = analyze(model, (torch.empty(2, LENGTH, FEATURES) if recipe.start == "floats" else ids,)).parameters
    shapes = dict(wide.named_parameters(remove_duplicate=False))
    out = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        expected = tuple(n != m for n, m in zip(parameter.shape, shapes[name].shape, strict=True))
        verdict = found[name].infinite
        if found[name].role not in ("unknown", "unused") and verdict != expected:
            out.append(f"{name} {tuple(parameter.shape)}: {verdict}, but {expected}: {'; '.join(found[name].why)}")
    return out


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(recipes)
def test_random_models(recipe: Recipe) -> None:
    assert disagreements(recipe) == []


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_ten_thousand_random_models(recipe: Recipe) -> None:
    assert disagreements(recipe) == []


@pytest.mark.parametrize("block", range(len(BLOCKS)), ids=lambda i: BLOCKS[i].__name__)
@pytest.mark.parametrize("residual", [True, False])
def test_each_block_alone(block: int, residual: bool) -> None:
    recipe = Recipe("ids", ((block, "layer", residual),), "tokens", 2, False)
    assert disagreements(recipe) == []
    with torch.device("meta"):
        model = Random(recipe, 24)
    roles = {p.role for p in analyze(model, (torch.zeros(2, LENGTH, dtype=torch.long),)).parameters.values()}
    assert "unknown" not in roles
