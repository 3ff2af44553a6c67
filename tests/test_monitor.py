"""`mupc.Monitor` and the diagnostics it is made of."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mupc
from mupc.diagnostics import eps_share, equilibrium, spectral_scale, top_singular
from mupc.errors import MupcError


class Net(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.wte, self.hidden, self.norm = nn.Embedding(20, 16), nn.Linear(16, 16), nn.LayerNorm(16)
        self.experts = nn.Parameter(torch.randn(3, 16, 16) / 4)
        self.head = nn.Linear(16, 20, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.relu(self.hidden(self.wte(ids)))
        return self.head(self.norm(x + torch.einsum("bti,eio->bto", x, self.experts)))


IDS = torch.arange(24).reshape(3, 8) % 20


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten()).backward()
        optimizer.step()


def made(tied: bool = False, **options: Any) -> tuple[Net, mupc.Plan, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = Net(tied)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, **options)
    return model, mupc.plan(mupc.analyze(model, (IDS,))), optimizer


def test_singular_values_are_those_of_svd() -> None:
    torch.manual_seed(0)
    spikes = {
        f"m{i}": torch.randn(8 + i % 2, 12) + 4 * torch.randn(8 + i % 2, 1) @ torch.randn(1, 12) for i in range(5)
    }
    bank, kernel = torch.randn(3, 6, 6) + 9 * torch.ones(6, 6), torch.randn(4, 3, 2, 2) + 5
    found = top_singular({**spikes, "bank": bank, "kernel": kernel}, steps=50)
    for name, value in spikes.items():
        torch.testing.assert_close(found[name], torch.linalg.svdvals(value)[0])
    torch.testing.assert_close(found["bank"], torch.linalg.svdvals(bank).max())
    torch.testing.assert_close(found["kernel"], torch.linalg.svdvals(kernel.flatten(1))[0])


def test_spectral_scale_is_one_for_every_width_under_the_condition() -> None:
    assert spectral_scale((64 / 16) ** 0.5, (64, 16)) == pytest.approx(1.0)


def test_equilibrium_is_where_decay_leads() -> None:
    torch.manual_seed(0)
    w, lr, decay, size = torch.zeros(4096, dtype=torch.float64), 0.1, 0.5, 0.01
    for _ in range(400):
        w = (1 - lr * decay) * w - size * torch.randn(4096, dtype=torch.float64)
    expected = equilibrium(size, lr, decay)
    assert expected is not None
    assert float(w.pow(2).mean().sqrt()) == pytest.approx(expected, rel=0.05)
    assert equilibrium(size, lr, 0.0) is None


def test_share_of_entries_under_eps() -> None:
    v = torch.tensor([1e-20, 1e-20, 1.0, 1.0])
    assert float(eps_share(v, 1e-8)) == 0.5


def test_training_is_the_same_bit_for_bit() -> None:
    model, plan, optimizer = made()
    twin, _, other = made()
    with mupc.Monitor(model, plan, optimizer, interval=2):
        train(model, optimizer, 7)
    train(twin, other, 7)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_sample_says_what_happened() -> None:
    model, plan, optimizer = made()
    seen: list[tuple[int, dict[str, float]]] = []
    with mupc.Monitor(
        model, plan, optimizer, interval=2, sink=lambda step, sample: seen.append((step, sample))
    ) as monitor:
        train(model, optimizer, 2)
        before = model.hidden.weight.detach().clone()
        train(model, optimizer, 1)
    assert [step for step, _ in seen] == [0, 2]
    sample = monitor.history[-1]
    moved = (model.hidden.weight.detach() - before).pow(2).mean().sqrt() / before.pow(2).mean().sqrt()
    assert sample["update/hidden.weight"] == pytest.approx(float(moved), rel=1e-4)
    assert sample["weight/hidden.weight"] == pytest.approx(float(before.pow(2).mean().sqrt()), rel=1e-4)
    assert sample["sigma/hidden.weight"] <= float(torch.linalg.svdvals(before)[0]) * 1.0001
    assert sample["activation/hidden"] > 0
    assert {"grad/experts", "eps/experts", "equilibrium/experts", "sigma_update/experts"} <= sample.keys()


def test_eps_that_rules_is_said() -> None:
    model, plan, optimizer = made(eps=10.0)
    with mupc.Monitor(model, plan, optimizer, interval=1) as monitor:
        train(model, optimizer, 2)
    assert any("eps is larger" in line for line in monitor.warnings())
    model, plan, optimizer = made(eps=1e-12)
    with mupc.Monitor(model, plan, optimizer, interval=1) as monitor:
        train(model, optimizer, 2)
    assert not any("eps is larger" in line for line in monitor.warnings() if "hidden.weight" in line)


def test_tied_weights_and_copies_of_the_model() -> None:
    model, plan, optimizer = made(tied=True)
    twin = copy.deepcopy(model)
    with mupc.Monitor(model, plan, optimizer, interval=1) as monitor:
        train(model, optimizer, 1)
    assert "update/wte.weight" in monitor.history[-1]
    assert twin.state_dict().keys() == model.state_dict().keys()
    twin.load_state_dict(model.state_dict())


def test_close_leaves_nothing_behind() -> None:
    model, plan, optimizer = made()
    monitor = mupc.Monitor(model, plan, optimizer, interval=1)
    monitor.close()
    train(model, optimizer, 2)
    assert monitor.history == []
    assert not any(module._forward_hooks for module in model.modules())
    gone = weakref.ref(model)
    del model, optimizer, monitor
    gc.collect()
    assert gone() is None


def test_tensorboard_gets_scalars() -> None:
    class Writer:
        def __init__(self) -> None:
            self.seen: list[tuple[str, float, int]] = []

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.seen.append((tag, value, step))

    model, plan, optimizer = made()
    writer = Writer()
    with mupc.Monitor(model, plan, optimizer, interval=1, sink=writer):
        train(model, optimizer, 1)
    assert ("mupc/weight/norm.weight", 1.0, 0) in writer.seen


def test_a_plan_of_another_model_is_refused() -> None:
    _, plan, _ = made()
    other = nn.Linear(3, 3)
    with pytest.raises(MupcError, match="another model"):
        mupc.Monitor(other, plan, torch.optim.SGD(other.parameters(), lr=0.1))
    model, plan, optimizer = made()
    with pytest.raises(MupcError, match="interval"):
        mupc.Monitor(model, plan, optimizer, interval=0)
