"""Models that nobody wrote: blocks in any order and nesting, held against two widths. A failure shrinks to the smallest
model, and prints as the recipe it is built from.
"""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mupc.analysis import analyze
from mupc.errors import MupcError
from tests.random.attention import Latents, SingleHead
from tests.random.channels import Grouped, Modulate, Unequal
from tests.random.frames import Branches, Copies, Residual, Skip, Wider
from tests.random.maps import Conv, Pixels, Shuffle
from tests.random.models import LEAVES, Recipe, inputs, leaf, recipes
from tests.random.spec import Block
from tests.random.truth import built, examined, unknown, wrong
from tests.random.variants import Biased, Generated, Structured, Twice

ANYTHING = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=False)


def held(count: int, **how: bool) -> Counter[str]:
    """That many random models, none of them wrong; how many parameters they had, and how many were unknown."""
    seen: Counter[str] = Counter()

    @settings(ANYTHING, max_examples=count, **how)
    @given(recipes)
    def look(recipe: Recipe) -> None:
        found = examined(recipe)
        assert wrong(recipe, found) == []
        seen.update(models=1, parameters=len(found.parameters), unknown=len(unknown(found)))

    look()
    return seen


def test_random_models() -> None:
    """None is wrong; and, as an analyzer that knows nothing never is, fewer than one in a hundred is unknown."""
    seen = held(200, derandomize=True)
    assert seen["parameters"] > 3000
    assert seen["unknown"] < 0.01 * seen["parameters"]


@pytest.mark.slow
def test_ten_thousand_random_models() -> None:
    seen = held(10_000)
    print(seen)
    assert seen["unknown"] < 0.01 * seen["parameters"]


def test_a_number_of_groups_that_stands_alone() -> None:
    """Found among ten thousand: the groups of a grouped einsum were the one factor that another parameter has alone."""
    shuffled = Skip(first=Shuffle(how="op", depthwise=True), second=Generated(how="demod", act="gelu"), join="add")
    grouped = Branches(
        left=Grouped(how="einsum", normed=False), right=Wider(body=Twice(shares="lerp"), halves=2), join="cat"
    )
    units = (
        Residual(body=Copies(body=shuffled, count=3, dynamic=True, apart=True), norm="none", style="sandwich"),
        Residual(
            body=Copies(body=Unequal(sliced=False, first=True), count=2, dynamic=True, apart=False),
            norm="bare",
            style="pre",
        ),
        Residual(body=grouped, norm="batch", style="pre"),
    )
    recipe = Recipe("coordinates", units, "tied", "rms", 2, False, 48, 16, False, False)
    found = examined(recipe)
    assert wrong(recipe, found) == []
    assert unknown(found) == []


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_each_block_alone(kind: type[Block]) -> None:
    """Every choice of a block, in a residual stream: nothing wrong, and nothing unknown."""

    @settings(ANYTHING, max_examples=25, derandomize=True, database=None)
    @given(leaf(kind), st.sampled_from(["pre", "post", "scale"]))
    def alone(body: Block, style: str) -> None:
        unit = Residual(body, "layer", style)  # type: ignore[arg-type]
        recipe = Recipe("ids", (unit,), "tokens", "layer", 2, False, 32, 11, False, False)
        found = examined(recipe)
        assert wrong(recipe, found) == []
        assert unknown(found) == []

    alone()


class Broken(nn.Module):
    """A model in which something is wrong on purpose."""

    def __init__(self, whole: nn.Module, at: int, how: str) -> None:
        super().__init__()
        self.whole, self.how = whole, how
        layers = [(m, n) for m in whole.modules() for n, c in m.named_children() if isinstance(c, nn.Linear)]
        if how == "layer" and layers:
            parent, name = layers[at % len(layers)]
            setattr(parent, name, nn.Linear(3, 5))

    def forward(self, *args: Tensor) -> object:
        if self.how == "raises":
            raise ZeroDivisionError("as a user's code may")
        out = self.whole(*args)
        return {"nothing": None, "number": 3, "loop": iter([1])}.get(self.how, out)


