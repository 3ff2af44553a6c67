"""What both oracles say of one case, computed once; and the tally that coverage is judged by."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tests.oracle.jacobian import partition, partition_errors
from tests.oracle.two_widths import Case, growth, shapes, unknown, wrong

UNKNOWN_AT_MOST = 0.01  # of all tensors


@dataclass(frozen=True)
class Judged:
    """A model and its analysis."""

    model: nn.Module
    analysis: Any


@cache
def judge(case: Case) -> Judged:
    """Analyse a case at its base size."""
    from mupc.analysis import analyze

    config = case.base()
    model = case.meta(config)
    args, kwargs = case.call(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Judged(model, analyze(model, args, kwargs))


def two_widths_errors(case: Case) -> list[str]:
    """Axes that the analysis got wrong, by comparing shapes at two widths."""
    found = judge(case)
    base, wide = shapes(found.model), shapes(case.meta(case.wide()))
    return wrong(found.analysis.parameters, growth(base, wide, case.hard), base)


def jacobian_errors(case: Case, *, named: bool = False) -> list[str]:
    """Axes that the analysis's partition does not explain, by varying each integer alone."""
    found = judge(case)
    return partition_errors(case, found.model, partition(found.model, found.analysis, named=named))


def wrongly_unused(case: Case) -> list[str]:
    """Parameters called unused that a gradient reaches."""
    parameters = judge(case).analysis.parameters
    unused = {name for name, p in parameters.items() if p.role == "unused"}
    if not unused:
        return []
    config = case.base()
    model = case.build(config).eval()
    args, kwargs = case.call(config)
    outputs = tree_leaves(dict(out) if isinstance(out := model(*args, **kwargs), Mapping) else out)
    loss = sum(t.sum() for t in outputs if isinstance(t, torch.Tensor) and t.requires_grad)
    loss.backward()  # type: ignore[union-attr]
    return sorted(n for n, p in model.named_parameters(remove_duplicate=False) if p.grad is not None and n in unused)


def reasons(case: Case) -> list[str]:
    """Unknown parameters that carry no reason."""
    parameters = judge(case).analysis.parameters
    return [name for name in unknown(parameters) if not parameters[name].why]


def tally(cases: dict[str, Case]) -> tuple[int, dict[str, list[str]]]:
    """The number of tensors in all cases, and the unknown ones of each: all of them where the analysis fails."""
    total, lost = 0, {}
    for name, case in cases.items():
        try:
            found = judge(case)
        except Exception as error:  # counted, and reported by the case's own test
            names = list(shapes(case.meta(case.base())))
            total, lost[name] = total + len(names), [f"{type(error).__name__}: {error}", *names]
            continue
        total += len(found.analysis.parameters)
        if names := unknown(found.analysis.parameters):
            lost[name] = names
    return total, lost
