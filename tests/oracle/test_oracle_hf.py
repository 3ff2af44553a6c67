"""transformers: growth against two widths, axes against the Jacobian, coverage over all."""

from __future__ import annotations

import pytest

from tests.oracle.cases_hf import CASES
from tests.oracle.checks import UNKNOWN_AT_MOST, jacobian_errors, reasons, tally, two_widths_errors, wrongly_unused


@pytest.mark.parametrize("name", CASES)
def test_two_widths(name: str) -> None:
    assert two_widths_errors(CASES[name]) == []


@pytest.mark.parametrize("name", CASES)
def test_jacobian(name: str) -> None:
    assert jacobian_errors(CASES[name]) == []


@pytest.mark.parametrize("name", CASES)
def test_names(name: str) -> None:
    """Dims that bear one name are one dim."""
    assert jacobian_errors(CASES[name], named=True) == []


@pytest.mark.parametrize("name", CASES)
def test_unused_reach_no_output(name: str) -> None:
    assert wrongly_unused(CASES[name]) == []


@pytest.mark.parametrize("name", CASES)
def test_unknowns_have_reasons(name: str) -> None:
    assert reasons(CASES[name]) == []


def test_unknown_at_most_one_percent() -> None:
    total, lost = tally(CASES)
    assert sum(map(len, lost.values())) <= UNKNOWN_AT_MOST * total, lost


def test_enough_model_types() -> None:
    assert len({name.partition("-")[0] for name in CASES}) >= 40
