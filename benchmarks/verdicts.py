"""Verdicts at a real learning rate: does what flow calls growing, stable or vanishing grow, stay or vanish in training?

    python benchmarks/verdicts.py                        # 20 families, two parametrizations, three optimizers
    python benchmarks/verdicts.py -f gpt,llama -p mup

Each model is trained for five steps in float32 at the widths of benchmarks/families.py up to 512, three seeds each, by
the parametrization's own init and rates. A value's measured verdict is that of its slope over the three largest widths
(threshold 0.25), unclear where the seeds leave both open; a predicted one is flow's power. They agree too where a slope
lies between the powers of a sum's terms, which have not parted yet, or what is bounded has stopped growing. The table
goes to benchmarks/verdicts.md, with every disagreement.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.coordinates import stepped
from benchmarks.families import FAMILIES
from mupc.check.judge import checked

HERE = Path(__file__).resolve().parent
RATES = {"sgd": 0.05, "adamw": 2e-3, "muon": 0.02}  # at the smallest width
STEPS, SEEDS, WIDEST = 5, 3, 512


def one(family: str, parametrization: str, optimizer: str) -> dict[str, Any]:
    """One combination: how many values have the verdict that is predicted, and which have not."""
    start = time.perf_counter()
    kept = dataclasses.replace(
        FAMILIES[family], widths=tuple(w for w in FAMILIES[family].widths if w <= WIDEST)
    )  # fmt: skip
    runs, found, large = stepped(kept, parametrization, optimizer, SEEDS, STEPS, RATES[optimizer])
    check = checked(large, found, runs, target=family, setup=parametrization, steps=STEPS, how="")
    judged = [row for row in check.rows if row.verdict != "unknown"]
    wrong = [
        [family, parametrization, optimizer, f"{r.name} ({r.source})", r.predicted, r.measured, _slopes(r)]
        for r in judged if r.verdict == "off"
    ]  # fmt: skip
    return {
        "key": [family, parametrization, optimizer], "agree": len(judged) - len(wrong), "judged": len(judged),
        "unclear": len(check.rows) - len(judged), "wrong": wrong, "s": time.perf_counter() - start,
    }  # fmt: skip


def _slopes(row: Any) -> str:
    shown = [s for s in row.series if s.quantity in ("init", "change") and s.slope is not None]
    return ", ".join(f"{s.quantity} {s.slope:.2f}" + (f" ± {s.half:.2f}" if s.half is not None else "") for s in shown)


@click.command(help=__doc__)
@click.option("-f", "--families", default=",".join(FAMILIES))
@click.option("-p", "--parametrizations", default="standard,mup")
@click.option("-o", "--optimizers", default="sgd,adamw,muon")
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "verdicts.md")
def main(families: str, parametrizations: str, optimizers: str, out: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kept = out.with_suffix(".jsonl")
    done = {tuple(r["key"]): r for r in map(json.loads, kept.read_text().splitlines())} if kept.is_file() else {}
    rows = []
    for family in families.split(","):
        for parametrization in parametrizations.split(","):
            for optimizer in optimizers.split(","):
                key = (family, parametrization, optimizer)
                if key not in done:
                    done[key] = one(*key)
                    with kept.open("a") as file:
                        file.write(json.dumps(done[key]) + "\n")
                row = done[key]
                print(f"{' '.join(key)}: {row['agree']}/{row['judged']}, {row['unclear']} unclear ({row['s']:.0f} s)",
                      file=sys.stderr, flush=True)  # fmt: skip
                rows.append(row)
    out.write_text(table(rows), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    agree, judged, unclear = (sum(r[k] for r in rows) for k in ("agree", "judged", "unclear"))
    rates = ", ".join(f"{name} {rate:g}" for name, rate in RATES.items())
    lines = [
        "# Verdicts at a real learning rate", "",
        "Written by `python benchmarks/verdicts.py`, which says what is counted.",
        f"Machine: {platform.machine()}, 1 thread, torch {torch.__version__}. {STEPS} steps, {SEEDS} seeds; rates at "
        f"the smallest width: {rates}.", "",
        f"**{agree} of {judged} verdicts agree ({100 * agree / max(1, judged):.1f}%)**, slopes between those of a "
        f"sum's terms included; {unclear} more are unclear.", "",
        "| family | parametrization | optimizer | agree | judged | unclear |", "| --- | --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(r['key'])} | {r['agree']} | {r['judged']} | {r['unclear']} |" for r in rows), "",
        "## Every disagreement", "",
        "| family | parametrization | optimizer | value | predicted | measured | slopes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    root = str(HERE.parent) + "/"
    for row in (cell for r in rows for cell in r["wrong"]):
        lines.append("| " + " | ".join(str(cell).replace(root, "").split("site-packages/")[-1] for cell in row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
