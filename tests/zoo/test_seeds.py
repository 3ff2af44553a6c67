"""examples/zoo: each architecture has the roles written beside it, grows where it should, and trains.

NAME.py has `build`, `example_inputs`, `loss`, `WIDE` (the arguments of `build` that double its widths) and, where it
helps, `optimizers` (what trains it, each its share), `EQUAL` (arguments at which sizes of different dims coincide) and
`PLACES` (whole numbers that are no sizes).
NAME.roles has a row a pattern: `pattern role axes [sub-role]  # reason`, or `name[axis start:stop] role` for a range.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import sys
from collections import defaultdict
from fnmatch import fnmatchcase
from fractions import Fraction
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


def sub_roles(name: str) -> dict[str, str]:
    """The sub-role of every parameter whose row has a fourth field; `-` is none."""
    fields = [line.partition("#")[0].split() for line in table(name).splitlines()]
    first = {n: next((f for f in fields if fnmatchcase(n, f[0])), []) for n in analysis(name).parameters}
    return {n: found[3] for n, found in first.items() if len(found) > 3}


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
def test_sub_roles(name: str) -> None:
    found = {n: p.sub_role or "-" for n, p in analysis(name).parameters.items()}
    assert {n: found[n] for n in sub_roles(name)} == sub_roles(name)


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
    assert mixed <= {row[0] for row in expected}


@pytest.mark.parametrize("name", NAMES)
def test_two_widths(name: str) -> None:
    """What the table calls growing is what widens when the example is built at twice the width."""
    module = load(name)
    base, wide = shapes(on_meta(module.build)), shapes(on_meta(lambda: module.build(**module.WIDE)))
    assert base != wide
    assert wrong(analysis(name).parameters, growth(base, wide), base) == []


@pytest.mark.parametrize("name", NAMES)
def test_each_size_alone(name: str) -> None:
    """Whatever single size is doubled, axes that the analysis says are one dim grow by one factor; and no width among
    the sizes moves a dim that it holds fixed."""
    module = load(name)
    base = shapes(on_meta(module.build))
    for argument, size in sizes(module).items():
        moved = shapes(on_meta(functools.partial(module.build, **{argument: 2 * size})))
        if moved.keys() != base.keys():
            continue  # a number of layers
        factors: dict[str, set[Fraction]] = defaultdict(set)
        for n, p in analysis(name).parameters.items():
            for axis, dims in enumerate(p.axes):
                if len(dims) == 1:
                    factors[dims[0]].add(Fraction(moved[n][axis], base[n][axis]))
                assert not (argument in module.WIDE and p.infinite[axis] is False) or moved[n][axis] == base[n][axis]
        assert {dim: found for dim, found in factors.items() if len(found) > 1} == {}, argument


def sizes(module: ModuleType) -> dict[str, int]:
    """Every whole number that `build` takes, but those that say where something stands."""
    defaults = {n: p.default for n, p in inspect.signature(module.build).parameters.items()}
    return {n: s for n, s in defaults.items() if type(s) is int and n not in getattr(module, "PLACES", ())}


@pytest.mark.parametrize(("name", "equal"), [(n, e) for n in NAMES for e in getattr(load(n), "EQUAL", ())])
def test_sizes_that_coincide(name: str, equal: dict[str, int]) -> None:
    """Widths as large as each other, and as what is finite, change no verdict."""
    module = load(name)
    args, kwargs = call(module)
    found = analyze(on_meta(functools.partial(module.build, **equal)), args, kwargs)
    assert mismatches(found.parameters, table(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_training_step(name: str) -> None:
    """One step of SGD on the example's own loss moves every trainable parameter that is used, and nothing else."""
    module = load(name)
    model = fresh(module)
    idle = {n for n, p in analysis(name).parameters.items() if p.role == "unused"}
    expected = {n for n, p in model.named_parameters() if p.requires_grad and n not in idle}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    assert moved(module, model, optimizer) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(load(name), "optimizers")])
def test_its_own_optimizers(name: str) -> None:
    """Where an example has optimizers of its own, they share the trainable parameters out, each moving its share."""
    module = load(name)
    found: list[str] = []
    for index in range(len(module.optimizers(fresh(module)))):
        model = fresh(module)
        found += moved(module, model, module.optimizers(model)[index])
    assert sorted(found) == sorted(n for n, p in fresh(module).named_parameters() if p.requires_grad)


def fresh(module: ModuleType) -> nn.Module:
    torch.manual_seed(0)
    return module.build()  # type: ignore[no-any-return]


def moved(module: ModuleType, model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """The parameters that one step on the example's loss changes."""
    args, kwargs = call(module)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    module.loss(model, *args, **kwargs).backward()
    optimizer.step()
    return {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}


@pytest.mark.parametrize("name", NAMES)
def test_from_the_command_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """`mupc analyze examples/zoo/NAME.py` says the same of every parameter."""
    assert run(["analyze", str(FOLDER / f"{name}.py"), "--format", "json"]) == 0, capfd.readouterr().err
    said = {p["name"]: (p["role"], p["infinite"]) for p in json.loads(capfd.readouterr().out)["parameters"]}
    assert said == {n: (p.role, list(p.infinite)) for n, p in analysis(name).parameters.items() if n in said}
    assert len(said) == len(list(on_meta(load(name).build).parameters()))
