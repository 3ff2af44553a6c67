"""Initializers: entries have the standard deviation asked for, and a reset model has the plan's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import mupc
from mupc.errors import MupcError
from mupc.initializers import (
    FILLERS,
    generalized_gaussian_,
    normal_,
    orthogonal_,
    reset,
    s4d_,
    s4d_dt_,
    truncated_normal_,
)

STD = 0.37
N = 1 << 20


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def draws(name: str, **knobs: float) -> Tensor:
    return FILLERS[name](torch.empty(1024, N // 1024, dtype=torch.float64), STD, seeded(), **knobs)


@pytest.mark.parametrize("name", ["normal", "truncated_normal", "uniform", "orthogonal", "generalized_gaussian"])
def test_the_std_is_the_one_asked_for(name: str) -> None:
    x = draws(name)
    error = 5 * math.sqrt(x.pow(4).mean().div(x.pow(2).mean() ** 2).sub(1).item() / N)  # 5 sigma of a sample's variance
    assert x.pow(2).mean().item() == pytest.approx(STD**2, rel=error)
    assert abs(x.mean().item()) < 5 * STD / math.sqrt(N)


@pytest.mark.parametrize("cut", [0.5, 1.0, 2.0, 3.0])
def test_a_cut_does_not_shrink_it(cut: float) -> None:
    x = draws("truncated_normal", cut=cut)
    assert x.std().item() == pytest.approx(STD, rel=5e-3)
    assert torch.nn.init.trunc_normal_(torch.empty(N), 0, STD, -cut * STD, cut * STD).std() < 0.995 * STD


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 4.0])
def test_generalized_gaussian_has_its_kurtosis(shape: float) -> None:
    """E w^4 / (E w^2)^2 = Gamma(5/nu) Gamma(1/nu) / Gamma(3/nu)^2."""
    x = draws("generalized_gaussian", shape=shape)
    kurtosis = math.gamma(5 / shape) * math.gamma(1 / shape) / math.gamma(3 / shape) ** 2
    assert x.pow(2).mean().sqrt().item() == pytest.approx(STD, rel=2e-2)
    assert (x.pow(4).mean() / x.pow(2).mean() ** 2).item() == pytest.approx(kurtosis, rel=0.1)


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64), (32, 16, 3, 3)])
def test_orthogonal_is_exact(shape: tuple[int, ...]) -> None:
    w = orthogonal_(torch.empty(shape, dtype=torch.float64), STD, seeded())
    assert w.pow(2).mean().sqrt().item() == pytest.approx(STD, rel=1e-12)
    values = torch.linalg.svdvals(w.flatten(1))
    assert values.max().item() == pytest.approx(values.min().item(), rel=1e-12)


def test_draws_are_the_generators() -> None:
    for fill in FILLERS.values():
        assert torch.equal(fill(torch.empty(4, 6), STD, seeded()), fill(torch.empty(4, 6), STD, seeded()))


@pytest.mark.parametrize(("fill", "knobs"), [(truncated_normal_, {"cut": 0.0}), (generalized_gaussian_, {"shape": -1})])
def test_bad_knobs(fill, knobs) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        fill(torch.empty(4, 4), STD, **knobs)


# S4D (arXiv:2206.11893).


def test_s4d_lin_inv_real() -> None:
    real, imag = torch.empty(3, 4), torch.empty(3, 4)
    s4d_(real, imag, "lin")
    assert torch.allclose(-real.exp(), torch.full((3, 4), -0.5))
    assert torch.allclose(imag[0], math.pi * torch.arange(4.0))
    s4d_(real, imag, "inv")
    assert torch.allclose(imag[2], 8 / math.pi * (8 / (2 * torch.arange(4.0) + 1) - 1))
    s4d_(real, None, "real")
    assert torch.allclose(-real.exp()[1], torch.tensor([-1.0, -2.0, -3.0, -4.0]))


def test_s4d_legs_are_eigenvalues_of_the_normal_part() -> None:
    half = 8
    real, imag = torch.empty(1, half, dtype=torch.float64), torch.empty(1, half, dtype=torch.float64)
    s4d_(real, imag, "legs")
    n = torch.arange(2.0 * half, dtype=torch.float64)
    hippo = torch.zeros(2 * half, 2 * half, dtype=torch.float64)
    for i in range(2 * half):
        for j in range(i):
            hippo[i, j] = -math.sqrt((2 * i + 1) * (2 * j + 1))
        hippo[i, i] = -(i + 1)
    normal = hippo + torch.outer((n + 0.5).sqrt(), (n + 0.5).sqrt())
    found = torch.linalg.eigvals(normal)
    positive = found[found.imag > 0]
    assert torch.allclose(positive.real, torch.full((half,), -0.5, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(positive.imag.sort().values, imag[0], atol=1e-8)


def test_s4d_refuses() -> None:
    with pytest.raises(ValueError, match="lin, inv, legs, real"):
        s4d_(torch.empty(2, 4), torch.empty(2, 4), "hippo")
    with pytest.raises(ValueError, match="missing"):
        s4d_(torch.empty(2, 4), None, "lin")
    with pytest.raises(ValueError, match="low < high"):
        s4d_dt_(torch.empty(8), 0.1, 0.01)


def test_s4d_step_sizes() -> None:
    dt = s4d_dt_(torch.empty(4096), generator=seeded()).exp()
    assert 1e-3 <= dt.min() < 2e-3 < 5e-2 < dt.max() <= 1e-1
    assert dt.log().std().item() == pytest.approx(math.log(100) / math.sqrt(12), rel=0.05)


# A model and its plan.


class Net(nn.Module):
    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(50, width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (t.unflatten(-1, (-1, 32)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(x)


def planned(width: int = 256) -> tuple[Net, mupc.Plan]:
    model = Net(width)
    analysis = mupc.analyze(model, (torch.zeros(2, 5, dtype=torch.long),))
    return model, mupc.plan(analysis, base={"d256": 64})


@pytest.mark.parametrize("name", ["normal", "truncated_normal", "uniform", "orthogonal", "generalized_gaussian"])
def test_reset_gives_the_plans_std(name: str) -> None:
    model, plan = planned()
    gain = model.norm.weight.clone()
    reset(model, plan, name, generator=seeded())
    for tensor, parameter in ((model.embed.weight, "embed.weight"), (model.head.weight, "head.weight")):
        wanted = plan.parameter(parameter).init_std
        assert wanted is not None and wanted.value is not None
        assert tensor.std().item() == pytest.approx(wanted.value, rel=0.05)
    assert model.head.weight.std().item() == pytest.approx(64**-0.5 / 4, rel=0.05)  # at base 1/sqrt(n)
    assert model.qkv.weight.std().item() == pytest.approx(64**-0.5 / 2, rel=0.02)
    assert torch.equal(model.norm.weight, gain)


def test_reset_to_zero() -> None:
    model, plan = planned()
    reset(model, plan, zero=("output",))
    assert not model.head.weight.any()
    assert model.out.weight.any()


def test_reset_refuses_another_model() -> None:
    _, plan = planned()
    with pytest.raises(MupcError, match=r"another model: it has embed.weight \[50, 256\], the model has shape"):
        reset(Net(128), plan)
    with pytest.raises(MupcError, match="no initializer is called 'gauss'; there are normal"):
        reset(planned()[0], plan, "gauss")


def test_reset_takes_a_function() -> None:
    model, plan = planned()
    reset(model, plan, lambda t, std, g: normal_(t, 2 * std, g))
    assert model.out.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
