"""The text report: names folded exactly, nothing cut, and whole reports that a person can read in a diff."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mupc.analysis import analyze
from mupc.plan import Coverage, Exponent, Finding, Part, Plan, make_plan
from mupc.report import text
from mupc.report.layout import table, wrapped
from mupc.report.names import folded
from mupc.target import load_target

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ("nano_gpt", "llama", "ssm")


@cache
def plan_of(name: str) -> Plan:
    target = load_target(str(ROOT / "examples" / f"{name}.py"), (), ())
    return make_plan(analyze(target.model, target.args, target.kwargs, target=f"examples/{name}.py"))


def changed(plan: Plan, name: str, **update: object) -> Plan:
    entries = [p.model_copy(update=update) if p.name == name else p for p in plan.parameters]
    return plan.model_copy(update={"parameters": tuple(entries)})


# Names.


def names(*given: str) -> list[str]:
    return [f.name for f in folded((name, None) for name in given)]


def test_blocks_fold():
    assert names("h.0.q", "h.1.q", "h.2.q") == ["h.{0..2}.q"]
    assert names("a.q") == ["a.q"]
    assert names("h.0.q", "h.0.k", "h.1.q", "h.1.k") == ["h.{0..1}.q", "h.{0..1}.k"]
    assert names("h.0.q", "h.2.q", "h.3.q", "h.7.q") == ["h.{0,2..3,7}.q"]
    assert names(*(f"layers.{i}.experts.{j}.w" for i, j in product(range(3), range(2)))) == [
        "layers.{0..2}.experts.{0..1}.w"
    ]


def test_unequal_rows_stay_apart():
    assert names("s.0.b.0.w", "s.0.b.1.w", "s.1.b.0.w") == ["s.0.b.{0..1}.w", "s.1.b.0.w"]
    assert [f.name for f in folded([("h.0.q", 1), ("h.1.q", 2), ("h.2.q", 1)])] == ["h.{0,2}.q", "h.1.q"]
    assert names("h.00.q", "h.0.q") == ["h.00.q", "h.0.q"], "00 is a word, not a number"


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1))
def test_every_fold_is_exact(places):
    given_names = {f"a.{i}.b.{j}.w" for i, j in places}
    found = folded((name, None) for name in sorted(given_names))
    spelled = [name for f in found for name in unfold(f.name)]
    assert sorted(spelled) == sorted(given_names)
    assert sum(f.count for f in found) == len(given_names)


def unfold(name: str) -> list[str]:
    options = []
    for word in re.split(r"\.(?![^{]*\})", name):
        numbers = []
        for run in word.strip("{}").split(","):
            first, _, last = run.partition("..")
            numbers += [str(i) for i in range(int(first), int(last or first) + 1)] if first.isdigit() else [first]
        options.append(numbers)
    return [".".join(words) for words in product(*options)]


# Layout.

WORDS = st.text("abc.×", min_size=1, max_size=30)
CELLS = st.lists(WORDS, max_size=4).map(" ".join)


@given(st.lists(st.tuples(WORDS, CELLS, CELLS), min_size=1, max_size=5), st.integers(20, 100))
def test_a_table_cuts_nothing(rows, width):
    _, lines = table(["a", "b", "c"], [list(row) for row in rows], width)
    seen = " ".join(lines).split()
    assert sorted(seen) == sorted(word for row in rows for cell in row for word in cell.split())


@given(CELLS, st.integers(16, 60))
def test_wrapping_keeps_the_words_and_the_width(cell, width):
    lines = wrapped(cell, width)
    assert " ".join(lines).split() == cell.split()
    assert all(len(line) <= width or " " not in line for line in lines)


# Reports.


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, snapshot):
    assert text.render(plan_of(name), width=100) == snapshot


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", ["moe", "unet", *GOLDEN])
def test_every_name_is_whole_and_every_line_fits(name, width):
    plan = plan_of(name)
    report = text.render(plan, width=width)
    assert "…" not in report
    spelled = (
        {n for word in report.split() if "." in word for n in unfold(word)} if "{" in report else set(report.split())
    )
    assert not {p.name for p in plan.parameters if "." in p.name} - spelled
    longest = max(len(word) for word in report.split())
    assert max(map(len, report.splitlines())) <= max(width, longest + 30)


def test_no_colour_means_no_escape_and_the_same_words():
    plan = plan_of("nano_gpt")
    plain, colored = text.render(plan), text.render(plan, color=True)
    assert "\x1b" not in plain
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == plain


def test_verbose_says_why_where_and_by_which_source():
    plain, verbose = (text.render(plan_of("nano_gpt"), verbose=v) for v in (False, True))
    assert "nano_gpt.py:" not in plain
    assert re.search(r"hidden: linear at \S*nano_gpt\.py:\d+", verbose)
    assert "eps ~" in verbose and "eps ~" not in plain
    assert "h.{0..5}.mlp.c_fc.weight  hidden" in verbose, "blocks that are alike are explained once"
    assert verbose.count("arXiv:2203.03466") + verbose.count("arXiv:2310.17813") >= 1


def test_an_unknown_shows_its_reason_and_no_exponents():
    plan = plan_of("nano_gpt")
    nothing = dict.fromkeys(("init_std", "multiplier", "lr", "weight_decay", "eps", "clip_weight", "optimizer"))
    why = ("linear at x.py:3", "n_embd (width, unknown): a reshape that does not line up")
    plan = changed(plan, "ln_f.weight", role="unknown", why=why, **nothing)
    plan = plan.model_copy(update={"coverage": Coverage(classified=75, unknown=1, assumed_ops=("custom.op",))})
    report = text.render(plan)
    section = report[report.index("Unknown  not guessed  1 tensor") :]
    assert "ln_f.weight" in section
    assert "a reshape that does not line up" in " ".join(section.split())
    assert "Coverage: 75 of 76 tensors classified, 1 unknown" in report
    assert "Assumed: custom.op" in report


def test_what_is_tied_held_and_found_is_said():
    plan = plan_of("nano_gpt")
    finding = Finding(
        code="MUP201", severity="error", message="no 1/width", source="m.py:3", parameter="w", fix="scale it"
    )
    report = text.render(plan.model_copy(update={"findings": (finding,)}))
    assert "Tied: wte.weight = lm_head.weight" in report
    assert "n_embd^-1" in report[report.index("Tied:") :]
    assert "Held fixed: head_dim=64" in report
    assert "MUP201 error: m.py:3: w: no 1/width; scale it" in report
    assert "Findings: 1" in report
    assert "Findings: none" in text.render(plan)


def test_a_base_shows_sizes_and_factors():
    target = load_target(str(ROOT / "examples" / "mlp.py"), (), ())
    analysis = analyze(target.model, target.args, target.kwargs)
    growing = next(d for d in analysis.dims if d.grows)
    report = text.render(make_plan(analysis, base={growing.name: growing.size // 4}))
    assert re.search(rf"{growing.name}\S*\*\s+{growing.size}\s+{growing.size // 4}", report)
    assert "(x0.25)" in report and "(x0.5)" in report
    assert "(x" not in text.render(make_plan(analysis))


def test_parts_that_differ_are_listed():
    plan = plan_of("nano_gpt")
    parts = tuple(
        Part(axis=0, range=at, role=role, init_std=Exponent(exponent={"n_embd": power}))
        for at, role, power in (((0, 1000), "hidden", "-1/2"), ((1000, 1152), "output", "-1"))
    )
    report = text.render(changed(plan, "h.0.attn.c_attn.weight", parts=parts))
    assert "(1000+152)* × n_embd*" in report
    assert "[1000:1152] output, init std ~ n_embd^-1" in report
    assert "init std ~ by part" in report
