"""The rule base: its own cases, the papers' tables, and every mistake with its file and line."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from mupc._paths import rules_dir
from mupc.errors import MupcError, RuleError
from mupc.exponents import Monomial
from mupc.rulebase import Subject, failure, load_rules, read

BASE = load_rules()
CASES = [
    pytest.param(entry, holds, case, id=f"{entry.name}-{'valid' if holds else 'invalid'}-{case.role}-{i}")
    for i, (entry, holds, case) in enumerate(BASE.cases())
]
MATRICES = {
    "input": Subject("input", fan_out=("n",)),
    "hidden": Subject("hidden", fan_in=(("n",),), fan_out=("n",)),
    "output": Subject("output", fan_in=(("n",),)),
    "vector": Subject("vector", batch=("n",)),
    "scalar": Subject("scalar"),
}


@pytest.mark.parametrize(("entry", "holds", "case"), CASES)
def test_the_files_own_cases(entry, holds, case):
    why = failure(BASE, entry, case)
    assert (why == "") == holds, why


# Powers of n: init std, SGD's rate, Adam's rate. TP5 (arXiv:2203.03466), Table 3, with fan_in = fan_out = n and the
# grey entries for SP; biases share the column of the inputs. Variance 1/fan_in^2 is std n^-1.
TABLE_3 = {
    ("mup", "input"): ("0", "1", "0"),
    ("mup", "vector"): ("0", "1", "0"),
    ("mup", "hidden"): ("-1/2", "0", "-1"),
    ("mup", "output"): ("-1", "-1", "-1"),
    ("mup", "scalar"): ("0", "0", "0"),
    ("standard", "input"): ("0", "0", "0"),
    ("standard", "vector"): ("0", "0", "0"),
    ("standard", "hidden"): ("-1/2", "0", "0"),
    ("standard", "output"): ("-1/2", "0", "0"),
    ("standard", "scalar"): ("0", "0", "0"),
}


@pytest.mark.parametrize(("parametrization", "role"), TABLE_3)
def test_tp5_table_3(parametrization, role):
    std, sgd, adam = (Monomial.of({"n": Fraction(power)}) for power in TABLE_3[parametrization, role])
    subject = MATRICES[role]
    by_sgd = BASE.apply(parametrization, "sgd", subject).setting
    assert (by_sgd.std, by_sgd.lr, by_sgd.multiplier) == (std, sgd, Monomial.ONE)
    for name in ("adam", "adamw"):
        by_adam = BASE.apply(parametrization, name, subject).setting
        assert (by_adam.std, by_adam.lr, by_adam.multiplier) == (std, adam, Monomial.ONE)


# TP5, Table 8: the readout has std 1 and multiplier 1/fan_in, SGD fan_in, Adam 1; all else as in Table 3.
TABLE_8 = {"input": ("0", "0", "1", "0"), "hidden": ("0", "-1/2", "0", "-1"), "output": ("-1", "0", "1", "0")}


@pytest.mark.parametrize("role", TABLE_8)
def test_tp5_table_8_is_a_gauge_of_table_3(role):
    multiplier, std, sgd, adam = (Monomial.of({"n": Fraction(power)}) for power in TABLE_8[role])
    for name, lr in (("sgd", sgd), ("adam", adam)):
        found = BASE.in_gauge("table8", BASE.apply("mup", name, MATRICES[role]), MATRICES[role]).setting
        assert (found.multiplier, found.std, found.lr) == (multiplier, std, lr)


def test_spectral_condition_with_unequal_sides():
    subject = Subject("hidden", fan_in=(("f",),), fan_out=("g",))
    f, g = Monomial.of({"f": 1}), Monomial.of({"g": 1})
    assert BASE.apply("mup", "sgd", subject).setting.lr == g / f
    adam = BASE.apply("mup", "adam", subject).setting
    assert (adam.lr, adam.eps, adam.std) == (f**-1, g**-1, f ** Fraction(-1, 2))
    assert adam.decay == adam.eps / adam.std
    assert BASE.apply("mup", "adamw", subject).setting.decay == f


@pytest.mark.parametrize("role", MATRICES)
@pytest.mark.parametrize("optimizer", sorted(BASE.optimizers))
@pytest.mark.parametrize("parametrization", sorted(BASE.parametrizations))
def test_every_pair_answers_for_every_role(parametrization, optimizer, role):
    families = BASE.parametrizations[parametrization].families
    if families and BASE.stepping(optimizer, role).family not in families:
        with pytest.raises(MupcError, match=f"{parametrization} is known for"):
            BASE.apply(parametrization, optimizer, MATRICES[role])
        return
    applied = BASE.apply(parametrization, optimizer, MATRICES[role])
    assert applied.rules
    assert applied.optimizer == BASE.stepping(optimizer, role).name


def test_names_that_are_not_there():
    with pytest.raises(MupcError, match=r"no parametrization is called 'mupp'; did you mean mup or umup or smupar\?"):
        BASE.apply("mupp", "adam", MATRICES["hidden"])
    with pytest.raises(MupcError, match=r"no optimizer is called 'adma'; did you mean adam or radam or nadam\?"):
        BASE.apply("mup", "adma", MATRICES["hidden"])
    with pytest.raises(MupcError, match="unknown has no exponents"):
        BASE.apply("mup", "adam", Subject("unknown"))


OPTIMIZERS = {  # under mup with fan_in n and fan_out m: powers (n, m) of lr for hidden, of lr for input (out m), output
    "sgd": ((-1, 1), (0, 1), (-1, 0)),
    "adam": ((-1, 0), (0, 0), (-1, 0)),
    "adamw": ((-1, 0), (0, 0), (-1, 0)),
    "nadam": ((-1, 0), (0, 0), (-1, 0)),
    "radam": ((-1, 0), (0, 0), (-1, 0)),
    "adagrad": ((-1, 0), (0, 0), (-1, 0)),
    "rmsprop": ((-1, 0), (0, 0), (-1, 0)),
    "adam_atan2": ((-1, 0), (0, 0), (-1, 0)),
    "adopt": ((-1, 0), (0, 0), (-1, 0)),
    "lion": ((-1, 0), (0, 0), (-1, 0)),
    "sophia": ((-1, 0), (0, 0), (-1, 0)),
    "adafactor": (("-1/2", 0), (0, 0), (0, 0)),  # arXiv:2407.05872: A - a - b
    "lamb": (("-1/2", 0), (0, 0), (0, 0)),
    "muon": ((0, 0), (0, 0), (-1, 0)),  # the others are AdamW's
    "muon_moonshot": (("-1/2", 0), (0, 0), (-1, 0)),
    "muon_spectral": ((0, 0), (0, 0), (-1, 0)),
    "muonpp": ((0, 0), (0, 0), (-1, 0)),
    "shampoo": (("-1/2", "1/2"), (0, 0), (-1, 0)),  # arXiv:2512.05620: (d_out/d_in)^(1-E), E = 1/2
    "soap": (("-1/2", "1/2"), (0, 0), (-1, 0)),  # the same source: sqrt(d_out/d_in)
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rates_of_every_optimizer_under_mup(name):
    subjects = (
        Subject("hidden", fan_in=(("n",),), fan_out=("m",)),
        Subject("input", fan_out=("m",)),
        Subject("output", fan_in=(("n",),)),
    )
    for subject, powers in zip(subjects, OPTIMIZERS[name], strict=True):
        wanted = Monomial.of(zip(("n", "m"), map(Fraction, powers), strict=True))
        assert BASE.apply("mup", name, subject).setting.lr == wanted, subject.role


def test_what_the_base_holds():
    """Deleting a file fails here; a new one is added here."""
    assert set(BASE.parametrizations) == {
        *(f"everett_{p}_{a}" for p in ("standard", "ntk", "mup", "mean_field") for a in ("full", "none")),
        *("standard", "ntk", "mean_field", "mup", "spectral", "umup", "depth_mup", "completep", "megatron"),
        *("mssp_i", "mssp_ii", "mssp_iii", "ssm", "fno", "smupar", "lora", "lora_plus", "rslora", "hypernetwork"),
    }
    assert set(BASE.optimizers) == set(OPTIMIZERS)


def test_every_source_is_one_that_a_reader_can_open():
    for path in sorted(rules_dir().glob("*/*.toml")):
        text = path.read_text(encoding="utf-8")
        assert "SEEDS" not in text, path
        assert "DESIGN" not in text, path
        assert "arXiv:" in text or "https://" in text, path


# A user's folder, right and wrong.

GOOD = """\
name = "{name}"
title = "Mine"
status = "preview"
source = "me"

