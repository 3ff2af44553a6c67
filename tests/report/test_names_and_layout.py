"""Folding is exact, and no name is ever cut."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mupc.report.layout import table, wrapped
from mupc.report.names import folded


def spelled(name: str) -> list[str]:
    """The names that a folded one stands for."""
    choices = []
    for word in re.split(r"(\{[^}]*\})", name):
        if not word.startswith("{"):
            choices.append([word])
            continue
        ends = [run.split("..") for run in word[1:-1].split(",")]
        choices.append([str(n) for run in ends for n in range(int(run[0]), int(run[-1]) + 1)])
    return ["".join(words) for words in product(*choices)]


def names(*given: str) -> list[str]:
    return [f.name for f in folded((name, None) for name in given)]


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        (["h.0.q", "h.1.q", "h.2.q"], ["h.{0..2}.q"]),
        (["h.0.q"], ["h.0.q"]),
        (["h.0.q", "h.1.q", "h.5.q"], ["h.{0,1,5}.q"]),
        ([f"h.{i}.e.{j}.w" for i in range(2) for j in range(3)], ["h.{0..1}.e.{0..2}.w"]),
        (["s.0.b.0.w", "s.0.b.1.w", "s.1.b.0.w"], ["s.0.b.{0..1}.w", "s.1.b.0.w"]),
        (["h.0.q", "h.0.k", "h.1.q", "h.1.k"], ["h.{0..1}.q", "h.{0..1}.k"]),
        (["h.00.q", "h.0.q"], ["h.00.q", "h.0.q"]),
    ],
)
def test_folds(given_names: list[str], expected: list[str]) -> None:
    found = names(*given_names)
    assert [spelled(name) for name in found] == [spelled(name) for name in expected]


def test_what_is_shown_differently_is_not_folded() -> None:
    found = folded([("h.0.q", "a"), ("h.1.q", "b"), ("h.2.q", "a")])
    assert [(f.name, f.count, f.shown) for f in found] == [("h.{0,2}.q", 2, "a"), ("h.1.q", 1, "b")]


WORD = st.sampled_from(["h", "attn", "0", "1", "2", "3", "10", "01"])
NAMES = st.lists(st.lists(WORD, min_size=1, max_size=5).map(".".join), unique=True, max_size=40)


@given(NAMES)
def test_a_fold_spells_exactly_the_names_that_went_in(given_names: list[str]) -> None:
    found = folded((name, None) for name in given_names)
    assert sorted(n for f in found for n in spelled(f.name)) == sorted(given_names)
    assert all(len(spelled(f.name)) == f.count for f in found)


CELL = st.text("ab_.* ", max_size=40).map(str.strip)


@given(
    st.lists(st.tuples(st.text("ab._", min_size=1, max_size=70), CELL, CELL), min_size=1, max_size=5),
    st.integers(40, 120),
)
def test_a_table_keeps_every_word_at_every_width(rows: list[tuple[str, str, str]], width: int) -> None:
    head, lines = table(["parameter", "axes", "why"], [list(row) for row in rows], width)
    words = sorted(word for line in lines for word in line.split())
    assert words == sorted(word for row in rows for cell in row for word in cell.split())
    assert [word for line in head for word in line.split()] == ["parameter", "axes", "why"]


@given(st.lists(st.text("abc", min_size=1, max_size=12), max_size=30), st.integers(20, 80))
def test_wrapping_breaks_at_spaces_alone(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), width)
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) <= width for line in lines)
