"""Folding repeated blocks changes nothing: node for node, the graph is the one of a full trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from mupc.trace import Trace, trace
from tests.trace.graphs import calls, faithful

DEPTH = 7


def written_out(found: Trace) -> list[object]:
    """The graph as comparable rows: op, module and arguments, nodes by their place among the calls."""
    place: dict[fx.Node, object] = {n: i for i, n in enumerate(calls(found))}
    counted = 0
    for node in found.graph.nodes:
        if node.op == "placeholder":
            constant = node.meta["kind"] == "constant"
            place[node] = (node.meta["kind"], counted if constant else node.meta["name"])
            counted += constant

    def row(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return "node", place[value]
        if isinstance(value, (list, tuple)):
            return [row(v) for v in value]
        if isinstance(value, dict):
            return {k: row(v) for k, v in value.items()}
        return value

    rows: list[object] = [
        (str(n.target), n.meta["module"], n.meta["source"], tuple(n.meta["val"].shape), row(n.args), row(n.kwargs))
        for n in calls(found)
        if isinstance(n.meta["val"], Tensor)
    ]
    return [*rows, {path: row(node) for path, node in found.outputs.items()}]


def copies(found: Trace) -> int:
    """How many of the blocks were not run."""
    return len({n.meta["module"].split(".")[1] for n in calls(found) if "like" in n.meta})


def same_graph(model: nn.Module, *args: Any, **kwargs: Any) -> Trace:
    """The folded trace, once it has been found equal to the full one and to compute what the model computes."""
    folded = faithful(model, *args, **kwargs)
    full = faithful(model, *args, fold_blocks=False, **kwargs)
    assert not any("like" in n.meta for n in calls(full))
    assert written_out(folded) == written_out(full)
    assert folded.unused == full.unused and list(folded.parameters) == list(full.parameters)
    return folded


class Block(nn.Module):
    """A residual branch around a function of two weights."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.layer_idx = at
        self.norm = nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Stack(nn.Module):
    def __init__(self, block: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.h = nn.ModuleList(block(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Any:
        for block in self.h:
            x = block(x)
        return x


X = torch.randn(2, 3, 6)


def test_plain_blocks_are_copied() -> None:
    found = same_graph(Stack(Block), X)
    assert copies(found) == DEPTH - 3  # all but the first two and the last
    assert {n.meta["module"] for n in calls(found)} >= {f"h.{i}.up" for i in range(DEPTH)}


def test_a_folded_trace_is_that_of_the_model_on_meta() -> None:
    with torch.device("meta"):
        meta = Stack(Block)
    assert written_out(trace(meta, (X,))) == written_out(trace(Stack(Block), (X,)))


class Special(Block):
    """One block in the middle does otherwise, by its number alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.layer_idx != 3 else super().forward(x * 2)


class Member(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x if self.layer_idx in (2, 4) else x)


class Indexed(Block):
    """The number is looked up in a table."""

    TABLE = [1.0, 1.0, 5.0, 1.0, 1.0, 2.0, 1.0]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.TABLE[self.layer_idx]


class Keyed(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * {3: 4.0}.get(self.layer_idx, 1.0)


class Scaled(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / (self.layer_idx + 1)


class ScaledByTensor(Block):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.layer_idx)


class Alternating(Block):
    """A plain attribute, and no number, decides."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.kind = "sliding" if at % 2 else "full"

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(1, 1) if self.kind == "sliding" else x)


class Configured(Block):
    """An attribute that is no plain value decides."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.options = {"window": {"size": 2 if at == 3 else 1}}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(self.options["window"]["size"], 1))


class Window:
    def __init__(self, size: int) -> None:
        self.size = size


class ConfiguredByObject(Block):
    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.window = Window(2 if at == 3 else 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(self.window.size, 1))


class Counting(Block):
    """A buffer's values decide."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.register_buffer("steps", torch.tensor(3 if at == 4 else 1))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(self.steps)):
            x = super().forward(x)
        return x


class Swapped(Block):
    """An activation that is a function differs."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.act = torch.tanh if at == 3 else torch.relu

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(x)))


class ByClosure(Block):
    """Functions that share a name are told apart."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        power = 3 if at == 4 else 2
        self.act = lambda t: t**power

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(x)))


@pytest.mark.parametrize(
    "block",
    [
        Special, Member, Indexed, Keyed, Scaled, ScaledByTensor, Alternating, Configured, ConfiguredByObject, Counting,
        Swapped, ByClosure,
    ],
)  # fmt: skip
def test_blocks_that_differ_are_not_taken_for_each_other(block: Callable[[int], nn.Module]) -> None:
    same_graph(Stack(block), X)


