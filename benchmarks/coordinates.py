"""Predicted powers against measured slopes: families x parametrizations x optimizers, in the linear response.

    python benchmarks/coordinates.py                          # everything; about an hour on one core
    python benchmarks/coordinates.py -f gpt,llama -p mup -o adamw

Each model is built at four or five widths, drawn by the parametrization's own formula, and stepped once with a
vanishing rate and eps in float64; slopes are fitted over the three largest widths. A value's init, effective part
(dW x), propagating part (W dx) and gradient count if both prediction and measurement exist; a quantity agrees within
0.12 (0.25 for the init of an output with few entries). The table goes to benchmarks/coordinates.md, with every
disagreement.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.families import FAMILIES, Family
from mupc import analyze
from mupc.analysis import Analysis
from mupc.audit.compare import counterparts, moved_dims
from mupc.check.hold import Held, hold
from mupc.check.measure import Measured, measure
from mupc.check.scene import Loss, Scene, multiplied, planned
from mupc.flow import Flow, Ray, flow, from_plan
from mupc.flow.numbers import probed
from mupc.flow.verdicts import judged_nodes
from mupc.initializers import reset
from mupc.instance import Instance
from mupc.plan import make_plan
from mupc.rulebase import load_rules

PARTS = ("init", "effective", "propagating", "grad")
RULES = load_rules()
HERE = Path(__file__).resolve().parent


Runs = dict[int, list[Measured]]


def measured(family: Family, parametrization: str, optimizer: str, seeds: int) -> tuple[list[Held], Flow, Any]:
    """Every judged quantity of one combination."""
    runs, found, large = stepped(family, parametrization, optimizer, seeds)
    words = judged_nodes(large)
    known = set(next(iter(runs.values()))[0].values)
    nodes = [node.name for node in words if node.name in known]
    few = [node.name for node, word in words.items() if word == "output"]
    return hold(runs, found, nodes, few, chance=False), found, large


def stepped(
    family: Family, parametrization: str, optimizer: str, seeds: int, steps: int | None = None, lr: float = 1e-3,
    loss: Loss | None = None,
) -> tuple[Runs, Flow, Analysis]:  # fmt: skip
    """A combination at all its widths, in the linear response or after so many steps, and what flow says of it."""
    runs: Runs = {}
    widths = family.widths if "muon" not in optimizer else tuple(w for w in family.widths if w <= 512)
    base: Any = None
    twins = []
    for width in widths:
        for seed in range(seeds):
            torch.manual_seed(seed)
            args = family.inputs()
            torch.manual_seed(100 + seed)
            model = family.make(width)
            if seed == 0:  # one analysis and one plan for all seeds
                analysis = analyze(model, args)
                base = base or analysis
                pairs = counterparts(list(analysis.roles.parameters), set(base.roles.parameters))
                grown = {d.name: d.base for d in moved_dims(base, analysis, pairs) if d.grows}
                plan = make_plan(
                    analysis, base=grown, parametrization=parametrization, optimizer=optimizer, rulebase=RULES
                )
            reset(model, plan)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if plan.parameter(name).sub_role == "bias":
                        p.zero_()
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            inputs = dict(zip(analysis.trace.inputs, tensors, strict=True))
            scales, uses = multiplied(analysis, plan)
            scene = Scene(model, analysis, inputs, planned(analysis, plan, RULES), loss, scales, uses)
            runs.setdefault(width, []).append(measure(scene, steps=steps, lr=lr, seed=seed))
        twins.append(Instance(model, None, analysis))
    numbers = probed(twins[0], twins[1], Fraction(2))
    large = twins[-1].analysis
    plan = make_plan(large, parametrization=parametrization, optimizer=optimizer, rulebase=RULES)
    ray = Ray(depths=frozenset(d.name for d in plan.dims if d.kind == "depth"))
    found = flow(large, from_plan(plan, large.roles, RULES, ray, numbers), ray)
    return runs, found, large


@click.command()
@click.option("-f", "--families", default=",".join(FAMILIES))
@click.option("-p", "--parametrizations", default="standard,mup,ntk,spectral")
@click.option("-o", "--optimizers", default="sgd,adamw,muon")
@click.option("--seeds", default=6)
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "coordinates.md")
def main(families: str, parametrizations: str, optimizers: str, seeds: int, out: Path) -> None:
    """Run, show progress on stderr, write the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows, wrong = [], []
    kept = out.with_suffix(".jsonl")
    done = {}
    if kept.is_file():
        done = {tuple(r["key"]): r for r in map(json.loads, kept.read_text().splitlines())}
    for family in families.split(","):
        for parametrization in parametrizations.split(","):
            for optimizer in optimizers.split(","):
                key = (family, parametrization, optimizer, seeds)
                if key not in done:
                    done[key] = one(key)
                    with kept.open("a") as file:
                        file.write(json.dumps(done[key]) + "\n")
                row = done[key]
                print(f"{family} {parametrization} {optimizer}: {row['agree']}/{row['judged']} ({row['s']:.0f} s)",
                      file=sys.stderr, flush=True)  # fmt: skip
                rows.append(row)
                wrong += row["wrong"]
    out.write_text(table(rows, wrong), encoding="utf-8")


