"""Inputs and outputs of every form, by name."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mupc.target import import_transformers
from mupc.trace import trace
from tests.trace.graphs import faithful, reads

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Record:
    first: Tensor
    second: Tensor | None = None
    name: str = "record"


class Plain:
    """No container that anyone knows."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second = first, second


class Gives(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.a, self.b, self.form = nn.Linear(6, 6), nn.Linear(6, 4), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.a(x), self.b(x))


FORMS: dict[str, tuple[Any, tuple[str, str]]] = {
    "tuple": (lambda a, b: (a, b), ("0", "1")),
    "list": (lambda a, b: [a, b], ("0", "1")),
    "dict": (lambda a, b: {"first": a, "second": b}, ("first", "second")),
    "namedtuple": (Pair, ("first", "second")),
    "dataclass": (Record, ("first", "second")),
    "object": (Plain, ("first", "second")),
    "nested": (lambda a, b: {"out": [a], "more": Record(b)}, ("out.0", "more.first")),
    "beside others": (lambda a, b: (a, None, 3, "x", b), ("0", "4")),
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_their_paths(form: str) -> None:
    build, paths = FORMS[form]
    found = faithful(Gives(build), torch.randn(2, 6))
    assert tuple(found.outputs) == paths
    assert reads(found, paths[0]) == {"x", "a.weight", "a.bias"}
    assert reads(found, paths[1]) == {"x", "b.weight", "b.bias"}


def test_a_bare_tensor_has_the_empty_path() -> None:
    assert list(faithful(nn.Linear(2, 2), torch.randn(1, 2)).outputs) == [""]


def test_model_outputs() -> None:
    transformers = import_transformers()
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = transformers.BertModel(config).eval()
    found = faithful(model, torch.tensor([[1, 2, 3]]), output_hidden_states=True)
    assert list(found.outputs)[:2] == ["last_hidden_state", "pooler_output"]
    assert {"hidden_states.0", "hidden_states.1"} <= set(found.outputs)


class Takes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(4, 6)

    def forward(self, x: Tensor, *more: Tensor, batch: dict[str, Any], scale: float = 1.0, **rest: Tensor) -> Tensor:
        y = self.a(x) + self.b(batch["inner"]["b"]) * scale + sum(more)
        return y + batch["listed"][0] + sum(rest.values())


def test_inputs_have_their_names() -> None:
    x, b = torch.randn(2, 6), torch.randn(2, 4)
    batch = {"inner": {"b": b}, "listed": [x], "flag": True}
    found = faithful(Takes(), x, x + 1, batch=batch, scale=2.0, extra=x * 2)
    assert list(found.inputs) == ["x", "more.0", "batch.inner.b", "batch.listed.0", "extra"]
    assert set(found.inputs) <= reads(found)
    assert batch["inner"]["b"] is b and batch["listed"][0] is x


def test_inputs_in_objects() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, pair: Pair, record: Record, plain: Plain) -> Tensor:
            return self.a(pair.first + record.first + plain.second) + pair.second

    x = torch.randn(2, 6)
    found = faithful(Model(), Pair(x, x + 1), Record(x + 2), Plain(x + 3, x + 4))
    assert list(found.inputs) == ["pair.first", "pair.second", "record.first", "plain.first", "plain.second"]


def test_an_input_that_is_returned_is_an_output() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x * 2

    found = faithful(Same(), torch.randn(2))
    assert found.outputs["0"] is found.inputs["x"]


def test_devices_of_inputs_do_not_matter() -> None:
    layer = nn.Linear(6, 6)
    graphs = {str(trace(layer, (torch.zeros(2, 6, device=d),)).graph) for d in ("cpu", "meta")}
    assert len(graphs) == 1


def test_hard_coded_devices_need_not_exist() -> None:
    class Cuda(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(6, device="cuda").to("cuda:0").cuda()
            return self.a(x.to(device="cuda", non_blocking=True)) * mask + torch.arange(6, device=torch.device("cuda"))

    assert not trace(Cuda(), (torch.randn(2, 6),)).unused
