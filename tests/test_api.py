"""The library as DESIGN.md writes it: `import mupc`, three names, any order."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

import mupc
from mupc.errors import MupcError


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def test_mupc_plan_is_callable_however_it_was_imported() -> None:
    code = """
import mupc, torch
from torch import nn
analysis = mupc.analyze(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), (torch.zeros(2, 8),))
first = mupc.plan(analysis)
from mupc.plan import Plan, make_plan
assert mupc.plan(analysis, optimizer="sgd") == make_plan(analysis, optimizer="sgd") != first
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_parameter_says_role_axes_growth_and_why() -> None:
    analysis = mupc.analyze(model(), args=(torch.zeros(2, 8),))
    roles = {name: p.role for name, p in analysis.parameters.items()}
    assert roles == {
        "0.weight": "input",
        "0.bias": "vector",
        "2.weight": "hidden",
        "2.bias": "vector",
        "4.weight": "output",
        "4.bias": "scalar",
    }
    hidden = analysis.parameters["2.weight"]
    assert hidden.infinite == (True, True)
    assert hidden.axes[1] == analysis.parameters["0.weight"].axes[0]
    assert any("hidden" in line for line in hidden.why)


def test_the_users_word_on_a_dim_stands() -> None:
    analysis = mupc.analyze(model(), args=(torch.zeros(2, 8),))
    (inner,) = analysis.parameters["2.weight"].axes[1]
    fixed = mupc.analyze(model(), args=(torch.zeros(2, 8),), fixed=[inner])
    assert fixed.parameters["2.weight"].role == "input"
    assert fixed.parameters["0.weight"].role == "scalar"
    with pytest.raises(MupcError, match="no dim is named 'widht'"):
        mupc.analyze(model(), args=(torch.zeros(2, 8),), scaling=["widht"])


def test_weights_on_a_device_are_neither_moved_nor_changed() -> None:
    real = model()
    before = {name: tensor.clone() for name, tensor in real.state_dict().items()}
    mupc.analyze(real, args=(torch.zeros(2, 8),))
    assert all(torch.equal(tensor, before[name]) for name, tensor in real.state_dict().items())
    assert all(p.device.type == "cpu" for p in real.parameters())


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda m: nn.DataParallel(torch.compile(m))])
def test_wrappers_are_looked_through(wrap: Callable[[nn.Module], nn.Module]) -> None:
    found = mupc.analyze(wrap(model()), args=(torch.zeros(2, 8),)).parameters
    assert {name: p.role for name, p in found.items() if name.endswith("weight")} == {
        "0.weight": "input",
        "2.weight": "hidden",
        "4.weight": "output",
    }


def test_what_is_no_module_is_said_to_be_none() -> None:
    with pytest.raises(MupcError, match=r"wants the torch\.nn\.Module itself, not a int"):
        mupc.analyze(3)  # type: ignore[arg-type]


def test_a_bare_tensor_is_one_argument() -> None:
    assert mupc.analyze(model(), torch.zeros(2, 8)).parameters["0.weight"].role == "input"