def spoiled(args: tuple[Tensor, ...], how: str) -> tuple[object, ...]:
    first = args[0]
    changed: dict[str, tuple[object, ...]] = {
        "none": (None, *args[1:]),
        "missing": args[1:],
        "extra": (*args, first, first),
        "shape": (first.new_zeros(2, 3), *args[1:]),
        "type": (first.bool(), *args[1:]),
        "empty": (first[:0], *args[1:]),
        "word": ("x", *args[1:]),
    }
    return changed.get(how, args)


@settings(ANYTHING, max_examples=100, derandomize=True)
@given(
    recipes,
    st.integers(0, 99),
    st.sampled_from(["layer", "raises", "nothing", "number", "loop", "whole"]),
    st.sampled_from(["none", "missing", "extra", "shape", "type", "empty", "word", "as it is"]),
)
def test_only_mupc_errors(recipe: Recipe, at: int, how: str, inputs_: str) -> None:
    """Broken models and inputs: an answer, or an error of mupc's own."""
    with torch.device("meta"):
        model = Broken(copy.deepcopy(built(recipe)), at, how)
    try:
        analyze(model, spoiled(inputs(recipe), inputs_))
    except MupcError as error:
        assert str(error)


def test_places_that_were_folded() -> None:
    """Found among ten thousand: the places of nn.Fold's image, cut into patches again, were taken for channels."""
    units = (
        Residual(body=Wider(body=Pixels(how="unfold", act="square"), halves=2), norm="root", style="none"),
        Residual(body=Wider(body=Pixels(how="view", act="square"), halves=2), norm="root", style="inplace"),
    )
    recipe = Recipe("onehot", units, "named", "root", 1, False, 48, 32, False, False)
    assert wrong(recipe, examined(recipe)) == []


def test_places_cut_into_patches_are_no_channels() -> None:
    """Found among ten thousand: a width mixed beside patches of places was taken for copies of the stream."""
    units = (
        Residual(body=Pixels(how="view", act="silu"), norm="rms", style="none"),
        Residual(
            body=Skip(first=Latents(scores="sdpa"), second=Latents(scores="sdpa"), join="add"),
            norm="batch",
            style="sandwich",
        ),
        Residual(body=Wider(body=Wider(body=Twice(shares="scores"), halves=3), halves=2), norm="plus", style="none"),
    )
    recipe = Recipe("columns", units, "query", "rms", 4, False, 48, 16, False, True)
    assert wrong(recipe, examined(recipe)) == []


def test_a_modulated_weight_contracts_no_two_activations() -> None:
    """Found among ten thousand: what a style's convolution reads was taken for the inner factor of heads."""
    conv = Conv(dims=1, kind="multiplied", norm="group", act="gelu", bias=False)
    body = Branches(left=conv, right=Generated(how="style", act="silu"), join="gate")
    units = (Residual(body=Wider(body=body, halves=2), norm="root", style="highway"),)
    recipe = Recipe("columns", units, "value", "root", 2, True, 48, 48, True, True)
    assert wrong(recipe, examined(recipe)) == []


def test_frequencies_of_a_stream_are_no_rank() -> None:
    """Found among ten thousand: the modes of a stream that a circulant weight scales were taken for a factorization."""
    body = Branches(left=Biased(bias="sink"), right=Structured(how="circulant"), join="gate")
    units = (
        Residual(body=body, norm="plus", style="post"),
        Residual(
            body=Wider(body=Wider(body=SingleHead(shared=False), halves=4), halves=4), norm="layer", style="sandwich"
        ),
        Residual(body=Modulate(source="memory", count=2, how="chunk"), norm="plus", style="none"),
    )
    recipe = Recipe("factorized", units, "image", "batch", 1, True, 32, 48, True, False)
    assert wrong(recipe, examined(recipe)) == []
