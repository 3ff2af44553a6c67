"""What wraps a computation: checkpoints, parametrizations, autocast, autograd functions, grad modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from mupc.trace import trace
from tests.trace.graphs import calls, count, faithful, reads


class Wrapped(nn.Module):
    """Two layers, the second under what is given."""

    def __init__(self, around: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.around = around
        self.a, self.b = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.around(self.b, self.a(x))


CHECKPOINTS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "reentrant": lambda b, x: checkpoint(b, x, use_reentrant=True),
    "not reentrant": lambda b, x: checkpoint(b, x, use_reentrant=False),
    "sequential": lambda b, x: checkpoint_sequential(b, 2, x, use_reentrant=False),
    "keyword": lambda b, x: checkpoint(lambda *, y: b(y), y=x, use_reentrant=False),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_changes_nothing(kind: str, training: bool) -> None:
    plain = trace(Wrapped(lambda b, x: b(x)), (torch.randn(2, 6),))
    found = faithful(Wrapped(CHECKPOINTS[kind]).train(training), torch.randn(2, 6))
    assert count(found) == count(plain)
    assert not found.unused
    assert [n.meta["module"] for n in calls(found)][:2] == ["a", "b.0"]


class Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).t()


def test_parametrize() -> None:
    layer = nn.Linear(6, 6)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    found = faithful(nn.Sequential(layer, nn.ReLU()), torch.randn(2, 6))
    assert "0.parametrizations.weight.original" in reads(found)
    assert count(found)["triu"] == 2


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, parametrizations.weight_norm], ids=["old", "new"])
def test_weight_norm(norm: Any) -> None:
    found = faithful(norm(nn.Linear(6, 4)), torch.randn(2, 6))
    assert len(found.parameters) == 3 and not found.unused
    assert count(found)["linear"] == 1


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, parametrizations.spectral_norm], ids=["old", "new"])
@pytest.mark.parametrize("training", [False, True])
def test_spectral_norm(norm: Any, training: bool) -> None:
    model = norm(nn.Linear(6, 4)).train(training)
    before = [b.clone() for b in model.buffers()]
    found = faithful(model, torch.randn(2, 6))
    assert not found.unused and len(found.buffers) == 2
    if not training:
        assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


@pytest.mark.filterwarnings("ignore:.*orthogonal.*")
def test_orthogonal() -> None:
    found = trace(parametrizations.orthogonal(nn.Linear(6, 6)), (torch.randn(2, 6),))
    assert not found.unused


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_autocast_is_written_as_casts(device: str) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast(device, dtype=torch.bfloat16):
                y = self.a(x)
                with torch.autocast(device, enabled=False):
                    return self.norm(y.float())

    found = trace(Cast(), (torch.randn(2, 6),))
    assert count(found)["linear"] == 1 and not found.unused


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class Apart(torch.autograd.Function):
    """With `setup_context`, several results, and a written argument."""

    @staticmethod
    def forward(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return x.sin() * scale, x.cos()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


@pytest.mark.parametrize("training", [False, True])
def test_autograd_functions(training: bool) -> None:
    def around(b: nn.Module, x: Tensor) -> Tensor:
        s, c = Apart.apply(Square.apply(b(x)), 2.0)
        return s + c

    found = faithful(Wrapped(around).train(training), torch.randn(2, 6))
    assert {"a.weight", "b.0.weight"} <= reads(found)
    assert count(found)["sin"] == count(found)["cos"] == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_grad_modes(mode: Any) -> None:
    def around(b: nn.Module, x: Tensor) -> Tensor:
        with mode():
            y = b(x)
        return x + y.detach()

    assert not faithful(Wrapped(around), torch.randn(2, 6)).unused


def test_a_gradient_inside_the_forward() -> None:
    """An energy model's force: the forward differentiates."""

    def around(b: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(b(x).sum(), x, create_graph=True)[0]

    found = trace(Wrapped(around), (torch.randn(2, 6),))
    assert {"b.0.weight", "b.2.weight"} <= reads(found)


def test_functional_transforms() -> None:
    def around(b: nn.Module, x: Tensor) -> Tensor:
        return torch.vmap(b)(x)

    found = trace(Wrapped(around), (torch.randn(2, 6),))
    assert not found.unused


def test_compiled_models_are_traced_as_they_were_written() -> None:
    model = torch.compile(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    assert count(trace(model, (torch.randn(2, 6),))) == {"linear": 1, "relu": 1}
