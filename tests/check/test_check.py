"""The coordinate check: the graph is the model, slopes are slopes, and the command says what is measured."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.families import FAMILIES
from mupc import analyze
from mupc.check.document import Check
from mupc.check.measure import as_returned, measure
from mupc.check.run import Graph
from mupc.check.scene import Scene, shared
from mupc.check.slopes import fit
from mupc.check.step import direction
from mupc.cli import run
from mupc.report.curves import html
from mupc.rulebase import load_rules

RULES = load_rules()
SETUPS = "tests/audit/setups.py"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scene(name: str, width: int) -> tuple[Scene, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    family = FAMILIES[name]
    args, model = family.inputs(), family.make(width)
    analysis = analyze(model, args)
    tensors = tuple(a for a in args if isinstance(a, torch.Tensor))
    inputs = dict(zip(analysis.trace.inputs, tensors, strict=True))
    return Scene(model, analysis, inputs, shared(analysis, "adamw", RULES)), args


@pytest.mark.parametrize(
    "name", ["gpt", "llama", "vit", "moe", "widenet", "mamba", "s4d", "lstm", "unet", "fno", "deeponet"]
)
def test_the_graph_computes_what_the_model_does(name: str) -> None:
    one, args = scene(name, 64)
    model = one.model.eval()
    analysis = analyze(model, args)
    inputs = {node: one.inputs[key] for key, node in analysis.trace.inputs.items()}
    graph = Graph(analysis.trace, dict(model.named_buffers()), inputs, torch.float32)
    values = graph.run(dict(model.named_parameters()))
    found = values[next(iter(analysis.trace.outputs.values()))]
    expected = model(*args)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_effective_and_propagating_parts_are_derivatives() -> None:
    """Of y = W2 W1 x, by hand: dW2 W1 x and W2 dW1 x, dW the sign of the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Linear(7, 3, bias=False)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    analysis = analyze(model, (x,))
    knobs = shared(analysis, "adamw", RULES)
    one = Scene(model, analysis, {next(iter(analysis.trace.inputs)): x}, knobs, loss=lambda y: y.pow(2).mean())
    found = measure(one)
    w1, w2 = (p.detach() for p in model.parameters())
    model(x).pow(2).mean().backward()
    d1, d2 = (p.grad.sign() for p in model.parameters() if p.grad is not None)
    last = list(found.values.values())[-1]
    assert last.effective == pytest.approx(float((x @ w1.T @ d2.T).pow(2).mean().sqrt()), rel=1e-5)
    assert last.propagating == pytest.approx(float((x @ d1.T @ w2.T).pow(2).mean().sqrt()), rel=1e-5)


def test_outputs_come_as_the_forward_returned_them() -> None:
    assert as_returned({"": 1}) == 1
    assert as_returned({"0": 1, "1.0": 2, "1.1": 3}) == (1, (2, 3))
    found = as_returned({"logits": 1, "past.0": 2})
    assert (found.logits, found["past"]) == (1, (2,))


def test_slopes_of_powers_are_exact() -> None:
    found = fit({w: [3.0 * w**-0.5, 5.0 * w**-0.5] for w in (64, 128, 256, 512)})
    assert found is not None
    assert found.power == pytest.approx(-0.5)
    assert found.half == pytest.approx(0.0, abs=1e-9)
    assert fit({64: [1.0], 128: [0.0], 256: [0.0]}) is None


def test_muon_steps_are_orthogonal() -> None:
    torch.manual_seed(0)
    grad = torch.randn(2, 6, 4, dtype=torch.float64)
    step = direction(RULES.optimizer("muon_spectral"), grad, grad, ("batch", "out", "in"))
    for one in step:
        torch.testing.assert_close(torch.linalg.svdvals(one), torch.full((4,), (6 / 4) ** 0.5, dtype=torch.float64))


def test_what_is_parametrized_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    assert run(["check", f"{SETUPS}:mup", "--widths", "width=64,128,256", "--seeds", "2", "--html", str(page)]) == 0
    assert capsys.readouterr().out.endswith("Passed\n")
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text
    assert "http://" not in text.replace("http://www.w3.org", "")  # it needs no other file


