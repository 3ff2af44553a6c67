"""The papers' tables, exactly: Fractions, no tolerance. Fan-in and fan-out are both n unless a table says otherwise."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from mupc import analyze
from mupc.errors import MupcError
from mupc.exponents import Monomial, Setting
from mupc.plan import make_plan
from mupc.regime import ABC, classify, of_parametrization
from mupc.rulebase import Subject, load_rules
from mupc.target import load_target

BASE = load_rules()
N = Monomial.of({"n": 1})
INPUT = Subject("input", fan_out=("n",))
HIDDEN = Subject("hidden", fan_in=(("n",),), fan_out=("n",))
OUTPUT = Subject("output", fan_in=(("n",),))
ROLES = (INPUT, HIDDEN, OUTPUT)


def powers(parametrization: str, optimizer: str, what: str, dim: str = "n") -> tuple[str, ...]:
    """Of input, hidden and output: the power of one dim."""
    found = [getattr(BASE.apply(parametrization, optimizer, s).setting, what) for s in ROLES]
    return tuple(str(dict(m.factors).get(dim, Fraction(0))) for m in found)


# TP5 (arXiv:2203.03466). Table 3 is in tests/test_rulebase.py.

TABLE_8 = {  # role -> multiplier, init std, SGD rate, Adam rate
    "input": ("0", "0", "1", "0"),
    "hidden": ("0", "-1/2", "0", "-1"),
    "output": ("-1", "0", "1", "0"),
}
TABLE_9 = {
    "input": ("1/2", "-1/2", "0", "-1/2"),
    "hidden": ("0", "-1/2", "0", "-1"),
    "output": ("-1/2", "-1/2", "0", "-1/2"),
}


def row(optimizer: str, setting: Setting) -> tuple[str, ...]:
    return tuple(str(m.degree()) for m in (setting.multiplier, setting.std, setting.lr))


@pytest.mark.parametrize("subject", ROLES, ids=lambda s: s.role)
@pytest.mark.parametrize(("optimizer", "column"), [("sgd", 2), ("adam", 3)])
def test_tp5_tables_8_and_9_are_gauges_of_table_3(subject: Subject, optimizer: str, column: int) -> None:
    applied = BASE.apply("mup", optimizer, subject)
    eight, nine = TABLE_8[subject.role], TABLE_9[subject.role]
    assert row(optimizer, BASE.in_gauge("table8", applied, subject).setting) == (eight[0], eight[1], eight[column])
    moved = BASE.optimizer(optimizer).law().moved(applied.setting, N ** Fraction(nine[0]))
    assert row(optimizer, moved) == (nine[0], nine[1], nine[column])


# Everett et al. 2024 (arXiv:2407.05872): rates n^-c, entries embedding, hidden, readout.

EVERETT = {  # a, b, gradient g
    "standard": ((0, 0, 0), (0, "1/2", "1/2"), ("1/2", "1/2", 0)),
    "ntk": ((0, "1/2", "1/2"), (0, 0, 0), ("1/2", 1, "1/2")),
    "mup": (("-1/2", 0, "1/2"), ("1/2", "1/2", "1/2"), ("1/2", 1, "1/2")),
    "mean_field": ((0, "1/2", 1), (0, 0, 0), (1, "3/2", 1)),
}
RATES = {  # c: SGD, Adam, Adafactor
    ("standard", "full"): (("-1/2", "1/2", 1), (0, 1, 1), (0, "1/2", "1/2")),
    ("standard", "none"): (("-1/2", 0, "1/2"), (0, "1/2", "1/2"), (0, 0, 0)),
    ("ntk", "full"): (("-1/2", "-1/2", 0), (0, "1/2", "1/2"), (0, "1/2", "1/2")),
    ("ntk", "none"): (("-1/2", -1, "-1/2"), (0, 0, 0), (0, 0, 0)),
    ("mup", "full"): ((0, 0, 0), ("1/2", 1, "1/2"), (0, "1/2", 0)),
    ("mup", "none"): ((0, "-1/2", 0), ("1/2", "1/2", 0), (0, 0, "-1/2")),
    ("mean_field", "full"): ((-1, -1, -1), (0, "1/2", 0), (0, "1/2", 0)),
    ("mean_field", "none"): ((-1, "-3/2", -1), (0, 0, "-1/2"), (0, 0, "-1/2")),
}


def minus(row: tuple[str | int, ...]) -> tuple[str, ...]:
    return tuple(str(-Fraction(power)) for power in row)


@pytest.mark.parametrize(("name", "alignment"), RATES)
def test_everett_tables(name: str, alignment: str) -> None:
    entry = f"everett_{name}_{alignment}"
    a, b, g = EVERETT[name]
    assert powers(entry, "adam", "multiplier") == minus(a)
    assert powers(entry, "adam", "std") == minus(b)
    assert powers(entry, "adam", "eps") == minus(g)  # per-layer epsilon n^-g
    for optimizer, c in zip(("sgd", "adam", "adafactor"), RATES[name, alignment], strict=True):
        assert powers(entry, optimizer, "lr") == minus(c), optimizer


@pytest.mark.parametrize(("name", "alignment"), RATES)
def test_everett_tables_follow_from_a_b_and_the_alignment(name: str, alignment: str) -> None:
    """c = A - a (Adam), A - a - b (Adafactor), A - a - g (SGD), with A = 0 for embeddings and 1 or 1/2 else.

    The gradient at the readout is n^-a; behind it a_l + min(a + b, 2a + c) of the readout. Where a readout's SGD rate
    would make that second term the smaller one, the rate is capped: 2a + c >= a + b. So mean-field readouts have
    1/2 - 1 = -1/2 under Adam without alignment, not +1/2 (the slip in m-wojnar/maxP).
    """
    a, b, _ = (tuple(map(Fraction, row)) for row in EVERETT[name])
    full = Fraction(1) if alignment == "full" else Fraction(1, 2)
    align = (Fraction(0), full, full)
    sgd, adam, adafactor = (tuple(map(Fraction, row)) for row in RATES[name, alignment])
    assert adam == tuple(A - x for A, x in zip(align, a, strict=True))
    assert adafactor == tuple(A - x - y for A, x, y in zip(align, a, b, strict=True))
    readout = max(align[2] - a[2] - a[2], b[2] - a[2])  # g = a there; the cap
    behind = min(a[2] + b[2], 2 * a[2] + readout)
    g = (a[0] + behind, a[1] + behind, a[2])
    assert g == tuple(map(Fraction, EVERETT[name][2]))
    assert sgd == (align[0] - a[0] - g[0], align[1] - a[1] - g[1], readout)


# CompleteP (arXiv:2505.01618), u-muP (arXiv:2407.17465), Depth-muP (arXiv:2310.02244).


def branch(subject: Subject, *, ends: bool = False) -> Subject:
    return replace(subject, residual_branch=True, ends_branch=ends, depth="L")


def at(parametrization: str, optimizer: str, subject: Subject, what: str) -> str:
    return str(getattr(BASE.apply(parametrization, optimizer, subject).setting, what))


def test_completep() -> None:
    end, gain = branch(HIDDEN, ends=True), branch(Subject("vector", batch=("n",), sub_role="gain"))
    assert at("completep", "adamw", end, "multiplier") == "L^-1"
    assert at("completep", "adamw", end, "std") == "n^-1/2"
    assert at("completep", "adamw", end, "lr") == "n^-1"
    assert at("completep", "adamw", end, "eps") == "L^-1 * n^-1"
    assert at("completep", "adamw", end, "decay") == "n"
    assert at("completep", "adamw", gain, "lr") == "1"
    assert at("completep", "adamw", INPUT, "lr") == "1"
    assert at("completep", "muon", branch(HIDDEN), "lr") == "1"


def test_depth_mup() -> None:
    assert at("depth_mup", "adam", branch(HIDDEN, ends=True), "multiplier") == "L^-1/2"
    assert at("depth_mup", "adam", branch(HIDDEN), "lr") == "L^-1/2 * n^-1"
    assert at("depth_mup", "sgd", branch(HIDDEN), "lr") == "1"


def test_umup() -> None:
    assert powers("umup", "adamw", "std") == ("0", "0", "0")
    assert powers("umup", "adamw", "multiplier") == ("0", "-1/2", "-1")
    assert powers("umup", "adamw", "lr") == ("-1/2", "-1/2", "0")
    assert at("umup", "adamw", branch(HIDDEN), "lr") == "L^-1/2 * n^-1/2"
    assert at("umup", "adamw", branch(HIDDEN, ends=True), "multiplier") == "L^-1/2 * n^-1/2"
    gain = branch(Subject("vector", batch=("n",), sub_role="gain"))
    assert (at("umup", "adamw", gain, "lr"), at("umup", "adamw", gain, "multiplier")) == ("L^-1/2", "1")
    with pytest.raises(MupcError, match="umup is known for adam, not for sgd"):
        BASE.apply("umup", "sgd", HIDDEN)


# Muon, as torch builds the factor of a matrix's shape into the step.


@pytest.mark.parametrize("built_in", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shapes", [((32, 16), (128, 32)), ((16, 64), (32, 256)), ((32, 32), (64, 64))])
def test_muon_steps_by_the_spectral_condition(built_in: str, shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """A step's spectral norm over sqrt(fan_out/fan_in) is the same at both sizes, whichever way the matrix grew."""
    name = {"original": "muon", "match_rms_adamw": "muon_moonshot"}[built_in]
    rows, columns = shapes[1]
    subject = Subject("hidden", (("in",),), ("out",), sides=(columns, rows))
    law = BASE.apply("mup", name, subject).setting.lr
    norms = []
    for m, n in shapes:
        w = nn.Parameter(torch.zeros(m, n))
        w.grad = torch.randn(m, n, generator=torch.Generator().manual_seed(0))
        lr = law.evaluate({"in": n / shapes[0][1], "out": m / shapes[0][0]})
        torch.optim.Muon([w], lr=lr, weight_decay=0.0, ns_steps=12, adjust_lr_fn=built_in).step()
        norms.append(float(torch.linalg.svdvals(w.detach().double()).max()) / (m / n) ** 0.5)
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


