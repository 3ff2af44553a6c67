"""A counterexample is one piece of mathematics in several spellings, and one table by hand that all of them meet."""

from __future__ import annotations

from typing import Any

from torch import nn

from mupc.analysis import Analysis, analyze
from tests.traps.roles_table import mismatches


def verdicts(model: nn.Module, inputs: Any, **settings: Any) -> Analysis:
    """The analysis; and the model is run on real numbers first, so that no spelling is nonsense."""
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    model(*args)
    return analyze(model, args, **settings)


def holds(model: nn.Module, inputs: Any, table: str, **settings: Any) -> Analysis:
    """Every parameter has a row, every row a parameter, and roles and growing axes are the table's."""
    found = verdicts(model, inputs, **settings)
    wrong = mismatches(found.parameters, table)
    assert not wrong, "\n".join(wrong)
    return found


def parts(analysis: Analysis, name: str, axis: int = 0) -> list[tuple[int, int, str]]:
    """The ranges of a fused axis, and the role of each."""
    return [(p.start, p.stop, p.role) for p in analysis.parameters[name].parts if p.axis == axis]
