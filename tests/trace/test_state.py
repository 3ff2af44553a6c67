"""Parameters, buffers and constants; and a model that is left as it was found, at no cost of its size."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mupc.errors import TraceError
from mupc.trace import trace
from tests.trace.graphs import calls, count, faithful, reads


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


def test_a_tied_parameter_is_one_placeholder() -> None:
    found = faithful(Tied(), torch.tensor([[1, 2]]))
    assert found.tied == (("embed.weight", "head.weight"),)
    assert list(found.parameters) == ["embed.weight"]
    assert len(found.parameters["embed.weight"].users) == 2


def test_views_of_one_storage_are_tied_only_where_they_are_the_same_view() -> None:
    model = nn.Module()
    flat = torch.randn(8)
    model.a, model.b, model.c = nn.Parameter(flat[:4]), nn.Parameter(flat[4:]), nn.Parameter(flat[:4])
    model.forward = lambda x: x * model.a + model.b * model.c
    assert trace(model, (torch.zeros(4),)).tied == (("a", "c"),)


def test_a_shared_module_has_all_its_names() -> None:
    layer = nn.Linear(6, 6)
    found = faithful(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(2, 6))
    assert found.tied == (("0.weight", "2.weight"), ("0.bias", "2.bias"))
    assert count(found)["linear"] == 2


def test_buffers_and_plain_tensors() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.randn(6))
            self.register_buffer("passing", torch.randn(6), persistent=False)
            self.plain = torch.randn(6)
            self.listed = [torch.randn(6)]

        def forward(self, x: Tensor) -> Tensor:
            return x * self.kept + self.passing * self.plain + self.listed[0]

    found = faithful(Holds(), torch.randn(2, 6))
    assert set(found.buffers) == {"kept", "passing"}
    constants = [n.meta["name"] for n in found.graph.nodes if n.op == "placeholder" and n.meta["kind"] == "constant"]
    assert "plain" in constants and len(constants) == 2


def test_unused_parameters_are_said() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    assert faithful(Spare(), torch.randn(2, 4)).unused == ("spare.weight", "spare.bias")


class Restless(nn.Module):
    """Writes its buffers, its attributes and its containers in every forward."""

    def __init__(self, raises: bool = False) -> None:
        super().__init__()
        self.raises = raises
        self.steps = 0
        self.seen: list[Tensor] = []
        self.table: dict[str, Tensor] = {}
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("mean", torch.zeros(4))
        self.alias = self.layer.weight
        self.listed = [self.layer.weight]

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.latest = x
        y = self.norm(self.layer(x)) + self.alias.sum() + self.listed[0].mean()
        self.mean.add_(y.mean(0).detach())
        self.mean = self.mean * 2
        self.seen.append(y)
        self.table["y"] = y
        if self.raises:
            raise ValueError("no")
        return y


def _portrait(model: nn.Module) -> Any:
    def plain(value: Any) -> Any:
        return (id(value), value.clone()) if isinstance(value, Tensor) else copy.copy(value)

    return [
        (name, {k: plain(v) for held in (m.__dict__, m._parameters, m._buffers) for k, v in held.items()})
        for name, m in model.named_modules()
    ]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_model_in_memory_is_unchanged(raises: bool, training: bool) -> None:
    model = Restless(raises).train(training)
    model.layer.weight.grad = torch.ones(4, 4)
    handle = model.layer.register_forward_hook(lambda _m, _a, out: out + 1)
    x = torch.randn(2, 4)
    before = _portrait(model)
    if raises:
        with pytest.raises(TraceError, match=r"test_state.py:\d+: ValueError: no"):
            trace(model, (x,))
    else:
        found = trace(model, (x,))
        assert not found.unused
    assert _same(before, _portrait(model))
    assert model.layer.weight.grad is not None and len(model.layer._forward_hooks) == 1
    assert not nn.modules.module._global_forward_hooks and not nn.modules.module._global_forward_pre_hooks
    handle.remove()


def test_the_generator_is_left_where_it_was() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout()), torch.randn(2, 4)
    before = torch.get_rng_state()
    trace(model, (x,))
    assert torch.equal(before, torch.get_rng_state())


def test_hooks_of_the_user_are_kept_and_traced() -> None:
    layer = nn.Linear(4, 4)
    layer.register_forward_pre_hook(lambda _m, args: (args[0] * 2,))
    layer.register_forward_hook(lambda _m, _a, out: out.tanh())
    assert [str(n.target) for n in calls(faithful(layer, torch.randn(2, 4)))] == [
        "aten.mul.Tensor",
        "aten.linear.default",
        "aten.tanh.default",
    ]


def test_a_forward_set_on_the_instance_is_the_one_traced() -> None:
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: x @ layer.weight  # type: ignore[method-assign]
    found = trace(layer, (torch.randn(2, 4),))
    assert count(found) == {"matmul": 1} and found.unused == ("bias",)


def test_a_real_model_and_its_twin_on_meta_have_one_graph() -> None:
    real = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    twin = copy.deepcopy(real).to("meta")
    x = torch.randn(2, 3, 8, 8)
    assert str(trace(real, (x,)).graph) == str(trace(twin, (x.to("meta"),)).graph)


def test_lazy_parameters_are_refused_with_what_to_do() -> None:
    with pytest.raises(TraceError, match=r"weight: its shape is not known.*call the model once"):
        trace(nn.LazyLinear(4), (torch.randn(2, 4),))


PEAK = """
    import resource, sys, torch
    from torch import nn
    from mupc.trace import trace
    warm = nn.Sequential(*(nn.Linear(8, 8) for _ in range(8)))
    trace(warm, (torch.zeros(1, 8),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(11_585, 11_585) for _ in range(8)), nn.Embedding(8, 8))[:8]
    assert sum(p.numel() * 4 for p in model.parameters()) > 4_000_000_000
    x = torch.zeros(64, 11_585, device=sys.argv[1])
    found = trace(model, (x,))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert not found.unused
    print(grown)
"""


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_nothing_of_the_models_size_is_allocated(device: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK), device], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000  # kB


def test_a_real_model_is_not_copied() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight.data.fill_(float("nan"))
    found = trace(model, (torch.randn(2, 64),))
    assert all(n.meta["val"].is_meta for n in found.parameters.values())
    assert reads(found) >= {"0.weight", "1.weight"}
