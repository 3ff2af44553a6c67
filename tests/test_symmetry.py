"""The abc-symmetry of every optimizer file, as training: multiplier t, tensor / t, settings by the file's powers of t.

t is a power of two, so every scaling is exact in floating point: where an optimizer is equivariant, no step of 20 may
differ in one bit. Torch's own optimizers where torch has them, pytorch_optimizer's for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch import Tensor, nn

from mupc.exponents import Symmetry
from mupc.rulebase import load_rules

Groups = list[dict[str, Any]]
TS = [(2.0, 1.0, 1.0), (1.0, 0.25, 1.0), (1.0, 1.0, 8.0), (0.5, 4.0, 2.0)]
FOURTH = [tuple(t**4 for t in ts) for ts in TS]  # roots of these are powers of two as well


class Net(nn.Module):
    """Two matrices and a bias, each read through a multiplier."""

    def __init__(self, multipliers: tuple[float, ...]) -> None:
        super().__init__()
        self.multipliers = multipliers
        draw = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=draw, dtype=torch.float64))

        self.w, self.b, self.v = drawn(8, 5), drawn(8), drawn(3, 8)
        with torch.no_grad():
            for parameter, t in zip(self.parameters(), multipliers, strict=True):
                parameter /= t

    def forward(self, x: Tensor) -> Tensor:
        w, b, v = (t * p for t, p in zip(self.multipliers, self.parameters(), strict=True))
        return torch.tanh(x @ w.T + b) @ v.T


class AdamAtan2(torch.optim.Optimizer):
    """Everett et al. 2024 (arXiv:2407.05872): atan2(m, sqrt v) in place of m / (sqrt v + eps), decay decoupled."""

    def __init__(self, groups: Groups, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            one, two = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                n = state["n"] = state.get("n", 0) + 1
                m = state.setdefault("m", torch.zeros_like(p)).lerp_(p.grad, 1 - one)
                v = state.setdefault("v", torch.zeros_like(p)).lerp_(p.grad.square(), 1 - two)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.atan2(m / (1 - one**n), (v / (1 - two**n)).sqrt()))


def sophia(groups: Groups, lr: float, rho: float, **kwargs: Any) -> torch.optim.Optimizer:
    """lr clip(m / max(rho h, eps), 1), which the library writes as lr/rho clip(m / max(h, eps/rho), rho)."""
    for group in groups:
        rate, clip = group.pop("lr"), group.pop("rho")
        decay, floor = group["weight_decay"] * clip, group["eps"] / clip
        group |= {"lr": rate / clip, "p": clip, "weight_decay": decay, "eps": floor}
    found: torch.optim.Optimizer = pytorch_optimizer.SophiaH(groups, lr=lr / rho, p=rho, **kwargs)
    return found


def lamb(groups: Groups, **kwargs: Any) -> torch.optim.Optimizer:
    """With the paper's decay, and without the library's clamp of the weight's norm at 10, which is in weight units."""
    found = pytorch_optimizer.Lamb(groups, weight_decouple=False, max_grad_norm=0.0, **kwargs)
    found.clamp = float("inf")
    step: torch.optim.Optimizer = found
    return step


def curvatures(loss: Tensor, net: nn.Module) -> list[Tensor]:
    """The Hessian's diagonal, exactly."""
    found = []
    for p in net.parameters():
        (grad,) = torch.autograd.grad(loss, p, create_graph=True)
        rows = [torch.autograd.grad(g, p, retain_graph=True)[0].flatten()[k] for k, g in enumerate(grad.flatten())]
        found.append(torch.stack(rows).view_as(p))
    return found


def adafactor(groups: Groups, eps2: float, **kwargs: Any) -> torch.optim.Optimizer:
    for group in groups:
        group["eps"] = (None, group.pop("eps2"))
    return torch.optim.Adafactor(groups, eps=(None, eps2), **kwargs)


def spectral(groups: Groups, **kwargs: Any) -> torch.optim.Optimizer:
    """torch's Muon with sqrt(rows/columns) in place of its sqrt(max(1, rows/columns))."""
    for group in groups:
        (matrix,) = group["params"]
        rows, columns = matrix.shape
        group["lr"] *= min(1.0, rows / columns) ** 0.5
    return torch.optim.Muon(groups, **kwargs)


@dataclass(frozen=True)
class Maker:
    """`settings` are those that the file's powers move; `fixed` the others. `matrices`: it steps no vector.

    `within`: the largest relative difference; 0 is bit for bit.
    """

    make: Callable[..., torch.optim.Optimizer]
    settings: dict[str, float]
    fixed: dict[str, Any] = field(default_factory=dict)
    matrices: bool = False
    within: float = 0.0
    scales: tuple[tuple[float, ...], ...] = tuple(TS)
    curvature: bool = False


