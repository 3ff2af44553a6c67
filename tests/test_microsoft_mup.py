"""Where microsoft/mup can express a model, its groups are our exponents; where they differ, why ours are right.

mup 1.0.0 (https://github.com/microsoft/mup) works in Table 8's gauge: the readout's 1/fan_in is a multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mup
import pytest
import torch
from torch import Tensor, nn

import mupc

BASE, M = 32, 4
MAKERS = {"sgd": mup.MuSGD, "adam": mup.MuAdam, "adamw": mup.MuAdamW}


class MLP(nn.Module):
    def __init__(self, width: int, readout: type[nn.Module] = mup.MuReadout) -> None:
        super().__init__()
        self.enter, self.hidden = nn.Linear(10, width), nn.Linear(width, 3 * width)
        self.norm, self.back = nn.LayerNorm(3 * width), nn.Linear(3 * width, width)
        self.head = readout(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.hidden(torch.relu(self.enter(x)))))
        return self.head(torch.relu(self.back(h)))


class Conv(nn.Module):
    def __init__(self, width: int, readout: type[nn.Module] = mup.MuReadout) -> None:
        super().__init__()
        self.enter, self.deep = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(width), readout(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.deep(torch.relu(self.enter(x))))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int, readout: type[nn.Module] = mup.MuReadout) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Embedding(50, width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.head = nn.LayerNorm(width), readout(width, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (t.unflatten(-1, (-1, 8)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        return self.head(x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


INPUTS: dict[type[nn.Module], Callable[[], Tensor]] = {
    MLP: lambda: torch.zeros(2, 10),
    Conv: lambda: torch.zeros(2, 3, 8, 8),
    Attention: lambda: torch.zeros(2, 6, dtype=torch.long),
}


def based(make: Callable[[int], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make(BASE * M)
    mup.set_base_shapes(model, make(BASE), delta=make(2 * BASE))
    return model


def planned(make: Callable[[int], nn.Module], inputs: Tensor, optimizer: str, gauge: str = "table8") -> mupc.Plan:
    """From one plain model: no base shapes, no tags."""
    model = make(BASE * M)
    analysis = mupc.analyze(model, inputs)
    base = {d.name: d.size // M for d in analysis.dims if d.grows}
    return mupc.plan(analysis, base=base, optimizer=optimizer, gauge=gauge)


def groups(model: nn.Module, optimizer: str) -> dict[str, dict[str, float]]:
    """What mup sets, over what it was given."""
    made = MAKERS[optimizer](model.parameters(), lr=1.0, weight_decay=1.0)
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: {"lr": g["lr"], "decay": g["weight_decay"]} for g in made.param_groups for p in g["params"]}


@pytest.mark.parametrize("optimizer", MAKERS)
@pytest.mark.parametrize("kind", INPUTS)
def test_rates_are_its_groups(kind: type[nn.Module], optimizer: str) -> None:
    theirs = groups(based(kind), optimizer)
    plan = planned(lambda n: kind(n, nn.Linear), INPUTS[kind](), optimizer)
    assert set(theirs) == {p.name for p in plan.parameters}
    for name, group in theirs.items():
        ours = plan.parameter(name)
        assert ours.lr is not None and ours.weight_decay is not None
        assert ours.lr.scale == pytest.approx(group["lr"]), name
        if optimizer != "adam":  # whose coupled decay is below
            assert ours.weight_decay.scale == pytest.approx(group["decay"]), name


@pytest.mark.parametrize("kind", INPUTS)
def test_inits_are_its_inits(kind: type[nn.Module]) -> None:
    """mup rescales the readout to std 1, relative to the base, and leaves torch's 1/sqrt(fan_in) elsewhere."""
    small, large = kind(BASE), based(kind)
    plan = planned(lambda n: kind(n, nn.Linear), INPUTS[kind](), "adamw")
    ratios = {d.name: d.size / d.base for d in plan.dims}
    for name, tensor in large.named_parameters():
        ours = plan.parameter(name)
        if tensor.ndim > 1 and ours.init_std is not None:
            theirs = tensor.std().item() / dict(small.named_parameters())[name].std().item()
            assert ours.init_std.monomial.evaluate(ratios) == pytest.approx(theirs, rel=0.2), name
    head = plan.parameter("head.weight")
    assert head.multiplier is not None
    assert head.multiplier.value == 1 / M == 1 / large.head.width_mult()


# Where they differ.


def test_coupled_decay_under_adam() -> None:
    """MuAdam multiplies L2 by the width, as if Adam kept lr*decay. But L2 joins the gradient before it is normalised:
    to keep its share it goes as gradient over weight. benchmarks/decay_law.py measures both laws."""
    theirs, plan = groups(based(MLP), "adam"), planned(lambda n: MLP(n, nn.Linear), INPUTS[MLP](), "adam")
    ours = plan.parameter("hidden.weight").weight_decay
    assert theirs["hidden.weight"]["decay"] == M
    assert ours is not None and ours.scale == pytest.approx(M**-0.5)  # (1/n) / n^-1/2


