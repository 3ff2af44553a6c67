"""The commands as a user runs them: output, exit codes, settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mupc.cli import run
from mupc.config import Config, find_config
from mupc.errors import MupcError

ROOT = Path(__file__).parent.parent
MLP = str(ROOT / "examples" / "mlp.py")
GPT = str(ROOT / "examples" / "nano_gpt.py")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No pyproject.toml but the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_analyze_prints_the_report(capfd):
    assert run(["analyze", MLP]) == 0
    out, err = capfd.readouterr()
    assert "body.2.weight" in out
    assert "\x1b" not in out
    assert err == "inputs inferred: x:float32[2,784]\n"


def test_analyze_json_is_the_plan_and_goes_to_a_file_whole(elsewhere, capfd):
    assert run(["analyze", MLP, "width=64", "--format", "json", "-o", "plan.json"]) == 0
    assert capfd.readouterr().out == ""
    plan = json.loads((elsewhere / "plan.json").read_text())
    assert plan["schema_version"] == 1
    assert [path.name for path in elsewhere.iterdir()] == ["plan.json"]
    assert run(["analyze", MLP, "width=64", "--format", "json"]) == 0
    assert capfd.readouterr().out == (elsewhere / "plan.json").read_text()


def test_a_file_that_cannot_be_written(capfd):
    assert run(["analyze", MLP, "-o", "nowhere/plan.txt"]) == 2
    assert "error: nowhere/plan.txt: cannot write: No such file or directory" in capfd.readouterr().err


def test_given_inputs_and_base(capfd):
    spec = "idx:int64[3,16]<50304"
    assert run(["analyze", GPT, "--input", spec, "--base", "n_embd=96", "--format", "json"]) == 0
    out, err = capfd.readouterr()
    assert err == "inputs given by --input\n"
    assert {dim["name"]: (dim["size"], dim["base"]) for dim in json.loads(out)["dims"]}["n_embd"] == (384, 96)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["analyze", "missing.py"], "error: missing.py: no such file"),
        (["analyze", MLP, "--base", "width"], "error: --base 'width': write DIM=SIZE, for example n_embd=256"),
        (["analyze", MLP, "--timeout", "0"], "Error: Invalid value for '--timeout'"),
        (["analyze", MLP, "--parametrization", "mupp"], "error: no parametrization is called 'mupp'"),
        (["analyze", MLP, "--optimizer", "adma"], "error: no optimizer is called 'adma'"),
        (["analyze"], "Error: Missing argument 'TARGET'."),
        (["anlyze", MLP], "Error: No such command 'anlyze'."),
        (["explain", "nothing"], "error: nothing is called 'nothing'"),
    ],
)
def test_what_cannot_run_exits_2_and_says_why_on_stderr(args, line, capfd):
    assert run(args) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert line in err
    assert "Traceback" not in err


def test_help_and_version_exit_0(capfd):
    assert run(["--help"]) == 0
    assert run(["analyze", "-h"]) == 0
    assert run(["--version"]) == 0
    assert "mupc, version" in capfd.readouterr().out


def test_rules_and_explain(capfd):
    assert run(["rules"]) == 0
    assert "mup " in capfd.readouterr().out
    assert run(["rules", "--format", "json"]) == 0
    assert {"mup", "standard", "adamw"} <= {row["name"] for row in json.loads(capfd.readouterr().out)}
    assert run(["explain", "mup"]) == 0
    assert "arXiv" in capfd.readouterr().out


def test_settings_come_from_the_nearest_pyproject(elsewhere, capfd):
    (elsewhere / "pyproject.toml").write_text('[tool.mupc]\noptimizer = "sgd"\nbase = { n_embd = 96 }\n')
    assert run(["analyze", GPT, "--format", "json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["optimizer"] == "sgd"
    assert run(["analyze", GPT, "--format", "json", "--optimizer", "adam"]) == 0
    assert json.loads(capfd.readouterr().out)["optimizer"] == "adam"
    (elsewhere / "below").mkdir()
    assert find_config(elsewhere / "below") == Config(optimizer="sgd", base={"n_embd": 96})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('optimzer = "sgd"', "[tool.mupc] has no 'optimzer'; did you mean optimizer?"),
        ("timeout = -1", "[tool.mupc] timeout = -1: input should be greater than 0"),
        ('base = { width = "x" }', "[tool.mupc] base.width = 'x': input should be a valid integer"),
        ("base =", "pyproject.toml: "),
    ],
)
def test_a_wrong_setting_is_an_error(table, message, elsewhere):
    (elsewhere / "pyproject.toml").write_text(f"[tool.mupc]\n{table}\n")
    with pytest.raises(MupcError) as caught:
        find_config(elsewhere)
    assert message in str(caught.value)


def test_the_command_itself_never_imports_torch():
    code = f"""
import sys
from mupc.cli import run
assert run(["analyze", {MLP!r}]) == 0
assert run(["rules"]) == 0
sys.exit("torch" in sys.modules or "networkx" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m mupc rules | head -c 1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