class Literal(Block):
    """A tensor is written in the code."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / torch.sqrt(torch.tensor(6.0))


def test_a_literal_does_not_keep_blocks_apart() -> None:
    assert copies(same_graph(Stack(Literal), X)) == DEPTH - 3


class Collecting(nn.Module):
    """Blocks leave tensors in a list that they share."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []
        losses = self.losses

        class Leaving(Block):
            def forward(self, x: Tensor) -> Tensor:
                y = super().forward(x)
                losses.append(y.square().mean())
                return y

        self.h = nn.ModuleList(Leaving(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        self.losses.clear()
        for block in self.h:
            x = block(x)
        return torch.stack(self.losses).sum() + x


class Remembering(nn.Module):
    """Blocks keep their results as attributes, read later."""

    class Keeping(Block):
        kept: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.kept = super().forward(x)
            return self.kept

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(self.Keeping(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h:
            x = block(x)
        return torch.stack([block.kept for block in self.h]).sum(0)


class Writing(nn.Module):
    """Blocks write into what they are given."""

    class Into(Block):
        def forward(self, x: Tensor, total: Tensor) -> Tensor:
            y = super().forward(x)
            total += y
            return y

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(self.Into(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for block in self.h:
            x = block(x, total)
        return total


class WritingBuffers(nn.Module):
    class Running(Block):
        def __init__(self, at: int) -> None:
            super().__init__(at)
            self.register_buffer("mean", torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(x.mean((0, 1)))
            return super().forward(x - self.mean)

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(self.Running(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h:
            x = block(x)
        return x


class Shared(nn.Module):
    """One bias is every block's; two blocks share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(Block(i) for i in range(DEPTH))
        for block in self.h[1:]:
            block.up.bias = self.h[0].up.bias
        self.h[4].down.weight = self.h[3].down.weight

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h:
            x = block(x)
        return x


class TiedInside(nn.Module):
    """In one block two weights are one, which its shapes do not tell."""

    class Square(nn.Module):
        def __init__(self, at: int) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            if at == 3:
                self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return x + self.b(self.a(x))

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(self.Square(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h:
            x = block(x)
        return x


class Around(nn.Module):
    """Blocks read a tensor of the model around them that is no argument."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        outer: list[Any] = [None]
        self.outer = outer

        class Reading(Block):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) * outer[0]

        self.h = nn.ModuleList(Reading(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        self.outer[0] = self.scale * 2
        for i, block in enumerate(self.h):
            if i == 4:
                self.outer[0] = self.scale * 3
            x = block(x)
        self.outer[0] = None
        return x


class Skipping(nn.Module):
    """Inputs of several forms; blocks out of order; some twice."""

    class Joined(Block):
        def forward(self, x: Tensor, skip: Tensor | None = None, *, twice: bool = False) -> dict[str, Any]:
            y = super().forward(x if skip is None else x + skip)
            return {"y": y * 2 if twice else y, "x": (x, None)}

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(self.Joined(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in (*self.h, self.h[1], *self.h):
            skips.append(x)
            x = block(x, skips[-2] if len(skips) % 3 == 0 else None, twice=len(skips) > 9)["y"]
        return x


class Masked(nn.Module):
    """Real tensors are passed to blocks."""

    class Taking(Block):
        def forward(self, x: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
            return super().forward(x.masked_fill(mask, 0.0)[:, ids])

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(self.Taking(i) for i in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        ids = torch.arange(x.shape[1])
        for i, block in enumerate(self.h):
            x = block(x, (ids > 1)[None, :, None], ids if i < 4 else ids.flip(0))
        return x


MODELS = [
    Collecting, Remembering, Writing, WritingBuffers, Shared, TiedInside, Around, Skipping, Masked,
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_what_blocks_do_beside_their_result_is_not_lost(model: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    same_graph(model(), X)


def test_a_hooked_block_is_run() -> None:
    model = Stack(Block)
    model.h[3].register_forward_hook(lambda _module, _args, out: out * 2)
    same_graph(model, X)


def test_a_patched_block_is_run() -> None:
    model = Stack(Block)
    plain = model.h[3].forward
    model.h[3].forward = lambda x: plain(x) * 2  # type: ignore[method-assign]
    same_graph(model, X)


def test_blocks_dropped_at_random_leave_the_same_graph_twice() -> None:
    class Dropped(Block):
        def forward(self, x: Tensor) -> Tensor:
            return x if random.random() < 0.5 else super().forward(x)

    model = Stack(Dropped)
    assert written_out(trace(model, (X,))) == written_out(trace(model, (X,)))


def test_each_copy_carries_the_lines_and_modules_of_its_own() -> None:
    found = trace(Stack(Block), (X,))
    per_block = {i: [n for n in calls(found) if n.meta["module"].startswith(f"h.{i}")] for i in range(DEPTH)}
    first = [(n.target, n.meta["source"], n.meta["module"].removeprefix("h.0")) for n in per_block[0]]
    for i in range(DEPTH):
        assert [(n.target, n.meta["source"], n.meta["module"].removeprefix(f"h.{i}")) for n in per_block[i]] == first