# rsLoRA (arXiv:2312.03732), with the rank let to grow.


class Adapted(nn.Module):
    """Two layers, the first with an adapter of rank 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(3, 32), nn.Linear(32, 32), nn.Linear(32, 2)
        self.lora_a, self.lora_b = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.last((self.hidden(x) + self.lora_b(self.lora_a(x))).relu())


def test_rslora_of_a_model() -> None:
    found = analyze(Adapted(), torch.randn(2, 3))
    rank = next(dim.name for dim in found.dims if dim.kind == "rank")
    found = analyze(Adapted(), torch.randn(2, 3), scaling=[rank])
    plan = {p.name: p for p in make_plan(found, parametrization="rslora").parameters}
    assert [plan[f"lora_{x}.weight"].sub_role for x in "ab"] == ["lora_a", "lora_b"]
    assert [str(plan[f"lora_{x}.weight"].multiplier.monomial) for x in "ab"] == ["1", f"{rank}^-1/2"]


# MSSP (arXiv:2605.14200), as its code has it; N ~ Ne = n, and M.

MSSP = {  # regime -> sub-role -> std, SGD, Adam's rate, Adam's eps
    "i": {
        "router": ("n^-1", "n^-1", "n^-1", "1"),
        "expert_in": ("n^-1/2", "1", "n^-1", "n^-1"),
        "expert_out": ("n^-1/2", "1", "n^-1", "n^-1"),
    },
    "ii": {
        "router": ("n^-1/2", "M * n^-1", "n^-1", "M^-1"),
        "expert_in": ("n^-1/2", "M * n^-1", "n^-1", "M^-1"),
        "expert_out": ("M^1/2", "M * n", "1", "M^-1 * n^-1"),
    },
    "iii": {
        "router": ("n^-1/2", "M * n^-1", "n^-1", "M^-1"),
        "expert_in": ("n^-1/2", "M", "n^-1", "M^-1 * n^-1"),
        "expert_out": ("n^-1/2", "M", "n^-1", "M^-1 * n^-1"),
    },
}


@pytest.mark.parametrize("regime", MSSP)
def test_mssp(regime: str) -> None:
    grows = regime != "i"
    dims = {"M": ("experts", grows), "n": ("width", True)}
    wide = regime != "ii"  # the experts' own width grows
    subjects = {
        "router": Subject(
            "hidden" if grows else "output", (("n",),), ("M",) if grows else (), dims=dims, sub_role="router"
        ),
        "expert_in": Subject(
            "hidden" if wide else "output", (("n",),), ("n",) if wide else (), dims=dims, sub_role="expert_in"
        ),
        "expert_out": Subject(
            "hidden" if wide else "input", (("n",),) if wide else (), ("n",), dims=dims, sub_role="expert_out"
        ),
    }
    for sub_role, (std, sgd, adam, eps) in MSSP[regime].items():
        subject = subjects[sub_role]
        assert at(f"mssp_{regime}", "adam", subject, "std") == std, sub_role
        assert at(f"mssp_{regime}", "sgd", subject, "lr") == sgd, sub_role
        assert at(f"mssp_{regime}", "adam", subject, "lr") == adam, sub_role
        assert at(f"mssp_{regime}", "adam", subject, "eps") == eps, sub_role
    assert powers(f"mssp_{regime}", "sgd", "lr") == ("1", "0", "-1")  # outside the experts: TP5


DIMS = {"d_model": "n", "d_expert": "n", "n_experts": "M"}
GROWING: dict[str, dict[str, list[str]]] = {
    "i": {}, "ii": {"scaling": ["n_experts"], "fixed": ["d_expert"]}, "iii": {"scaling": ["n_experts"]}
}  # fmt: skip


@pytest.mark.parametrize("regime", MSSP)
def test_mssp_of_a_model(regime: str) -> None:
    """The regimes, by what is let to grow, reach a model's own tensors."""
    target = load_target(str(Path(__file__).parent.parent / "examples" / "moe.py"), (), ())
    found = analyze(target.model, target.args, target.kwargs, sizes=target.sizes, **GROWING[regime])
    for optimizer, column in (("sgd", 1), ("adam", 2)):
        plan = make_plan(found, parametrization=f"mssp_{regime}", optimizer=optimizer)
        block = {p.sub_role: p for p in plan.parameters if p.name.startswith("blocks.0.moe.")}
        for sub_role, laws in MSSP[regime].items():
            p = block[sub_role]
            assert p.init_std is not None and p.lr is not None
            for said, law in ((p.init_std.monomial, laws[0]), (p.lr.monomial, laws[column])):
                alike = Monomial.of((DIMS[dim], power) for dim, power in said.factors)
                assert alike == Monomial.parse(law), (sub_role, optimizer)


