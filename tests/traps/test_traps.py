"""One small model per trap: the role and the growing axes of every parameter, reasoned by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

import tests.traps.attention
import tests.traps.convs
import tests.traps.factors
import tests.traps.found
import tests.traps.library
import tests.traps.readouts
import tests.traps.review
import tests.traps.sizes
import tests.traps.sweep
import tests.traps.written  # noqa: F401
from tests.traps.roles_table import mismatches
from tests.traps.trap import TRAPS


def build(name: str) -> tuple[nn.Module, tuple, dict]:
    trap = TRAPS[name]
    with torch.device("meta"):
        model = trap.build()
    args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to("meta"), trap.inputs())
    return model.to("meta"), args, kwargs


@pytest.mark.parametrize("name", TRAPS)
def test_roles(name: str) -> None:
    from mupc.analysis import analyze

    model, args, kwargs = build(name)
    analysis = analyze(model, args, kwargs)
    assert mismatches(analysis.parameters, TRAPS[name].table) == []


@pytest.mark.parametrize("name", [name for name, trap in TRAPS.items() if trap.parts])
def test_parts(name: str) -> None:
    """Each fused axis is cut at the right places, and each range has its own role."""
    from mupc.analysis import analyze

    model, args, kwargs = build(name)
    analysis = analyze(model, args, kwargs)
    for parameter, (axis, expected) in TRAPS[name].parts.items():
        parts = [(p.start, p.stop, p.role) for p in analysis.parameters[parameter].parts if p.axis == axis]
        assert parts == expected


@pytest.mark.parametrize("name", TRAPS)
def test_runs(name: str) -> None:
    """The traps are models that run on real numbers."""
    model = TRAPS[name].build()
    args, kwargs = TRAPS[name].inputs()
    model(*args, **kwargs)
