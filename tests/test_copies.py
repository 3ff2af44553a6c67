"""Inference looks at a repeated block once; what it says of the copies is what it would have found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mupc.analysis import infer
from mupc.target import import_timm, import_transformers
from mupc.trace import Trace, trace


def left_out(traced: Trace) -> int:
    return len(traced.thinned()[1])


def agree(model: nn.Module, traced: Trace, *, reasons: bool = True) -> None:
    """The same verdicts with and without the copies; names may differ where fewer atoms compete for one, and the reason
    at a seam without a residual names the next sibling that was kept."""
    once, whole = infer(model, traced), infer(model, replace(traced, blocks=()))
    assert list(once.parameters) == list(whole.parameters)
    for name, found in once.parameters.items():
        other = whole.parameters[name]
        assert (found.role, found.sub_role, found.infinite) == (other.role, other.sub_role, other.infinite), name
        assert [(u.node, u.module, u.axes, u.role) for u in found.uses] == [
            (u.node, u.module, u.axes, u.role) for u in other.uses
        ], name
        assert found.residual_branch == other.residual_branch, name
        assert found.why == other.why or found.axes != other.axes or not reasons, name


def gpt() -> nn.Module:
    transformers = import_transformers()
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=24, n_head=3, vocab_size=97, n_layer=7))


def test_a_decoder_of_seven_layers_is_read_at_two() -> None:
    model = gpt().eval()
    traced = trace(model, (torch.zeros(2, 9, dtype=torch.long),))
    assert left_out(traced) == 5
    agree(model, traced)


def test_reasons_name_the_copys_own_parameters() -> None:
    model = gpt().eval()
    found = infer(model, trace(model, (torch.zeros(2, 9, dtype=torch.long),)))
    why = " ".join(found.parameters["transformer.h.4.mlp.c_proj.weight"].why)
    assert "transformer.h.4.mlp.c_fc.weight" in why
    assert "transformer.h.1.mlp" not in why


@pytest.mark.parametrize("name", ["resnet101", "convnext_tiny", "mixer_s32_224"])
def test_repeated_stages_of_timm(name: str) -> None:
    with torch.device("meta"):
        model = import_timm().create_model(name).eval()
    traced = trace(model, (torch.zeros(2, 3, 224, 224),))
    assert left_out(traced) > 1
    agree(model, traced)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 40), nn.Linear(40, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


class Stack(nn.Module):
    def __init__(self, depth: int = 6, keep: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(16, 24), nn.Linear(24, 10)
        self.blocks = nn.ModuleList([Block(24) for _ in range(depth)])
        self.keep = keep
        if shared:
            for block in self.blocks[1:]:
                block.up.weight = self.blocks[0].up.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        seen = []
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        return self.leave(torch.stack(seen).mean(0) if self.keep else x)


@pytest.mark.parametrize(("settings", "expected"), [({}, 4), ({"keep": True}, 0), ({"shared": True}, 0)])
def test_only_what_the_stream_passes_straight_through_is_left_out(settings: dict[str, bool], expected: int) -> None:
    """Not a block whose result is read beside the next block, nor one that shares a tensor."""
    model = Stack(**settings)
    traced = trace(model, (torch.zeros(2, 16),))
    assert left_out(traced) == expected
    agree(model, traced)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(24) for _ in range(5)])
        self.mix = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.mix(x)


def test_copies_within_copies() -> None:
    model = nn.Sequential(nn.Linear(16, 24), *(Outer() for _ in range(5)), nn.Linear(24, 10))
    traced = trace(model, (torch.zeros(2, 16),))
    assert left_out(traced) > 4
    agree(model, traced, reasons=False)


class Handed(nn.Module):
    """Blocks that are each handed a gain of their own from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(32)) for _ in range(7)])
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 32)) for _ in range(7)])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block, gain in zip(self.blocks, self.gains, strict=True):
            x = x + block(x * gain)
        return x.mean(-1)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 96), nn.Linear(96, 32)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x))) * gain


class HandedInside(Handed):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Gated() for _ in range(7)])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block, gain in zip(self.blocks, self.gains, strict=True):
            x = block(x, gain)
        return x.mean(-1)


@pytest.mark.parametrize("kind", [Handed, HandedInside])
def test_what_each_block_is_handed_is_used(kind: type[nn.Module]) -> None:
    model = kind()
    traced = trace(model, (torch.zeros(2, 5, dtype=torch.long),))
    agree(model, traced)
    assert {p.role for n, p in infer(model, traced).parameters.items() if n.startswith("gains")} == {"vector"}


def test_alternating_blocks_are_read_twice_each() -> None:
    transformers = import_transformers()
    config = transformers.Gemma2Config(
        hidden_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=12, intermediate_size=96, vocab_size=97,
        num_hidden_layers=10, sliding_window=4,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.Gemma2ForCausalLM(config).eval()
    traced = trace(model, (torch.zeros(2, 9, dtype=torch.long),))
    assert left_out(traced) == 6
    agree(model, traced)


class Dropped(nn.Module):
    """Drops its branch while training, each at a rate of its own; every second one is shifted."""

    def __init__(self, rate: float, shift: int) -> None:
        super().__init__()
        self.rate, self.shift, self.block = rate, shift, Block(24)

    def forward(self, x: Tensor) -> Tensor:
        if self.rate and self.training:
            x = torch.nn.functional.dropout(x, self.rate)
        return self.block(torch.roll(x, self.shift, -2) if self.shift else x)


@pytest.mark.parametrize(("shift", "expected"), [(0, 6), (1, 4)])
def test_siblings_that_wrote_the_same_are_alike(shift: int, expected: int) -> None:
    blocks = [Dropped(i / 100, shift * (i % 2)) for i in range(8)]
    model = nn.Sequential(nn.Linear(16, 24), *blocks, nn.Linear(24, 10)).eval()
    traced = trace(model, (torch.zeros(2, 5, 16),))
    assert left_out(traced) == expected
    agree(model, traced)