ADAM = {"lr": 0.02, "eps": 1e-3, "weight_decay": 0.25}
MUON = {"lr": 0.02, "eps": 1e-3, "weight_decay": 0.25}
PO = pytorch_optimizer
MAKERS = {
    "sgd": Maker(torch.optim.SGD, {"lr": 0.05, "weight_decay": 0.25}, {"momentum": 0.75}),
    "adam": Maker(torch.optim.Adam, ADAM),
    "adamw": Maker(torch.optim.AdamW, ADAM),
    "nadam": Maker(torch.optim.NAdam, ADAM),
    "rmsprop": Maker(torch.optim.RMSprop, ADAM),
    "adagrad": Maker(torch.optim.Adagrad, {"lr": 0.05, "eps": 1e-3, "weight_decay": 0.25}),
    "adafactor": Maker(adafactor, {"lr": 0.05, "eps2": 0.5, "weight_decay": 0.25}),
    "lion": Maker(PO.Lion, {"lr": 0.01, "weight_decay": 0.25}),
    "lamb": Maker(lamb, {"lr": 0.02, "eps": 1e-12, "weight_decay": 0.25}, within=1e-6),
    "sophia": Maker(sophia, {"lr": 0.01, "rho": 0.05, "eps": 1e-3, "weight_decay": 0.25}, curvature=True),
    "adopt": Maker(PO.ADOPT, ADAM | {"eps": 0.1}, {"weight_decouple": True}),
    "adam_atan2": Maker(AdamAtan2, {"lr": 0.02, "weight_decay": 0.25}),
    "muon": Maker(torch.optim.Muon, MUON, {"momentum": 0.75}, matrices=True),
    "muon_moonshot": Maker(partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw"), MUON, matrices=True),
    "muon_spectral": Maker(spectral, MUON, matrices=True),
    "muonpp": Maker(spectral, MUON, matrices=True),
    "shampoo": Maker(
        PO.Shampoo, {"lr": 0.05, "matrix_eps": 1e-3, "weight_decay": 0.25}, {"weight_decouple": True},
        matrices=True, within=1e-6, scales=tuple(FOURTH),
    ),
    "soap": Maker(
        PO.SOAP, {"lr": 0.02, "eps": 1e-3, "weight_decay": 0.25}, {"precondition_frequency": 1},
        matrices=True, within=1e-6,
    ),
}  # fmt: skip
BROKEN = {"radam": Maker(torch.optim.RAdam, ADAM)}
NAMES = {"matrix_eps": "eps", "weight_decay": "decay"}


def powers(name: str, maker: Maker) -> dict[str, Fraction]:
    law = load_rules().optimizer(name).law()
    known = {"lr": law.lr, "eps": law.eps, "decay": law.decay, **law.others}
    return {knob: known[NAMES.get(knob, knob)] for knob in maker.settings}


def trained(maker: Maker, ts: tuple[float, ...], moved: dict[str, Fraction]) -> list[Tensor]:
    """Outputs over 20 steps in the gauge `ts`, the settings moved by these powers."""
    torch.manual_seed(0)
    net = Net(ts)
    stepped = [(p, t) for p, t in zip(net.parameters(), ts, strict=True) if p.ndim == 2 or not maker.matrices]
    groups = [
        {"params": [p], **{knob: value * t ** float(moved[knob]) for knob, value in maker.settings.items()}}
        for p, t in stepped
    ]
    optimizer = maker.make(groups, **maker.settings, **maker.fixed)
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = []
    for _ in range(20):
        optimizer.zero_grad()
        out = net(x)
        loss = (out - x[:, :3]).square().mean()
        step = partial(optimizer.step, hessian=curvatures(loss, net)) if maker.curvature else optimizer.step
        loss.backward()
        step()
        seen.append(out.detach())
    return seen


def furthest(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def test_every_optimizer_file_is_trained_here() -> None:
    assert {*MAKERS, *BROKEN} == set(load_rules().optimizers), "give a new optimizer's file a maker above"


@pytest.mark.parametrize(("name", "at"), product(MAKERS, range(len(TS))))
def test_symmetry_leaves_training_unchanged(name: str, at: int) -> None:
    maker = MAKERS[name]
    moved = powers(name, maker)
    plain = trained(maker, (1.0, 1.0, 1.0), moved)
    assert furthest(plain[:1], plain[-1:]) > 0.05, "nothing was trained"
    assert furthest(plain, trained(maker, maker.scales[at], moved)) <= maker.within


KNOBS = [(name, knob) for name, maker in MAKERS.items() for knob in maker.settings]
# These are floors of norms, too small to matter here.
SILENT = {
    ("lamb", "eps"),
    ("muon", "eps"),
    ("muon_moonshot", "eps"),
    ("muon_spectral", "eps"),
    ("muonpp", "eps"),
}  # floors of norms


@pytest.mark.parametrize(("name", "knob"), [k for k in KNOBS if k not in SILENT])
@pytest.mark.parametrize("off", [-1, 1])
def test_any_other_power_changes_training(name: str, knob: str, off: int) -> None:
    maker = MAKERS[name]
    moved = powers(name, maker)
    plain = trained(maker, (1.0, 1.0, 1.0), moved)
    other = trained(maker, maker.scales[3], moved | {knob: moved[knob] + off})
    assert furthest(plain, other) > max(1e-6, 10 * maker.within)


def test_radam_is_not_equivariant_before_it_is_rectified() -> None:
    """The documented exception: its first steps are momentum's, where lr/t^2 would be right and lr/t is not."""
    maker = BROKEN["radam"]
    moved = powers("radam", maker)
    plain, other = trained(maker, (1.0, 1.0, 1.0), moved), trained(maker, (0.5, 4.0, 2.0), moved)
    assert furthest(plain[:1], other[:1]) == 0
    assert furthest(plain[:3], other[:3]) > 1e-4


def test_symmetries_are_exact() -> None:
    for name in load_rules().optimizers:
        law: Symmetry = load_rules().optimizer(name).law()
        assert all(isinstance(power, Fraction) for power in (law.lr, law.eps, law.decay, *law.others.values()))