def test_what_is_not_fails_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", f"{SETUPS}:standard", "--widths", "width=64,128,256", "--seeds", "2", "--format", "json"]
    assert run(command) == 1
    first = capsys.readouterr().out
    check = Check.from_json(first)
    assert not check.healthy
    head = next(row for row in check.rows if row.name == "head linear")
    assert head.measured == "grows"
    assert head.source is not None
    assert head.source.startswith(SETUPS)
    own = next(s for s in head.series if s.quantity == "effective")
    assert Fraction(own.predicted or 0) == 1
    assert run(command) == 1
    assert capsys.readouterr().out == first  # remembered, and the same
    assert html(check) == html(Check.from_json(first))


def test_a_parametrization_is_put_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "examples/nano_gpt.py", "n_layer=2", "vocab_size=128", "--widths", "n_embd=128,256,512",
                "--parametrization", "mup", "--seeds", "2"]) == 0  # fmt: skip
    assert "n_head=2,4,8" in capsys.readouterr().out


def test_real_steps_on_real_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(
        "import torch\nfrom torch.nn import functional as F\n"
        "def data():\n    ids = torch.arange(32).reshape(4, 8)\n    return ids, ids.roll(-1, 1)\n"
        "def loss(logits, targets):\n    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())\n"
    )
    command = ["check", f"{SETUPS}:mup", "--widths", "width=64,128,256", "--regime", "training", "--steps", "3",
               "--seeds", "2", "--data", f"{file}:data", "--loss", f"{file}:loss", "--format", "json"]  # fmt: skip
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["regime"] == "training"
    assert found["steps"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--widths", "width"], "write KEY=A,B,C"),
        (["--widths", "width=64"], "write KEY=A,B,C"),
        (["--widths", "width=128,64"], "from small to large"),
        (["--widths", "breadth=64,128"], "breadth"),
        (["--widths", "width=64,128", "--widths", "depth=2,3,4"], "as many sizes"),
        (["--widths", "depth=2,3"], "both widths give one model"),
        (["--widths", "width=64,128", "--optimizer", "adan", "--parametrization", "mup"], "adan"),
        (["--widths", "width=64,128", "--loss", "nowhere.py:loss"], "no such file"),
        (["--widths", "width=64,128", "--data", f"{SETUPS}:nothing"], "no function"),
        (["--widths", "width=64,128", "--loss", f"{SETUPS}:matrices"], "the loss cannot be computed: tests/audit"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", f"{SETUPS}:mup", *arguments]) == 2
    err = capsys.readouterr().err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def test_singular_values_follow_the_spectral_condition(tmp_path: Path) -> None:
    """Under muP a hidden matrix's largest singular value over sqrt(out/in), and its update's, are one at every width;
    under one std and one rate both grow."""
    found = {}
    for how, extra in (("mup", ["--parametrization", "mup"]), ("as it stands", [])):
        out = tmp_path / f"{how}.json"
        asked = ["check", f"{SETUPS}:standard", "--widths", "width=64,128,256", "--format", "json", "-o", str(out)]
        run([*asked, *extra])
        tensors = Check.from_json(out.read_text()).tensors
        found[how] = [t for t in tensors if "blocks" in t.name and t.top is not None]
    assert len(found["mup"]) == len(found["as it stands"]) >= 6
    assert all(abs(t.top or 0) < 0.1 and abs(t.top_update or 0) < 0.3 for t in found["mup"])
    assert all((t.top or 0) > 0.4 and (t.top_update or 0) > 0.6 for t in found["as it stands"])
    # muP keeps lr * decay: a hidden step of n^-1 is held at n^-1, and eps goes as the gradient. One rate: at one size,
    # and eps stays where the gradient shrinks.
    assert all(abs((t.equilibrium or 0) + 1) < 0.1 and abs(t.eps or 0) < 0.3 for t in found["mup"])
    assert all(abs(t.equilibrium or 0) < 0.1 and (t.eps or 0) > 0.2 for t in found["as it stands"])


def test_a_measured_word_is_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """A softmax over logits that vanish comes to a constant: its largest share still falls at these widths, is told as
    falling, and agrees with a prediction that it stays."""
    asked = [
        "check",
        "examples/moe.py",
        "--parametrization",
        "mup",
        "--widths",
        "d_model=64,128,256",
        "--format",
        "json",
    ]
    run(asked)
    check = Check.from_json(capsys.readouterr().out)
    shares = [row for row in check.rows if "getitem" in row.name]
    assert {(row.predicted, row.measured, row.verdict, bool(row.why)) for row in shares} == {
        ("stable", "vanishes", "ok", True)
    }
    assert not any(row.ill for row in shares)
    assert all(not row.why for row in check.rows if row.predicted == row.measured)
