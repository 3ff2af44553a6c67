"""A user's own rules: added, replacing, and every mistake with its file and line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from mupc._paths import rules_dir
from mupc.cli import run as cli
from mupc.errors import RuleError
from mupc.rulebase import Subject, load_rules

HIDDEN = Subject("hidden", fan_in=(("n",),), fan_out=("m",))
MINE = """name = "mine"
title = "Mine"
status = "preview"
source = "my notebook (https://example.org)"

[[rule]]
std = "fan_in^-3/4"
update = "fan_in^-1"
grad = "fan_out^-1"
source = "my notebook, page 3"

[[valid]]
role = "hidden"
in = ["n"]
optimizer = "adam"
expect = { std = "n^-3/4" }

[[invalid]]
role = "hidden"
in = ["n"]
optimizer = "adam"
expect = { std = "1" }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_rules" / "parametrizations").mkdir(parents=True)
    (tmp_path / "my_rules" / "parametrizations" / "mine.toml").write_text(MINE)
    (tmp_path / "pyproject.toml").write_text('[tool.mupc]\nrules = ["my_rules"]\n')
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n\ndef make(width: int = 32):\n"
        "    sizes = ((8, width), (width, width), (width, 4))\n"
        "    return nn.Sequential(*(m for i, o in sizes for m in (nn.Linear(i, o), nn.ReLU())))\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_added(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["rules"]) == 0
    assert "mine" in capsys.readouterr().out
    assert cli(["explain", "mine"]) == 0
    assert "my notebook, page 3" in capsys.readouterr().out
    assert cli(["analyze", "model.py:make", "--parametrization", "mine", "--format", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    hidden = next(p for p in plan["parameters"] if p["name"] == "2.weight")
    assert set(hidden["init_std"]["exponent"].values()) == {"-3/4"}


def test_a_file_of_a_known_name_replaces_it(project: Path) -> None:
    folder = project / "my_rules" / "parametrizations"
    (folder / "mup.toml").write_text(MINE.replace('"mine"', '"mup"').replace('update = "fan_in^-1"', 'update = "1"'))
    assert str(load_rules([project / "my_rules"]).apply("mup", "adam", HIDDEN).setting.lr) == "1"
    assert str(load_rules().apply("mup", "adam", HIDDEN).setting.lr) == "n^-1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('std = "fan_in^-3/4"', 'sdt = "fan_in^-3/4"', r"mine.toml:7: rule\[0\].sdt: no such key"),
        ('std = "fan_in^-3/4"', 'std = "fan_inn^-3/4"', "mine.toml:7: unknown dim or symbol 'fan_inn'"),
        ('source = "my notebook, page 3"\n', "", r"mine.toml:6: rule\[0\].source: this key is missing"),
        ("[[rule]]\n", '[[rule]]\nroles = ["input"]\nsub_roles = ["gain"]\n', "mine.toml:8: this rule can never match"),
        ("[[rule]]\n", '[[rule]]\nlr = { adma = "1" }\n', "mine.toml:7: 'adma' can never match"),
        ("[[rule]]\n", '[[rule]]\nops = ["linaer"]\n', "mine.toml:7: .*torch has no op linaer"),
        ("[[rule]]\n", '[[rule]]\nkinds = ["depth"]\n', "mine.toml:7: .*no axis of a parameter is the depth"),
        ("[[rule]]\n", '[[rule]]\ngrowing_kinds = ["data"]\n', "mine.toml:7: .*no dim of kind data grows"),
        ('source = "my notebook, page 3"', 'source = " "', r"mine.toml:10: rule\[0\].source"),
        ('update = "fan_in^-1"\n', "", "mine.toml:11: mine has no update for hidden"),
        ("[[rule]]\n", "[[rule]]\nends_branch = true\nresidual_branch = false\n", "mine.toml:7: .*never match"),
        ('std = "fan_in^-3/4"', 'std = ""', "mine.toml:7: .*an empty law"),
        ('expect = { std = "n^-3/4" }', 'expect = { std = "n^-1" }', r"mine.toml:12: this is not so: std: n\^-3/4"),
        ('expect = { std = "1" }', 'expect = { std = "n^-3/4" }', r"mine.toml:18: this is so, and stands under"),
    ],
)
def test_mistakes_have_a_line(project: Path, old: str, new: str, said: str) -> None:
    path = project / "my_rules" / "parametrizations" / "mine.toml"
    path.write_text(MINE.replace(old, new, 1))
    with pytest.raises(RuleError, match=said):
        load_rules([project / "my_rules"])


def test_rules_in_one_array_have_lines_too(project: Path) -> None:
    path = project / "my_rules" / "parametrizations" / "mine.toml"
    rules = """rule = [
    { std = "fan_in^-3/4", update = "1", grad = "1", source = "my notebook" },
    # readouts
    { roles = ["output"], std = "fan_im^-1", source = "my notebook" },
]
"""
    head, _, rest = MINE.partition("[[rule]]")
    path.write_text(head + rules + rest[rest.index("[[valid]]") :])
    with pytest.raises(RuleError, match=r"mine.toml:9: unknown dim or symbol 'fan_im'"):
        load_rules([project / "my_rules"])


@pytest.mark.parametrize("place", ["mine.toml", "parametrizations/more/mine.toml", "parametrizations/mine.yaml"])
def test_a_file_where_none_is_read(project: Path, place: str) -> None:
    (project / "my_rules" / place).parent.mkdir(exist_ok=True)
    (project / "my_rules" / place).write_text(MINE)
    with pytest.raises(RuleError, match=r"mine.(toml: rules lie in|yaml: rules are files)"):
        load_rules([project / "my_rules"])


def test_a_symbol_of_a_dim_that_the_model_lacks(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "my_rules" / "parametrizations" / "mine.toml"
    symbol = '[symbols]\nM = { name = "n_worlds" }\n\n[[rule]]'
    path.write_text(MINE.replace("[[rule]]", symbol, 1).replace('update = "fan_in^-1"', 'update = "fan_in^-1 * M"'))
    assert cli(["analyze", "model.py:make", "--parametrization", "mine"]) == 2
    assert "mine: M stands for the dim n_worlds, which this model lacks; it has width" in capsys.readouterr().err


def test_a_folder_that_is_not_there(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "pyproject.toml").write_text('[tool.mupc]\nrules = ["other"]\n')
    assert cli(["rules"]) == 2
    assert "there is no such folder of rules" in capsys.readouterr().err


def test_a_weight_decay_of_ones_own(project: Path) -> None:
    folder = project / "my_rules" / "weight_decay"
    folder.mkdir()
    text = (rules_dir() / "weight_decay" / "const.toml").read_text().replace('name = "const"', 'name = "mine"')
    (folder / "mine.toml").write_text(text.replace('law = "1"', 'law = "width"'))
    with pytest.raises(RuleError, match=r"mine.toml:9: unknown dim or symbol 'width'"):
        load_rules([project / "my_rules"])


def test_the_order_of_files_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_rules()
    found = Path.glob

    def shuffled(self: Path, pattern: str) -> list[Path]:
        paths = list(found(self, pattern))
        random.Random(3).shuffle(paths)
        return paths

    monkeypatch.setattr(Path, "glob", shuffled)
    from mupc.rulebase.read import _load

    _load.cache_clear()
    assert load_rules() == plain
    _load.cache_clear()
