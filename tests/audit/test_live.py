"""What a set-up does is read from its live state, whatever form that has."""

from __future__ import annotations

from pathlib import Path

import pytest

from mupc.cli import run as cli
from mupc.errors import MupcError
from tests.audit.test_audit import audit, off

FILE = str(Path(__file__).parent / "live.py")


@pytest.mark.parametrize(
    "name", ["tagged", "tagged_with_bias", "by_hand", "on_query", "whole", "decoupled_of_model", "like_adamw"]
)
def test_right_set_ups(name: str) -> None:
    found = audit(name, file=FILE)
    assert off(found) == {}
    assert any(h.what == "lr" and h.verdict == "ok" for row in found.rows for h in row.held)


@pytest.mark.parametrize("name", ["by_hand_over_root", "on_key_over_root", "whole_over_root"])
def test_scores_over_a_root_of_what_grows(name: str) -> None:
    """1/sqrt(d) where d is four times as large: twice too much, written out or not; heads did not grow."""
    found = audit(name, file=FILE)
    assert list(off(found).values()) == [2.0]
    assert any("growing in place of" in note for note in found.notes)


def test_attention_in_the_model_itself_has_a_name_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["audit", f"{FILE}:by_hand_over_root", "width=256", "--base", "width=64"]) == 1
    assert "(model)" in capsys.readouterr().out


def test_a_warm_up_from_zero_is_one_rate() -> None:
    """The schedule may stand beside the optimizer; the rate is that which it warms up to."""
    assert off(audit("warming", file=FILE))["blocks.0.up.weight", "lr"] == 4.0


def test_a_rate_of_zero_says_nothing() -> None:
    found = audit("zero_rate", file=FILE)
    rates = [h for row in found.rows for h in row.held if h.what == "lr"]
    assert rates
    assert {(h.verdict, h.note) for h in rates} == {("unknown", "a rate of zero")}


def test_an_optimizer_of_another_model_steps_nothing() -> None:
    found = audit("decoupled", file=FILE)
    assert {h.note for row in found.rows for h in row.off} == {"no optimizer steps it"}


def test_a_configuration_that_makes_no_optimizer_is_refused() -> None:
    with pytest.raises(MupcError, match="--optimizer-config: nothing returned a str, which steps nothing"):
        audit("tagged", file=FILE, optimizer_config=f"{FILE}:nothing")
