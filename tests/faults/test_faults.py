"""Each planted mistake is named at its line, and its right twin raises nothing."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from mupc.analysis import analyze
from mupc.flow.findings import Told
from mupc.flow.target import stand
from mupc.rulebase import load_rules
from mupc.target.load import Built, Target
from tests.faults.cases import CASES, Case
from tests.faults.models import INPUTS, Looped, set_up

WIDTH = 64


def built(case: Case, options: dict[str, Any]) -> Built:
    def pair(changes: Mapping[str, Any]) -> tuple[nn.Module, object]:
        sizes = {"n_loops": int(changes.get("n_loops", 2))} if case.kind is Looped else {}
        return set_up(case.kind, int(changes.get("width", WIDTH)), sizes=sizes, **options)

    model, optimizer = pair({})
    fields = {"width": WIDTH, **({"n_loops": 2} if case.kind is Looped else {})}
    return Built(model, lambda changes: pair(changes)[0], optimizer, pair=pair, fields=fields)


def told(case: Case, options: dict[str, Any]) -> Told:
    torch.manual_seed(0)
    target = built(case, options)
    args = (INPUTS[case.kind](),)
    analysis = analyze(target.model, args, fixed=case.fixed, scaling=case.scaling)
    whole = Target("model", target.model, args, {}, "given", target.optimizer, target.make, {}, target)
    found = stand(whole, analysis, load_rules(), "adamw", declared=True, fixed=case.fixed, scaling=case.scaling)
    assert found.standing is not None, found.why
    return found


@pytest.mark.parametrize("name", CASES)
def test_fault_is_named_at_its_line(name: str) -> None:
    case = CASES[name]
    options = {**case.right, **case.fault}
    found = told(case, options)
    hits = [f for f in found.findings if f.code == case.said and (not case.parameter or f.parameter == case.parameter)]
    assert hits, found.findings
    if case.line:
        lines = [linecache.getline(*_place(f.source)) for f in hits if f.source]
        assert any(case.line in line for line in lines), lines


@pytest.mark.parametrize("name", CASES)
def test_right_twin_raises_nothing(name: str) -> None:
    case = CASES[name]
    assert [f for f in told(case, case.right).findings if f.severity != "info"] == []


def _place(source: str) -> tuple[str, int]:
    file, _, line = source.rpartition(":")
    return file, int(line)
