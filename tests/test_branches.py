"""What ends a residual branch: twice those tensors is twice the branch, but for a norm's eps; and which have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor, nn

import mupc
from mupc.analysis import Analysis
from mupc.branches import Branches, branches
from mupc.check.run import Graph
from mupc.check.scene import materialized
from mupc.plan import make_plan
from mupc.target import load_target
from mupc.target.build import real
from tests.random.models import Random, Recipe, inputs, recipes

EXAMPLES = Path(__file__).parent.parent / "examples"
N, BLOCKS = 16, 3


def found(analysis: Analysis) -> Branches:
    return branches(analysis.dims_stage, analysis.blocks)


def held(model: nn.Module, analysis: Analysis, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many branches are twice as large with twice their ends, all of them, where the stream before is the same."""
    trace = analysis.dims_stage.facts.trace
    values, named = materialized(args, kwargs, 0)
    given = dict(zip(trace.inputs.values(), [*values, *named.values()], strict=True))
    generator = torch.Generator().manual_seed(0)
    buffers = {
        name: torch.rand(b.shape, generator=generator) if b.is_floating_point() else b
        for name, b in model.named_buffers()
    }
    graph = Graph(trace, buffers, given, torch.float64)
    weights = {
        name: torch.randn(p.shape, generator=generator, dtype=torch.cdouble if p.is_complex() else torch.double)
        for name, p in model.named_parameters()
    }
    once = graph.run(weights)
    seen = found(analysis).ends
    done: set[str] = set()
    for residual, names in seen:
        if names & done:  # a block that is met again: the stream before it is another too
            continue
        done |= names
        graph.scales = dict.fromkeys(names, 2.0)
        twice = graph.run(weights)
        assert torch.equal(once[residual.stream], twice[residual.stream])
        branch = once[residual.add] - once[residual.stream]
        torch.testing.assert_close(twice[residual.add] - twice[residual.stream], 2 * branch, rtol=1e-3, atol=1e-9)
        assert branch.abs().max() > 0
    return len(seen)


@pytest.mark.parametrize("name", ["nano_gpt", "llama", "moe", "resnet", "vit", "ssm"])
def test_twice_the_ends_is_twice_the_branch(name: str) -> None:
    target = load_target(str(EXAMPLES / f"{name}.py"), (), ())
    analysis = mupc.analyze(target.model, target.args, target.kwargs)
    with real():
        model, _ = target.built.remake({})
    assert held(model, analysis, tuple(target.args), dict(target.kwargs)) >= 2
    assert not analysis.open_branches


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck),
          phases=[Phase.generate])  # fmt: skip
@given(recipes)
def test_of_random_models(recipe: Recipe) -> None:
    """Whatever a branch is made of, what is said to end it does."""
    model = Random(recipe, recipe.width)
    held(model, mupc.analyze(model, inputs(recipe)), inputs(recipe), {})


class Stack(nn.Module):
    """Blocks of one kind around a stream; `times` is a number on what comes in."""

    def __init__(self, kind: type[nn.Module], times: float = 1.0) -> None:
        super().__init__()
        self.times = times
        self.first, self.last = nn.Linear(4, N), nn.Linear(N, 3)
        self.blocks = nn.ModuleList([kind() for _ in range(BLOCKS)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x * self.times if self.times != 1.0 else x
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class OneLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(N, N)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x.relu())


class ReluAfter(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).relu()


class TanhAfter(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).tanh()


class NormInside(nn.Module):
    """Its gain ends the branch: a factor on the matrix before it does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(N, N), nn.LayerNorm(N)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.layer(x.relu()))


class PlainNorm(NormInside):
    """A norm without gain or bias ends in nothing that could be multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(N, elementwise_affine=False)


class OnePlus(OneLayer):
    """1 + w is not linear in w, but in the layer before it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(N))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x.relu()) * (1 + self.gain)


class OnePlusNorm(nn.Module):
    """1 + w behind a norm: neither is linear in w, nor does the norm know what is before it (Gemma 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(N, N), nn.Parameter(torch.zeros(N))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.relu())
        return x + y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.gain)


