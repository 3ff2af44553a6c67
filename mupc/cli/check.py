"""`mupc check TARGET`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

from mupc.child import Job, run
from mupc.cli.options import reads_a_target
from mupc.cli.output import colored, write
from mupc.config import rule_folders
from mupc.errors import MupcError


@click.command()
@click.argument("target")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--widths", multiple=True, metavar="KEY=A,B,C",
    help="Settings and their sizes, n_embd=64,128,256,512; repeatable. Default: found by scaling what scales the dims.",
)  # fmt: skip
@click.option(
    "--regime", type=click.Choice(["linear", "training"]), default="linear", show_default=True,
    help="linear: a vanishing rate in float64, slopes held against flow's; training: real steps, verdicts alone.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True)
@click.option("--optimizer", default="adamw", show_default=True, metavar="NAME")
@click.option("--optimizer-config", metavar="PLACE", help="train.py:function, called with the model.")
@click.option("--loss", metavar="PLACE", help="train.py:function of the output, or of output and targets.")
@click.option("--data", metavar="PLACE", help="train.py:function that returns inputs, or (inputs, targets).")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the curves to this file.")
@click.option("--fresh", is_flag=True, help="Measure again what an earlier run measured.")
@click.option("--verbose", "-v", is_flag=True, help="Every value, those that agree too.")
@reads_a_target(timeout=1800.0, memory=16.0, parametrization=None)
def check(
    target: str,
    settings: tuple[str, ...],
    widths: tuple[str, ...],
    regime: str,
    steps: int,
    seeds: int,
    lr: float,
    optimizer: str,
    optimizer_config: str | None,
    loss: str | None,
    data: str | None,
    page: Path | None,
    fresh: bool,
    inputs: tuple[str, ...],
    fixed: tuple[str, ...],
    scaling: tuple[str, ...],
    parametrization: str | None,
    form: str,
    verbose: bool,
    path: Path | None,
    timeout: float,
    memory: float,
) -> int:
    """Measure how every activation scales with width, and hold it against what flow predicts.

    TARGET is built at several widths and trained a little at each. Without --parametrization it is taken as it stands,
    with its own init and its own optimizer or, where its factory returns none, one rate for all. Exit code 1 where
    something grows or vanishes, or the measurement disagrees with the prediction.
    """
    options = {
        "widths": _widths(widths), "regime": regime, "steps": steps, "seeds": seeds, "lr": lr, "optimizer": optimizer,
        "parametrization": parametrization, "optimizer_config": optimizer_config, "loss": loss, "data": data,
        "fresh": fresh, "rules": rule_folders(),
    }  # fmt: skip
    answer = run(Job(target, settings, inputs, options, fixed, scaling, timeout, memory, "check"))
    click.echo(f"inputs {answer.how}", err=True)
    from mupc.check.document import Check
    from mupc.report import check as report

    found = Check.from_json(answer.document)
    if page is not None:
        from mupc.report.curves import html

        write(html(found), page)
    if form == "json":
        write(answer.document, path)
    else:
        width = shutil.get_terminal_size().columns if path is None else 100
        write(report.render(found, verbose=verbose, color=colored(path), width=width), path)
    return 0 if found.passed else 1


def _widths(given: tuple[str, ...]) -> dict[str, list[int]]:
    """`("n_embd=64,128",)` -> `{"n_embd": [64, 128]}`."""
    out: dict[str, list[int]] = {}
    for one in given:
        found = re.fullmatch(r"([\w.]+)=(\d+(?:,\d+)+)", one)
        if found is None:
            raise MupcError(f"--widths {one!r}: write KEY=A,B,C, for example n_embd=64,128,256,512")
        sizes = [int(word) for word in found[2].split(",")]
        if sizes != sorted(set(sizes)) or sizes[0] == 0:
            raise MupcError(f"--widths {one!r}: give sizes from small to large, each once")
        out[found[1]] = sizes
    if len({len(sizes) for sizes in out.values()}) > 1:
        raise MupcError("--widths: every setting needs as many sizes as the others")
    return out