def test_eps_is_left_behind() -> None:
    """Gradients of hidden weights shrink as 1/fan_out; an eps that does not is, at some width, all that is left."""
    made = mup.MuAdam(based(MLP).parameters(), lr=1.0, eps=1e-8)
    assert {g["eps"] for g in made.param_groups} == {1e-8}
    ours = planned(lambda n: MLP(n, nn.Linear), INPUTS[MLP](), "adam").parameter("hidden.weight").eps
    assert ours is not None and ours.scale == 1 / M


class Tied(nn.Module):
    def __init__(self, width: int, shared: bool = True) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(50, width), nn.Linear(width, width)
        self.head = mup.MuSharedReadout(self.embed.weight, bias=False) if shared else nn.Linear(width, 50, bias=False)
        if not shared:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.mix(x))


def test_a_tied_embedding_keeps_its_size() -> None:
    """Rescaling the shared readout by sqrt(width) rescales the embedding: its entries then grow with width, and the
    stream with them. A tied tensor is an input for init; only the readout's multiplier is its own."""
    ratio = based(Tied).embed.weight.std().item() / Tied(BASE).embed.weight.std().item()
    assert ratio == pytest.approx(math.sqrt(M), rel=0.1)
    ours = planned(lambda n: Tied(n, False), INPUTS[Attention](), "adamw").parameter("embed.weight")
    assert ours.init_std is not None and ours.init_std.exponent == {}
    assert [u.multiplier.value for u in ours.uses if u.multiplier] == [1 / M]


class Transposed(nn.Module):
    """A weight stored (in, out), as GPT-2's Conv1D: `inner` grows twice as fast as `width`."""

    def __init__(self, width: int, readout: type[nn.Module] = mup.MuReadout) -> None:
        super().__init__()
        inner = width * width // BASE
        self.enter, self.w = nn.Linear(10, width), nn.Parameter(torch.randn(width, inner) / math.sqrt(width))
        self.head = readout(inner, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(torch.relu(self.enter(x)) @ self.w))


def test_a_weight_stored_in_by_out() -> None:
    """mup takes the second axis for the fan-in. Here that is the fan-out: M^2 where the fan-in grows by M."""
    theirs = groups(based(Transposed), "adam")["w"]["lr"]
    model = Transposed(BASE * M, nn.Linear)
    analysis = mupc.analyze(model, torch.zeros(2, 10))
    base = {d.name: BASE for d in analysis.dims if d.grows}
    ours = mupc.plan(analysis, base=base, optimizer="adam").parameter("w").lr
    assert theirs == 1 / M**2
    assert ours is not None and ours.scale == 1 / M


class Experts(nn.Module):
    def __init__(self, width: int, experts: int, readout: type[nn.Module] = mup.MuReadout) -> None:
        super().__init__()
        self.embed, self.route = nn.Embedding(50, width), readout(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * width))
        self.down = nn.Parameter(torch.randn(experts, 2 * width, width))
        self.head = readout(width, 50)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        hidden = torch.relu(torch.einsum("btd,edf->btef", x, self.up))
        out = torch.einsum("btef,efd->bted", hidden, self.down)
        return self.head(x + (torch.softmax(self.route(x), -1).unsqueeze(-1) * out).sum(2))


def test_experts_that_grow_are_refused() -> None:
    """Three growing axes: mup has no rule. Ours are exponents of dims, so any number of them has one."""
    model = Experts(64, 8)
    mup.set_base_shapes(model, Experts(16, 2), delta=Experts(32, 4))
    with pytest.raises(NotImplementedError, match="more than 2 inf dimensions"):
        mup.MuAdam(model.parameters(), lr=1.0)
    analysis = mupc.analyze(Experts(64, 8, nn.Linear), INPUTS[Attention](), scaling=("d8",))
    assert analysis.parameters["up"].infinite == (True, True, True)
    found = mupc.plan(analysis, optimizer="adam").parameter("up").lr
    assert found is not None and found.exponent == {"d64": "-1"}


class ConvReadout(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.deep = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.deep(torch.relu(self.enter(x)))))


def test_a_convolution_that_reads_out() -> None:
    """mup's readout is a Linear: a convolution at the end passes for an input layer, rate 1 and no multiplier, and its
    output grows with width. By its use it is an output: 1/fan_in, in init and rate."""
    assert groups(based(ConvReadout), "adam")["head.weight"]["lr"] == 1
    ours = planned(ConvReadout, INPUTS[Conv](), "adam", gauge="fold").parameter("head.weight")
    assert ours.role == "output"
    assert ours.lr is not None and ours.lr.scale == 1 / M
