"""The plan as a document and as a computation: names, bases, parts, uses, silence about what is not known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mupc.analysis import analyze
from mupc.errors import MupcError
from mupc.exponents import Monomial
from mupc.plan import Plan, make_plan
from mupc.roles import Dim, Parameter, Part, Roles, Use
from mupc.rulebase import load_rules

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Analysed:
    """An analysis by hand: what a plan needs, and no tracing."""

    roles: Roles
    depth: int | None = None
    target: str = "model.py"
    guesses: tuple[str, ...] = ()
    coverage: dict[str, Any] = field(
        default_factory=lambda: {"classified": 1, "unknown": 0, "assumed_ops": [], "literals": {}}
    )


def dim(name: str, size: int, kind: str = "width", grows: bool | None = True) -> Dim:
    return Dim(name, size, kind, grows, f"as {kind}")


N, FF, HEADS = dim("n", 64), dim("ff", 256), dim("heads", 4, "heads")
HEAD_DIM, VOCAB, RANK, ODD = (
    dim("head_dim", 16, "inner", False),
    dim("vocab", 100, "lookup", False),
    dim("rank", 8, "rank", False),
    dim("odd", 7, "width", None),
)
FUSED, MIXED = dim("fused", 192), dim("mixed", 72)


def parameter(name: str, role: str, axes: str, words: str, **more: Any) -> Parameter:
    """`parameter("up", "hidden", "ff n", "out in")`: an axis may be `heads.head_dim`."""
    table = {d.name: d for d in (N, FF, HEADS, HEAD_DIM, VOCAB, RANK, ODD, FUSED, MIXED)}
    named = tuple(tuple(axis.split(".")) for axis in axes.split())
    shape = tuple(_size([table[d] for d in axis]) for axis in named)
    sides = {"in": [], "out": [], "batch": []}
    for word, axis in zip(words.split(), named, strict=True):
        if word in sides:
            sides[word] += [d for d in axis if table[d].grows]
    made = sides["out"] + (sides["batch"] if role == "vector" else [])
    said = words.split()
    facts: dict[str, Any] = {
        "sub_role": None,
        "parts": (),
        "uses": (Use(name, "linear", "", "model.py:1", tuple(said), role),),
        "fan_in": tuple(sides["in"]),
        "fan_out": tuple(made),
        "fan_in_size": _prod(n for word, n in zip(said, shape, strict=True) if word in ("in", "kernel")),
        "fan_out_size": 1,
        "residual_branch": False,
        "why": (f"{role}: said so",),
        "source": "model.py:1",
    }
    infinite = tuple(
        None if any(table[d].grows is None for d in axis) else any(table[d].grows for d in axis) for axis in named
    )
    return Parameter(name=name, shape=shape, axes=named, infinite=infinite, role=role, **facts | more)


def _prod(sizes: Any) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out


def _size(dims: list[Dim]) -> int:
    return _prod(d.size for d in dims)


def analysed(*parameters: Parameter, tied: tuple[tuple[str, ...], ...] = (), **more: Any) -> Analysed:
    table = (N, FF, HEADS, HEAD_DIM, VOCAB, RANK, ODD, FUSED, MIXED)
    used = {d for p in parameters for axis in p.axes for d in axis}
    used |= {d for p in parameters for q in p.parts for d in (*q.fan_in, *q.fan_out)}
    roles = Roles(tuple(d for d in table if d.name in used), {p.name: p for p in parameters}, tied, ())
    return Analysed(roles, **more)


EMBED = parameter("embed", "input", "vocab n", "lookup out")
UP = parameter("up", "hidden", "ff n", "out in")
OUT = parameter("out", "hidden", "n heads.head_dim", "out in")
HEAD = parameter("head", "output", "vocab n", "out in")
GAIN = parameter("gain", "vector", "n", "batch")
MODEL = analysed(EMBED, UP, OUT, HEAD, GAIN)


# The document.

NAMES = {
    "": "schema_version model coverage dims parametrization optimizer hardware gauge parameters activations findings",
    "model": "target parameters tensors tied",
    "coverage": "classified unknown assumed_ops literals",
    "dims": "name size base kind grows why",
    "parameters": "name shape axes infinite role sub_role parts uses fan_in fan_out residual_branch "
    "init_std multiplier lr weight_decay eps clip_weight optimizer why source",
    "parameters.parts": "axis range role init_std",
    "parameters.init_std": "exponent value",
    "parameters.lr": "exponent scale",
}


@pytest.mark.parametrize("place", NAMES)
def test_the_json_has_exactly_the_names_of_design_section_8(place):
    found: Any = json.loads(make_plan(analysed(QKV)).to_json())
    for key in place.split(".") if place else ():
        found = found[key]
        found = found[0] if isinstance(found, list) else found
    assert list(found) == NAMES[place].split()


def test_json_round_trip_and_the_same_bytes():
    plan = make_plan(MODEL, base={"n": 16})
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    assert Plan.from_json(text).to_json() == text == make_plan(MODEL, base={"n": 16}).to_json()
    with pytest.raises(ValidationError):
        Plan.from_json(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ValidationError):
        Plan.from_json(text.replace('"gauge"', '"guage"'))


def test_the_command_says_the_same_bytes_whatever_the_hash_seed():
    def run(seed: str) -> bytes:
        command = [sys.executable, "-m", "mupc", "analyze", "examples/mlp.py", "--format", "json"]
        env = {"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True).stdout

    assert run("1") == run("2") != b""


# Bases.


def test_without_a_base_every_factor_is_1():
    for p in make_plan(MODEL).parameters:
        assert (p.lr.scale, p.weight_decay.scale, p.eps.scale, p.clip_weight.scale, p.multiplier.value) == (1,) * 5


def test_at_the_base_every_init_is_the_plain_recipe():
    plan = make_plan(MODEL)
    assert {p.name: p.init_std.value for p in plan.parameters} == {
        "embed": 1.0,
        "up": 64**-0.5,
        "out": 64**-0.5,
        "head": 64**-0.5,
        "gain": None,
    }


def test_a_base_scales_what_grows():
    plan = make_plan(MODEL, base={"n": 16, "ff": 64, "heads": 2})
    up, out, head = (plan.parameter(name) for name in ("up", "out", "head"))
    assert (up.lr.exponent, up.lr.scale) == ({"n": "-1"}, 1 / 4)
    assert (up.weight_decay.scale, up.init_std.value) == (4, 64**-0.5)
    assert (out.lr.exponent, out.lr.scale) == ({"heads": "-1"}, 1 / 2)
    assert head.init_std.value == pytest.approx(16**-0.5 / 4)
    assert plan.parameter("gain").lr.scale == 1
    assert [(d.name, d.base) for d in plan.dims] == [
        ("n", 16),
        ("ff", 64),
        ("heads", 2),
        ("head_dim", 16),
        ("vocab", 100),
    ]


def test_a_base_for_one_dim_sets_the_others_in_proportion_and_says_so():
    plan = make_plan(MODEL, base={"n": 16})
    by_name = {d.name: d for d in plan.dims}
    assert [by_name[name].base for name in ("n", "ff", "heads", "head_dim", "vocab")] == [16, 64, 1, 16, 100]
    assert "in proportion" in by_name["ff"].why
    assert "in proportion" not in by_name["n"].why
    assert "in proportion" not in by_name["head_dim"].why
    two = {d.name: d.base for d in make_plan(MODEL, base={"n": 16, "ff": 256}).dims}
    assert two["heads"] == 2  # the geometric mean of 1/4 and 1


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"head_dim": 8}, "base: head_dim does not grow; dims that grow: n, ff, heads"),
        ({"widht": 8}, "base: widht is no dim of this model; dims that grow: n, ff, heads"),
        ({"n": 0}, "base: n must be at least 1, not 0"),
        ({"depth": 2}, "base: depth does not grow"),
    ],
)
def test_a_wrong_base_names_the_dims_that_grow(base, message):
    with pytest.raises(MupcError) as caught:
        make_plan(analysed(EMBED, UP, OUT, depth=4), base=base)
    assert message in str(caught.value)


def test_unknown_choices_are_errors_even_where_nothing_needs_them():
    for choice in ({"parametrization": "mupp"}, {"optimizer": "adma"}, {"gauge": "table7"}):
        with pytest.raises(MupcError, match=next(iter(choice.values()))):
            make_plan(analysed(), **choice)


# Roles and laws.


def test_exponents_are_the_rules():
    for optimizer, lr in (("adamw", "n^-1"), ("sgd", "ff * n^-1")):
        up = make_plan(MODEL, optimizer=optimizer).parameter("up")
        assert Monomial.from_json(up.lr.exponent) == Monomial.parse(lr)
        assert Monomial.from_json(up.init_std.exponent) == Monomial.of({"n": Fraction(-1, 2)})
    standard = make_plan(MODEL, parametrization="standard").parameter("head")
    assert (standard.lr.exponent, standard.init_std.exponent) == ({}, {"n": "-1/2"})


@pytest.mark.parametrize("role", ["unknown", "unused"])
def test_nothing_is_said_of_what_is_not_known(role):
    p = make_plan(
        analysed(UP, parameter("odd", role, "odd n", "out in", why=("odd (width, unknown): why",)))
    ).parameter("odd")
    assert [p.init_std, p.multiplier, p.lr, p.weight_decay, p.eps, p.clip_weight, p.optimizer] == [None] * 7
    assert p.parts == ()
    assert p.why == ("odd (width, unknown): why",)


QKV = parameter(
    "qkv",
    "hidden",
    "fused n",
    "out in",
    parts=tuple(Part(0, 64 * i, 64 * (i + 1), "hidden", ("n",), ("heads",), 64) for i in range(3)),
)
X_PROJ = parameter(
    "x_proj",
    "hidden",
    "mixed n",
    "out in",
    parts=(Part(0, 0, 64, "hidden", ("n",), ("ff",), 64), Part(0, 64, 72, "output", ("n",), (), 64)),
)
CONCAT = parameter(
    "concat",
    "hidden",
    "n mixed",
    "out in",
    fan_in=("ff",),
    parts=(Part(1, 0, 64, "hidden", ("ff",), ("n",), 64), Part(1, 64, 72, "input", (), ("n",), 8)),
)


def test_alike_parts_agree_with_the_whole():
    p = make_plan(analysed(QKV), base={"n": 16}).parameter("qkv")
    assert [q.range for q in p.parts] == [(0, 64), (64, 128), (128, 192)]
    assert {str(q.init_std) for q in p.parts} == {str(p.init_std)}
    assert (p.lr.exponent, p.init_std.exponent) == ({"n": "-1"}, {"n": "-1/2"})
    assert not any("lazy" in line for line in p.why)


def test_unequal_parts_have_inits_of_their_own_and_one_rate():
    p = make_plan(analysed(X_PROJ), optimizer="sgd").parameter("x_proj")
    assert [q.init_std.exponent for q in p.parts] == [{"n": "-1/2"}, {"n": "-1"}]
    assert Monomial.from_json(p.lr.exponent) == Monomial.parse("n^-1")
    lazy = [line for line in p.why if "lazy" in line]
    assert lazy == ["one tensor has one rate, that of its slowest part: [0:64] of axis 0 (hidden) becomes lazy"]


def test_an_input_beside_features_takes_their_rate_and_is_named_lazy():
    p = make_plan(analysed(CONCAT), base={"ff": 64}).parameter("concat")
    assert [q.init_std.exponent for q in p.parts] == [{"ff": "-1/2"}, {}]
    assert p.lr.exponent == {"ff": "-1"}
    assert any("[64:72] of axis 1 (input) becomes lazy" in line for line in p.why)
    base = (64 / 4 + 8) ** -0.5  # the whole fan-in at the base: both parts add into one output
    assert [q.init_std.value for q in p.parts] == [pytest.approx(base / 2), pytest.approx(base)]


def test_a_tied_readout_needs_a_multiplier_outside_the_tensor():
    uses = (
        Use("a", "embedding", "", "m.py:1", ("lookup", "out"), "input"),
        Use("b", "linear", "", "m.py:9", ("out", "in"), "output"),
    )
    shared = parameter("embed", "input", "vocab n", "lookup out", uses=uses)
    plan = make_plan(analysed(shared, tied=(("embed", "head"),)), base={"n": 16})
    assert plan.model.tied == (("embed", "head"),)
    p = plan.parameter("head")
    assert (p.name, p.role, p.lr.exponent, p.init_std.exponent) == ("embed", "input", {}, {})
    assert [u.multiplier and u.multiplier.exponent for u in p.uses] == [None, {"n": "-1"}]
    assert p.uses[1].multiplier.value == 1 / 4
    assert any("multiplier ~ n^-1" in line and "m.py:9" in line for line in p.why)


def test_depth_is_a_dim_and_guesses_are_assumptions():
    plan = make_plan(analysed(UP, depth=12, guesses=("a branch on x.sum() (m.py:3)",)))
    (depth,) = [d for d in plan.dims if d.kind == "depth"]
    assert (depth.name, depth.size, depth.grows) == ("depth", 12, False)
    assert plan.coverage.assumed_ops == ("a branch on x.sum() (m.py:3)",)


def test_table8_moves_the_readout_into_a_multiplier():
    head = make_plan(MODEL, gauge="table8").parameter("head")
    assert (head.multiplier.exponent, head.init_std.exponent, head.lr.exponent) == ({"n": "-1"}, {}, {})
    assert make_plan(MODEL, gauge="fold").parameter("head").multiplier.exponent == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon", "adafactor"])
@pytest.mark.parametrize("parametrization", sorted(load_rules().parametrizations))
def test_every_parametrization_plans_real_models(real_models, parametrization, optimizer):
    """Under every optimizer that it is known for, every tensor gets its settings; else one line says for which."""
    families = load_rules().parametrizations[parametrization].families
    for analysis in real_models:
        base = {d.name: max(1, d.size // 2) for d in analysis.dims if d.grows}
        try:
            plan = make_plan(analysis, base=base, parametrization=parametrization, optimizer=optimizer)
        except MupcError as error:
            assert families and f"{parametrization} is known for" in str(error)
            continue
        assert all(p.lr is not None and p.init_std is not None for p in plan.parameters if p.role != "unused")
        assert Plan.from_json(plan.to_json()) == plan


@pytest.fixture(scope="module")
def real_models():
    from tests.test_examples import CASES

    chosen = {case.name: case for case in CASES}
    return [analyze(case.build(), case.example_inputs()) for case in (chosen["nano_gpt"], chosen["moe"], chosen["ssm"])]