class HalfGated(nn.Module):
    """One matrix makes the value and its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(N, 2 * N)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, -1)
        return x + value * gate.sigmoid()


class Glu(HalfGated):
    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.glu(self.both(x))


class SelfGate(OneLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return x + y * y.sigmoid()


class Modulated(nn.Module):
    """AdaLN: one matrix makes shift, scale and gate; the branch ends in its own last layer all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.ln, self.up, self.down = nn.LayerNorm(N), nn.Linear(N, N), nn.Linear(N, N)
        self.ada = nn.Linear(N, 3 * N)

    def forward(self, x: Tensor) -> Tensor:
        shift, scale, gate = self.ada(x.mean(1, keepdim=True)).chunk(3, -1)
        return x + gate * self.down(self.up(self.ln(x) * (1 + scale) + shift).relu())


class LayerScale(OneLayer):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((N,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.layer(x.relu())


class Parallel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.one(x.relu()) + self.two(x.sigmoid())


class Gated(Parallel):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(x).sigmoid() * self.one(x)


class Normed(OneLayer):
    """A weight that is normalized before it is used is not linear in itself."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.layer.weight
        return x + nn.functional.linear(x.relu(), w / w.norm(dim=1, keepdim=True))


class TwiceUsed(OneLayer):
    """Its layer ends the branch, and begins it too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.layer(x).relu())


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(N, N, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x.relu().mT).mT


ENDS = {
    OneLayer: {"layer.weight", "layer.bias"},
    ReluAfter: {"layer.weight", "layer.bias"},
    NormInside: {"norm.weight", "norm.bias"},
    LayerScale: {"gamma"},
    Parallel: {"one.weight", "one.bias", "two.weight", "two.bias"},
    Gated: {"one.weight", "one.bias"},
    OnePlus: {"layer.weight", "layer.bias"},
    Modulated: {"down.weight", "down.bias"},
    Convolved: {"mix.weight", "mix.bias"},
}


@pytest.mark.parametrize("kind", ENDS)
def test_ends(kind: type[nn.Module]) -> None:
    model, x = Stack(kind), torch.randn(2, 5, 4)
    analysis = mupc.analyze(model, x)
    ends = {name for name, p in analysis.parameters.items() if p.ends_branch}
    assert ends == {f"blocks.{i}.{name}" for i in range(BLOCKS) for name in ENDS[kind]}
    assert held(model, analysis, (x,), {}) >= 2
    assert not analysis.open_branches


@pytest.mark.parametrize("kind", [TanhAfter, PlainNorm, OnePlusNorm, Normed, TwiceUsed, HalfGated, Glu, SelfGate])
def test_open_branches_are_told(kind: type[nn.Module]) -> None:
    """Where no tensor does it the plan says at which line, under what multiplies branches, and only there."""
    analysis = mupc.analyze(Stack(kind), torch.randn(2, 5, 4))
    assert not any(p.ends_branch for p in analysis.parameters.values())
    plan = make_plan(analysis, parametrization="completep")
    assert [f.code for f in plan.findings] == ["MUP208"]
    assert "test_branches.py" in str(plan.findings[0].source)
    assert not make_plan(analysis).findings


def test_a_factor_on_the_embedding_is_no_branch() -> None:
    """Nor is the embedding behind it an end: what comes into the first block is the stream."""
    analysis = mupc.analyze(Stack(OneLayer, times=4.0), torch.randn(2, 5, 4))
    ends = {name for name, p in analysis.parameters.items() if p.ends_branch}
    assert ends == {f"blocks.{i}.layer.{name}" for i in range(BLOCKS) for name in ("weight", "bias")}
    assert not analysis.open_branches


class Alone(nn.Module):
    """One residual branch, of two layers that are alike: no depth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, N), nn.Linear(N, 3)
        self.body = nn.Sequential(nn.Linear(N, N), nn.Linear(N, N))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x + self.body(x.relu()))


def test_a_branch_that_stands_alone_has_no_depth() -> None:
    analysis = mupc.analyze(Alone(), torch.randn(2, 4))
    assert analysis.depth is None
    told = make_plan(analysis, parametrization="completep").coverage.assumed_ops
    assert told == ("no blocks with residual branches found: completep's laws of depth say nothing",)
    assert not any(p.ends_branch or p.stacked for p in analysis.parameters.values())


def test_depth_counts_blocks_that_are_built_otherwise() -> None:
    """T5's first block has a table of distances, and is a block."""
    target = load_target("hf:t5", ("num_layers=5",), ())
    assert mupc.analyze(target.model, target.args, target.kwargs).depth == 5
