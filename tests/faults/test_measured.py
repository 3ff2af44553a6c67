"""The planted mistakes, measured: the coordinate check fails where it can see them, and passes their right twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mupc.check.build import Options, check_built
from mupc.check.document import Check
from mupc.child import Job
from mupc.inputs import Inputs
from mupc.rulebase import load_rules
from tests.faults.cases import CASES
from tests.faults.models import INPUTS
from tests.faults.test_faults import built

QUICK = ("hidden_rate_unscaled", "embedding_rate_scaled", "readout_multiplier_twice", "sum_pool_over_width")
MEASURED = [name for name, case in CASES.items() if case.measured]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def measured(name: str, options: dict[str, Any]) -> Check:
    case = CASES[name]
    torch.manual_seed(0)
    given = Inputs((INPUTS[case.kind](),), {}, "given")
    asked = Options({"width": [64, 128, 256, 512]}, "linear", 5, 3, 1e-3, "adamw", None, fresh=True)
    job = Job(name, (), (), {}, case.fixed, case.scaling)
    return check_built(job, asked, built(case, options), load_rules(), given)


def seen(check: Check) -> list[str]:
    return [f"{r.name}: {r.measured}, predicted {r.predicted} ({r.verdict})" for r in check.rows]


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MEASURED])
def test_measured(name: str) -> None:
    case = CASES[name]
    wrong, right = measured(name, {**case.right, **case.fault}), measured(name, case.right)
    assert right.passed, seen(right)
    assert not wrong.healthy, seen(wrong)
