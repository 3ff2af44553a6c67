"""The measured check beside microsoft/mup's coord_check: the same GPT, widths, seeds and steps, in one process.

    pip install mup==1.0.0 pandas && python benchmarks/coord_check.py

Both train the model at four widths, three seeds, a few steps of AdamW in float32 under muP, on one thread, and look at
every activation. mup's records their mean absolute value, before each step. mupc's (`mupc check --regime training`)
records every judged value's size, change, own and propagating part and gradient, fits slopes and holds them against
flow's prediction; analysis and drawing by the plan are counted. They alternate; the better time of each is told.
"""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.coordinates import stepped
from benchmarks.families import Block, Family
from mupc.check.judge import checked

WIDTHS, SEEDS, VOCAB = (64, 128, 256, 512), 3, 64


class GPT(nn.Module):
    """Two blocks. `readout` is the class of its last layer."""

    def __init__(self, width: int, readout: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.embed, self.ln = nn.Embedding(VOCAB, width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, False) for _ in range(2))
        self.head = readout(width, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x)).flatten(0, 1)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCAB, (8, 33), generator=generator)
    return ids[:, :-1], ids[:, 1:].flatten()


def theirs(steps: int) -> Any:
    """microsoft/mup's: base shapes, coord_check's data."""
    from mup import MuReadout, set_base_shapes
    from mup.coord_check import get_coord_data

    base, delta = GPT(WIDTHS[0], MuReadout), GPT(2 * WIDTHS[0], MuReadout)

    def made(width: int) -> Callable[[], nn.Module]:
        return lambda: set_base_shapes(GPT(width, MuReadout), base, delta=delta)

    models = {width: made(width) for width in WIDTHS}
    return get_coord_data(models, [batch()], mup=True, lr=1e-3, optimizer="adamw", nsteps=steps, nseeds=SEEDS,
                          cuda=False, lossfn="xent", show_progress=False)  # fmt: skip


def ours(steps: int) -> Any:
    """mupc's, by the same plan as `mupc check --parametrization mup`; 0 steps: in the linear response."""
    ids, targets = batch()
    family = Family(GPT, lambda: (ids,), WIDTHS)
    runs, found, large = stepped(
        family, "mup", "adamw", SEEDS, steps or None, 1e-3, lambda output: F.cross_entropy(output, targets)
    )
    return checked(large, found, runs, target="gpt", setup="mup", steps=steps, how="")


@click.command(help=__doc__)
@click.option("--steps", default=5)
@click.option("--times", default=3)
def main(steps: int, times: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    jobs = {"mup": lambda: theirs(steps), "training": lambda: ours(steps), "linear": lambda: ours(0)}
    took: dict[str, list[float]] = {name: [] for name in jobs}
    checks = {}
    for _ in range(times):
        for name, job in jobs.items():
            start = time.perf_counter()
            checks[name] = job()
            took[name].append(time.perf_counter() - start)
    click.echo(f"Machine: {platform.machine()}, 1 thread, torch {torch.__version__}")
    click.echo(f"widths {WIDTHS}, {SEEDS} seeds, {steps} steps of AdamW under muP")
    first = min(took["mup"])
    click.echo(f"microsoft/mup coord_check: {first:.1f} s")
    for name in ("training", "linear"):
        best, check = min(took[name]), checks[name]
        click.echo(f"mupc check --regime {name}: {best:.1f} s, {best / first:.2f} of that; "
                   f"{check.agreeing} of {check.judged} values as predicted")  # fmt: skip


if __name__ == "__main__":
    main()
