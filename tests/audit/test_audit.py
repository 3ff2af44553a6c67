"""`mupc audit`: right set-ups pass in any gauge, one mistake is one finding, what cannot be judged is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mupc.audit import Audit
from mupc.child import Job, run
from mupc.cli import run as cli
from mupc.errors import MupcError

HERE = Path(__file__).parent
FILE = str(HERE / "setups.py")


def audit(name: str, *settings: str, base: dict[str, int] | None = None, file: str = FILE, **options: object) -> Audit:
    given = {"base": base or {"width": 64}, **options}
    inputs = ("x:float32[2,16]",) if name.startswith("sgd") else ()
    job = Job(f"{file}:{name}", settings or ("width=256",), inputs, options=given, memory=16.0, work="audit")
    return Audit.from_json(run(job).document)


def off(found: Audit) -> dict[tuple[str, str], float | None]:
    return {(row.name, h.what): h.factor and round(h.factor, 2) for row in found.rows for h in row.off}


@pytest.mark.parametrize("name", ["mup", "mup_table8", "tied"])
def test_mup_in_any_gauge_is_right(name: str) -> None:
    found = audit(name)
    assert off(found) == {}
    best = found.matches[0]
    assert best.parametrization == "mup"
    assert best.agree == best.of > 15
    assert all(m.agree < m.of for m in found.matches if m.parametrization in ("megatron", "standard"))


def test_mup_at_more_blocks_too() -> None:
    """Blocks that the smaller model lacks are held against its last."""
    found = audit("mup", "width=256", "depth=5", base={"width": 64, "depth": 2})
    assert off(found) == {}
    assert len({row.name for row in found.rows}) > 30


def test_one_std_and_one_rate_is_recognized() -> None:
    found = audit("standard")
    assert found.matches[0].parametrization == "megatron"
    assert found.matches[0].agree == found.matches[0].of
    wrong = off(found)
    assert wrong["blocks.1.up.weight", "lr"] == 4
    assert wrong["blocks.1.up.weight", "weight_decay"] == 0.25
    assert wrong["blocks.1.up.weight", "init"] == pytest.approx(2, rel=0.02)
    assert wrong["head.weight", "init"] == pytest.approx(4, rel=0.05)
    assert ("wte.weight", "init") not in wrong
    assert ("wte.weight", "lr") not in wrong


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("readout_forgotten", {("head.weight", "init"): 2.0}),
        ("tied_without_multiplier", {("wte.weight", "multiplier"): 4.0}),
        (
            "twice_scaled",
            {
                ("head.weight", "init"): 0.25,
                ("head.weight", "lr"): 0.25,
                ("head.weight", "eps"): 4.0,
                ("head.weight", "weight_decay"): 4.0,
            },
        ),
    ],
)
def test_one_mistake_is_found_where_it_is(name: str, expected: dict[tuple[str, str], float]) -> None:
    found = off(audit(name))
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(value, rel=0.05) for key, value in expected.items())


def test_the_standard_parametrization_is_right_by_itself() -> None:
    found = audit("torch_default", parametrization="standard", file=FILE)
    assert found.matches[0].parametrization == "standard"
    assert off(found) == {}


def test_without_an_optimizer_rates_are_not_judged() -> None:
    found = audit("no_optimizer")
    assert not any(h.what == "lr" for row in found.rows for h in row.held)
    assert any("no optimizer" in note for note in found.notes)
    given = audit("no_optimizer", optimizer_config=f"{FILE}:configure")
    assert any(h.what == "lr" for row in given.rows for h in row.held)


def test_an_optimizer_without_a_rule_is_said() -> None:
    found = audit("strange_optimizer")
    assert any("no rule for Rprop" in note for note in found.notes)
    assert not any(h.what == "lr" and h.verdict != "unknown" for row in found.rows for h in row.held)


def test_a_tensor_in_no_group_is_said() -> None:
    assert any("in no optimizer group: head.weight" in note for note in audit("head_forgotten").notes)


def test_text_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["audit", f"{FILE}:mup", "width=128", "--base", "width=64"]) == 0
    assert "Best match: mup" in capsys.readouterr().out
    assert cli(["audit", f"{FILE}:readout_forgotten", "width=256", "--base", "width=64"]) == 1
    said = capsys.readouterr().out
    assert "head.weight" in said
    assert "x2" in said
    assert cli(["audit", f"{FILE}:mup", "width=128", "--base", "width=64", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give the smaller one's settings, for example --base n_embd=128"),
        (["--base", "width=256"], "both models have the same sizes"),
        (["--base", "breadth=64"], "no setting 'breadth'"),
        (["--base", "width=64", "--optimizer-config", "setups.py"], "write train.py:function"),
        (["--base", "width=64", "--optimizer-config", f"{FILE}:confgure"], "has no function 'confgure'"),
        (["--base", "width=64", "--parametrization", "mu"], "no parametrization is called 'mu'"),
        (["--base", "width=wide"], "write DIM=SIZE"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["audit", f"{FILE}:mup", "width=256", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(MupcError):
        audit("either", base={"width": 64})


@pytest.mark.parametrize(
    ("name", "recipe", "settings", "base"),
    [
        ("completep", "completep", ("width=256", "depth=8"), {"width": 64, "depth": 4}),
        ("umup", "umup", ("width=256",), {"width": 64}),
        ("everett_standard", "everett_standard_full", ("width=256",), {"width": 64}),
    ],
)
def test_known_recipes_are_recognized(name: str, recipe: str, settings: tuple[str, ...], base: dict[str, int]) -> None:
    found = audit(name, *settings, base=base, parametrization=recipe)
    best = {m.parametrization: (m.agree, m.of) for m in found.matches}
    assert best[recipe][0] == best[recipe][1], off(found)
    assert found.matches[0].agree == found.matches[0].of
    assert best["standard"][0] < best["standard"][1]
    assert not {key for key in off(found) if key[1] in ("init", "lr")}


@pytest.mark.parametrize(
    ("name", "regime"),
    [("sgd_standard", "unstable, r = -1"), ("sgd_kernel", "kernel, r = 1/2"), ("sgd_mup", "feature")],
)
def test_the_limit_that_a_set_up_implies(name: str, regime: str) -> None:
    found = audit(name, "width=512")
    assert found.regime is not None
    assert found.regime.startswith(regime)
    assert audit("standard").regime is None  # Adam's: the theorem is SGD's
