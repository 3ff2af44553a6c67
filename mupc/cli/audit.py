"""`mupc audit TARGET`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from mupc.child import Job, run
from mupc.cli.options import parse_base, reads_a_target
from mupc.cli.output import colored, progress, write
from mupc.config import rule_folders
from mupc.errors import MupcError


@click.command()
@click.argument("target")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--base",
    multiple=True,
    metavar="KEY=SIZE",
    help="The settings of a smaller build, where the hyperparameters are right: n_embd=128; repeatable.",
)
@click.option(
    "--optimizer-config",
    metavar="PLACE",
    help="train.py:function, called with the model, returns its optimizer. Default: the factory returns both.",
)
@click.option("--optimizer", metavar="NAME", help="The rule to judge rates by. Default: that of the optimizer's class.")
@click.option("--verbose", "-v", is_flag=True, help="Every tensor, those that are right too.")
@reads_a_target(timeout=300.0, memory=16.0)
def audit(
    target: str,
    settings: tuple[str, ...],
    base: tuple[str, ...],
    optimizer_config: str | None,
    inputs: tuple[str, ...],
    fixed: tuple[str, ...],
    scaling: tuple[str, ...],
    parametrization: str,
    optimizer: str | None,
    form: str,
    verbose: bool,
    path: Path | None,
    timeout: float,
    memory: float,
) -> int:
    """Hold a set-up's own init and rates against a parametrization.

    TARGET is built twice with its real init: as it is, and with the settings of --base. How the init of every tensor
    and the groups of its optimizer change from one to the other is compared with how they should. Exit code 1 where
    something is off.
    """
    if not base:
        raise MupcError("audit compares two sizes: give the smaller one's settings, for example --base n_embd=128")
    options = {
        "base": parse_base(base), "optimizer_config": optimizer_config,
        "parametrization": parametrization, "optimizer": optimizer, "rules": rule_folders(),
    }  # fmt: skip
    with progress(f"building {target} twice"):
        answer = run(Job(target, settings, inputs, options, fixed, scaling, timeout, memory, "audit"))
    click.echo(f"inputs {answer.how}", err=True)
    from mupc.audit.document import Audit
    from mupc.report import audit as report

    found = Audit.from_json(answer.document)
    if form == "json":
        write(answer.document, path)
    else:
        width = shutil.get_terminal_size().columns if path is None else 100
        write(report.render(found, verbose=verbose, color=colored(path), width=width), path)
    return 1 if any(row.off for row in found.rows) else 0