[[rule]]
std = "fan_in^-1/2"
lr = {{ any = "1" }}
eps = {{ any = "1" }}
decay = {{ any = "1" }}
source = "me"

[[valid]]
role = "hidden"
in = ["n"]
out = "n"
optimizer = "sgd"
expect = {{ lr = "1" }}

[[invalid]]
role = "hidden"
in = ["n"]
out = "n"
optimizer = "sgd"
expect = {{ lr = "n" }}
"""


def write(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / "parametrizations" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_folder_adds_and_replaces(tmp_path):
    write(tmp_path, GOOD.format(name="mine"))
    write(tmp_path, GOOD.format(name="mup"), "mup")
    base = load_rules([tmp_path])
    assert base.apply("mine", "adam", MATRICES["output"]).setting.lr == Monomial.ONE
    assert base.parametrization("mup").title == "Mine"
    assert base.parametrization("standard") == BASE.parametrization("standard")
    assert load_rules().parametrization("mup").title != "Mine"


MISTAKES = [
    # what is replaced, by what, the line that is named, words of the message
    ('title = "Mine"', 'titel = "Mine"', 2, "titel: no such key"),
    ('status = "preview"', 'status = "done"', 3, "status"),
    ('source = "me"\n\n[[rule]]', "[[rule]]", 1, "source: this key is missing"),
    ('std = "fan_in^-1/2"', 'stdev = "fan_in^-1/2"', 7, "stdev"),
    ('std = "fan_in^-1/2"', 'std = "fan_inn^-1/2"', 7, "unknown dim or symbol 'fan_inn'"),
    ('std = "fan_in^-1/2"', 'std = "fan_in^-0.5"', 7, "fan_in^-0.5"),
    ('std = "fan_in^-1/2"', "std = -0.5", 7, "std"),
    ('lr = { any = "1" }', 'lr = { adma = "1" }', 8, "'adma' can never match"),
    ('std = "fan_in^-1/2"', 'roles = ["hiden"]', 7, "roles"),
    ('std = "fan_in^-1/2"', "roles = []", 7, "roles"),
    ('std = "fan_in^-1/2"', 'roles = ["output"]\nsub_roles = ["embedding"]', 8, "can never match"),
    ('decay = { any = "1" }\nsource = "me"', 'decay = { any = "1" }', 6, "source"),
    ('source = "me"\n\n[[valid]]', 'source = "me"\n\n[[rule]]\nsource = "me"\n\n[[valid]]', 13, "says nothing"),
    (
        "[[valid]]",
        '[[rule]]\nstd = "1"\nsource = "me"\n\n[[rule]]\nstd = "1"\nsource = "me"\n[[valid]]',
        13,
        "no effect",
    ),
    ('std = "fan_in^-1/2"', 'std = "fan_in^-1/2', 7, "not TOML"),
    ('name = "mine"', 'name = "other"', 1, "'other'"),
    ('optimizer = "sgd"', 'optimizer = "sdg"', 13, "optimizer"),
    ('role = "hidden"', 'role = "hiden"', 14, "role"),
]


@pytest.mark.parametrize(("old", "new", "line", "words"), MISTAKES)
def test_a_mistake_names_its_file_and_line(tmp_path, old, new, line, words):
    good = GOOD.format(name="mine")
    assert old in good
    path = write(tmp_path, good.replace(old, new, 1))
    with pytest.raises(RuleError) as caught:
        load_rules([tmp_path])
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value
    assert words in str(caught.value)


def test_a_folder_that_is_not_there_or_holds_something_else(tmp_path):
    with pytest.raises(RuleError, match="no such folder"):
        load_rules([tmp_path / "nowhere"])
    (tmp_path / "parametrisations").mkdir()
    with pytest.raises(RuleError, match="parametrisations: rules lie in folders named"):
        load_rules([tmp_path])


def test_the_order_of_files_changes_nothing(monkeypatch):
    """Folders are listed as the file system likes; what is loaded must not show it."""
    listed, orders = Path.glob, []

    def shuffled(self: Path, pattern: str) -> list[Path]:
        found = sorted(listed(self, pattern))
        random.Random(seed).shuffle(found)
        orders.append([path.name for path in found])
        return found

    monkeypatch.setattr(Path, "glob", shuffled)
    for seed in range(4):  # noqa: B007  read by `shuffled`
        assert read._load.__wrapped__(()).model_dump_json() == BASE.model_dump_json()
    assert len({str(order) for order in orders}) > 2


def test_explained_with_source():
    text = BASE.explain("adam")
    assert text.startswith("adam (optimizer, stable)")
    assert "Source: Kingma, Ba 2015 (arXiv:1412.6980)" in text
    assert "decay t^2" in text
    assert "fan_in^-1" in BASE.explain("mup")
    with pytest.raises(MupcError, match=r"nothing is called 'mupp'; did you mean mup or muonpp or umup\?"):
        BASE.explain("mupp")
    with pytest.raises(MupcError, match="nothing is called 'zzz'; there are completep, depth_mup"):
        BASE.explain("zzz")


def test_ops_that_rules_name_are_ops() -> None:
    """What a user's file is held to when it is read, ours are held to here."""
    from mupc.rulebase.read import _is_op

    named = {op for entry in BASE.parametrizations.values() for rule in entry.rule for op in rule.ops or ()}
    assert named
    assert all(map(_is_op, named)), named


def test_every_code_that_is_told_is_explained() -> None:
    """And none is explained that nothing tells."""
    package = Path(rules_dir()).parent / "mupc"
    told = {code for file in package.rglob("*.py") for code in re.findall(r"\bMUP\d{3}\b", file.read_text())}
    assert told == set(BASE.mistakes)
    assert all("Do instead" in BASE.explain(code) for code in told)
