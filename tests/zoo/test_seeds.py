"""examples/zoo: each architecture has the roles written beside it, grows where it should, and trains."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from mupc.analysis import Analysis, analyze
from mupc.cli import run
from mupc.target.build import build as on_meta
from tests.oracle.two_widths import growth, shapes, wrong
from tests.traps.roles_table import mismatches

FOLDER = Path(__file__).parents[2] / "examples" / "zoo"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@cache
def load(name: str) -> ModuleType:
    """Import examples/zoo/NAME.py as a user's own file would be."""
    spec = importlib.util.spec_from_file_location(f"zoo_{name}", FOLDER / f"{name}.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(module: ModuleType) -> tuple[tuple[Any, ...], dict[str, Any]]:
    torch.manual_seed(0)
    given = module.example_inputs()
    if isinstance(given, dict):
        return (), given
    return (given if isinstance(given, tuple) else (given,)), {}


@cache
def analysis(name: str) -> Analysis:
    module = load(name)
    args, kwargs = call(module)
    return analyze(on_meta(module.build), args, kwargs)


def table(name: str) -> str:
    """Rows of whole parameters; rows of ranges (`name[axis start:stop] role`) are read by `parts`."""
    return "\n".join(line for line in _lines(name) if "[" not in line.split()[0])


def parts(name: str) -> list[tuple[str, int, int, int, str]]:
    """(parameter, axis, start, stop, role) of every row that is about a range."""
    found = []
    for line in _lines(name):
        if "[" in line.split()[0]:
            where, role = line.partition("#")[0].replace("]", " ").replace("[", " ").replace(":", " ").split()[:4], ""
            role = line.partition("#")[0].split("]")[1].split()[0]
            found.append((where[0], int(where[1]), int(where[2]), int(where[3]), role))
    return found


def _lines(name: str) -> list[str]:
    text = (FOLDER / f"{name}.roles").read_text()
    return [line for line in text.splitlines() if line.partition("#")[0].strip()]


def test_every_seed_has_its_file() -> None:
    assert len(NAMES) >= 23
    assert sorted(path.stem for path in FOLDER.glob("*.roles")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_roles(name: str) -> None:
    assert mismatches(analysis(name).parameters, table(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_parts(name: str) -> None:
    """Ranges of one tensor with roles of their own; every tensor whose parts differ in role must be written down."""
    expected = parts(name)
    found = {
        (p.name, part.axis, part.start, part.stop, part.role)
        for p in analysis(name).parameters.values()
        for part in p.parts
    }
    assert [row for row in expected if row not in found] == []
    mixed = {p.name for p in analysis(name).parameters.values() if len({part.role for part in p.parts}) > 1}
    assert mixed == {row[0] for row in expected}


@pytest.mark.parametrize("name", NAMES)
def test_two_widths(name: str) -> None:
    """What the table calls growing is what widens when the example is built at twice the width."""
    module = load(name)
    base, wide = shapes(on_meta(module.build)), shapes(on_meta(lambda: module.build(**module.WIDE)))
    assert base != wide
    assert wrong(analysis(name).parameters, growth(base, wide), base) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step(name: str) -> None:
    """One step of SGD on the example's own loss moves every trainable parameter that is used, and no frozen one."""
    module = load(name)
    torch.manual_seed(0)
    model: nn.Module = module.build()
    args, kwargs = call(module)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    module.loss(model, *args, **kwargs).backward()
    optimizer.step()
    still = {n for n, p in model.named_parameters() if torch.equal(p.detach(), before[n])}
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    zero = {n for n, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert frozen <= still
    idle = {n for n, p in analysis(name).parameters.items() if p.role == "unused"}
    assert still - frozen - zero <= idle, sorted(still - frozen - zero - idle)
    assert len(zero) <= len(before) // 3, sorted(zero)  # zero at initialization (LoRA's A, a zero readout's below)


@pytest.mark.parametrize("name", NAMES)
def test_from_the_command_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", f"{FOLDER / name}.py:build"]) == 0, capfd.readouterr().err
