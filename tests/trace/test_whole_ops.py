"""Ops stay whole, and every node says which module and which of the user's lines it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mupc.target import import_transformers
from mupc.trace import trace
from tests.trace.graphs import calls, count, faithful


class Calls(nn.Module):
    """A module that is one function of its weight."""

    def __init__(self, function: Callable[..., Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


WHOLE = [
    ("linear", nn.Linear(6, 4), (2, 6)),
    ("layer_norm", nn.LayerNorm(6), (2, 6)),
    ("rms_norm", nn.RMSNorm(6), (2, 6)),
    ("group_norm", nn.GroupNorm(2, 6), (2, 6, 4)),
    ("batch_norm", nn.BatchNorm1d(6), (3, 6)),
    ("conv1d", nn.Conv1d(3, 4, 3), (2, 3, 8)),
    ("conv2d", nn.Conv2d(3, 4, 3, padding=1), (2, 3, 8, 8)),
    ("conv3d", nn.Conv3d(3, 4, 3), (2, 3, 5, 5, 5)),
    ("conv_transpose2d", nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5)),
    ("bilinear", Calls(lambda x, w: F.bilinear(x, x, w), 4, 6, 6), (2, 6)),
    ("matmul", Calls(lambda x, w: x @ w, 6, 4), (2, 3, 6)),
    ("einsum", Calls(lambda x, w: torch.einsum("bi,io->bo", x, w), 6, 4), (2, 6)),
    ("scaled_dot_product_attention", Calls(lambda x, w: F.scaled_dot_product_attention(x, x * w, x), 6), (2, 2, 5, 6)),
    ("softmax", Calls(lambda x, w: F.softmax(x * w, -1), 6), (2, 6)),
    ("gelu", Calls(lambda x, w: F.gelu(x * w), 6), (2, 6)),
]


@pytest.mark.parametrize(("op", "module", "shape"), WHOLE, ids=[op for op, _, _ in WHOLE])
def test_an_op_stays_whole(op: str, module: nn.Module, shape: tuple[int, ...]) -> None:
    assert count(faithful(module, torch.randn(shape)))[op] == 1


def test_embedding_stays_whole() -> None:
    found = faithful(nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 4)), torch.tensor([[1, 2, 10]]))
    assert count(found) == {"embedding": 1, "linear": 1}


@pytest.mark.parametrize(("op", "kind"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn_tanh", nn.RNN)])
def test_a_recurrence_stays_whole(op: str, kind: type[nn.Module]) -> None:
    found = faithful(kind(6, 4, num_layers=2, bidirectional=True, batch_first=True), torch.randn(2, 5, 6))
    assert count(found)[op] == 1 and not found.unused
    assert len(found.parameters) == 16


class Lines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Sequential(nn.Linear(6, 8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)  # first
        return h * 2  # second


def test_every_node_has_its_module_and_line() -> None:
    lines, start = inspect.getsourcelines(Lines)
    place = {word: start + i for i, text in enumerate(lines) for word in ("first", "second") if f"# {word}" in text}
    linear, relu, mul = calls(trace(Lines(), (torch.randn(2, 6),)))
    assert [n.meta["module"] for n in (linear, relu, mul)] == ["up.0", "up.1", ""]
    here = Path(__file__).name
    for node, word in ((linear, "first"), (relu, "first"), (mul, "second")):
        file, _, line = node.meta["source"].rpartition(":")
        assert Path(file).name == here and int(line) == place[word]


def test_a_line_in_a_library_names_the_users_too() -> None:
    transformers = import_transformers()
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50)

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = transformers.GPT2Model(config)

        def forward(self, ids: Tensor) -> Tensor:
            return self.body(ids, use_cache=False).last_hidden_state

    for node in calls(trace(Mine(), (torch.zeros(1, 4, dtype=torch.long),))):
        assert node.meta["source"]
        if node.meta["module"].startswith("body.h"):
            assert "transformers" in node.meta["source"]
            assert Path(__file__).name in node.meta["user_source"]