# TP4 (arXiv:2011.14522), Table 1.

H = Fraction(1, 2)


@pytest.mark.parametrize(
    ("abc", "name", "r"),
    [
        (ABC.of((0, 0, 0, 0), (0, H, H, H), (1,)), "kernel", H),  # SP at the largest stable rate
        (ABC.of((0, H, H, H), (0, 0, 0, 0), (0,)), "kernel", H),  # NTP
        (ABC.of((0, 1), (0, 0), (-1,)), "feature learning", 0),  # MFP, one hidden layer
        (ABC.of((-H, 0, 0, H), (H, H, H, H), (0,)), "feature learning", 0),  # muP
        (ABC.of((0, 0, 0, 0), (0, H, H, H), (0,)), "unstable", -1),  # SP at a constant rate
        (ABC.of((-H, 0, 0, H), (H, H, H, H), (1,)), "trivial", 1),
        (ABC.of((0, H, H), (0, 0, 0), (-1,)), "unstable", -1),
    ],
)
def test_tp4_table(abc: ABC, name: str, r: Fraction) -> None:
    found = classify(abc)
    assert (found.name, found.r) == (name, r)
    assert found.why


@pytest.mark.parametrize("t", [Fraction(1, 2), Fraction(-1), Fraction(3)])
def test_the_symmetry_keeps_the_regime(t: Fraction) -> None:
    """a + t, b - t, c - 2t in any one layer (TP4, Section 3.1)."""
    for abc in (ABC.of((-H, 0, 0, H), (H, H, H, H), (0,)), ABC.of((0, 0, 0, 0), (0, H, H, H), (1,))):
        for layer in range(4):
            a, b, c = (
                tuple(x + by * (at == layer) for at, x in enumerate(row))
                for row, by in ((abc.a, t), (abc.b, -t), (abc.c, -2 * t))
            )
            assert classify(ABC(a, b, c)) == classify(abc)


@pytest.mark.parametrize(
    ("name", "regime"),
    [
        ("mup", "feature learning"),
        ("spectral", "feature learning"),
        ("everett_mup_full", "feature learning"),
        ("everett_standard_full", "unstable"),  # a readout of n^-1/2 lets the features' change move it by n^1/2
        ("mean_field", "feature learning"),
        ("ntk", "kernel"),
        ("standard", "unstable"),
        ("megatron", "unstable"),
    ],
)
def test_regimes_of_the_rule_base(name: str, regime: str) -> None:
    assert classify(of_parametrization(BASE, name)).name == regime
