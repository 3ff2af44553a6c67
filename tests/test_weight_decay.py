"""Weight decay as a rule of its own, and initializers as entries: golden rows, plans, sampling."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import mupc
from mupc.errors import MupcError
from mupc.initializers import FILLERS
from mupc.rulebase import Subject, load_rules

BASE = load_rules()
HIDDEN = Subject("hidden", fan_in=(("n",),), fan_out=("n",))
VECTOR = Subject("vector", batch=("n",))
OUTPUT = Subject("output", fan_in=(("n",),))
DECAYS = {  # of hidden, output and vector under mup and AdamW; None: not decayed
    "none": (None, None, None),
    "const": ("1", "1", "1"),
    "linear": ("n", "n", "1"),  # arXiv:2405.13698
    "sqrt": ("n^1/2", None, None),  # arXiv:2510.15262
    "independent": ("1", "1", "1"),  # arXiv:2512.05620, in torch's convention: (1/n)/lr
}
INITIALIZERS = {
    "normal", "truncated_normal", "uniform", "orthogonal", "laplace", "zeros",
    "s4d_lin", "s4d_inv", "s4d_legs", "s4d_real", "s4d_dt",
}  # fmt: skip


@pytest.mark.parametrize("name", DECAYS)
def test_laws(name: str) -> None:
    for subject, law in zip((HIDDEN, OUTPUT, VECTOR), DECAYS[name], strict=True):
        applied = BASE.apply("mup", "adamw", subject, name)
        assert (str(applied.setting.decay) if applied.decays else None) == law


def test_what_the_base_holds() -> None:
    """Deleting a file fails here."""
    assert set(BASE.weight_decays) == set(DECAYS)
    assert set(BASE.initializers) == INITIALIZERS


def test_a_law_is_stated_for_some_forms_of_decay() -> None:
    with pytest.raises(MupcError, match="decay sqrt is stated for decoupled decay; adam's is coupled"):
        BASE.apply("mup", "adam", HIDDEN, "sqrt")
    with pytest.raises(MupcError, match="no weight decay is called 'sqr'; did you mean sqrt"):
        BASE.apply("mup", "adamw", HIDDEN, "sqr")
    assert BASE.apply("mup", "adam", HIDDEN, "const").setting.decay.degree() == 0


def planned(**options: object) -> mupc.Plan:
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 4))
    analysis = mupc.analyze(model, torch.zeros(2, 8))
    base = {d.name: 16 for d in analysis.dims if d.grows}
    return mupc.plan(analysis, base=base, **options)


def scale(plan: mupc.Plan, name: str) -> float:
    found = plan.parameter(name).weight_decay
    assert found is not None
    return found.scale


def test_in_a_plan() -> None:
    plan = planned(weight_decay="sqrt")
    assert (scale(plan, "2.weight"), scale(plan, "4.weight"), scale(plan, "3.weight")) == (2, 0, 0)
    assert scale(planned(weight_decay="linear"), "2.weight") == scale(planned(), "2.weight") == 4
    assert mupc.Plan.from_json(plan.to_json()) == plan


def test_another_batch_and_length() -> None:
    assert scale(planned(weight_decay="linear", run={"batch": 2.0, "tokens": 8.0}), "2.weight") == 1
    assert scale(planned(weight_decay="sqrt", run={"batch": 2.0}), "2.weight") == 2
    with pytest.raises(MupcError, match="run: 'steps' is neither batch nor tokens"):
        planned(run={"steps": 2.0})


SAMPLED = [name for name, entry in BASE.initializers.items() if entry.kurtosis is not None]


@pytest.mark.parametrize("name", SAMPLED)
def test_an_initializers_kurtosis(name: str) -> None:
    entry = BASE.initializers[name]
    x = FILLERS[entry.distribution](
        torch.empty(1 << 20, dtype=torch.float64), 0.3, torch.Generator().manual_seed(2), **entry.knobs
    )
    assert x.pow(2).mean().sqrt().item() == pytest.approx(0.3, rel=5e-3)
    assert (x.pow(4).mean() / x.pow(2).mean() ** 2).item() == pytest.approx(entry.kurtosis, rel=0.03)
    assert math.isfinite(x.abs().max().item())