def one(key: tuple[str, str, str, int]) -> dict[str, Any]:
    """One combination's counts and its disagreements."""
    family, parametrization, optimizer, seeds = key
    start = time.perf_counter()
    held, _, analysis = measured(FAMILIES[family], parametrization, optimizer, seeds)
    judged: Counter[str] = Counter()
    within_bound: Counter[str] = Counter()
    agree: Counter[str] = Counter()
    wrong = []
    places = {n.name: n for n in analysis.dims_stage.facts.trace.graph.nodes}
    for h in held:
        if h.quantity not in PARTS or h.within is None:
            continue
        judged[h.quantity] += 1
        agree[h.quantity] += bool(h.within)
        within_bound[h.quantity] += bool(h.within) or under(h)
        if not h.within:
            node = places[h.node]
            slope = "nothing" if h.slope is None else f"{h.slope.power:.2f} ± {h.slope.half or 0:.2f}"
            below = h.slope is not None and h.predicted is not None and h.slope.power < float(h.predicted)
            wrong.append([family, parametrization, optimizer, f"{node.meta.get('module')} ({node.meta.get('source')})",
                          h.quantity, str(h.predicted), slope, reason(h, below)])  # fmt: skip
    return {
        "key": list(key), "judged": sum(judged.values()), "agree": sum(agree.values()),
        "bound": sum(within_bound.values()),
        "parts": {q: [agree[q], judged[q]] for q in PARTS}, "wrong": wrong, "s": time.perf_counter() - start,
    }  # fmt: skip


def under(held: Held) -> bool:
    """A propagating part below the operator norm's bound, and not below what an unaligned change makes."""
    if held.quantity != "propagating" or held.slope is None or held.predicted is None:
        return False
    return float(held.predicted - held.loose) - 0.12 <= held.slope.power <= float(held.predicted)


def reason(held: Held, below: bool) -> str:
    """Why a slope may miss its power, by what is missed."""
    if held.predicted is None:
        return "no rule says that anything arrives here"
    if held.quantity == "propagating" and below:
        return "the operator norm is a bound: the change is not aligned with the weight"
    if (
        held.slope is not None
        and held.slope.half is not None
        and abs(held.slope.power - float(held.predicted)) <= held.slope.half + 0.12
    ):
        return "within its 95 % interval"
    return "not yet at its power at these widths"


def table(rows: list[dict[str, Any]], wrong: list[list[str]]) -> str:
    """Markdown."""
    total, agree = sum(r["judged"] for r in rows), sum(r["agree"] for r in rows)
    bound = sum(r["bound"] for r in rows)
    lines = [
        "# The coordinate check, predicted and measured", "",
        "Written by `python benchmarks/coordinates.py`, which says what is counted.",
        f"Machine: {platform.machine()}, 1 thread, torch {torch.__version__}.", "",
        f"**{agree} of {total} slopes agree ({100 * agree / total:.1f}%)**, strictly: no allowance for chance. A "
        "propagating part is predicted by the weight's operator norm, a bound that a change reaches if it is aligned. "
        f"Counting those that lie between it and the unaligned power, {bound} agree ({100 * bound / total:.1f}%).", "",
        "| family | parametrization | optimizer | init | effective | propagating | gradient | all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for r in rows:
        cells = [f"{a}/{n}" for a, n in r["parts"].values()]
        share = 100 * r["agree"] / r["judged"] if r["judged"] else 100.0
        lines.append(f"| {' | '.join(map(str, r['key'][:3]))} | {' | '.join(cells)} | {share:.0f}% |")
    lines += ["", "## Every disagreement", "",
              "| family | parametrization | optimizer | value | quantity | predicted | measured | why |",
              "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    root = str(HERE.parent) + "/"
    for row in wrong:
        lines.append("| " + " | ".join(str(cell).replace(root, "").split("site-packages/")[-1] for cell in row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
