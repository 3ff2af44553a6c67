"""`mupc analyze TARGET`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from mupc.child import Job, run
from mupc.cli.options import parse_base, reads_a_target
from mupc.cli.output import colored, progress, write
from mupc.config import rule_folders


@click.command()
@click.argument("target")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--base",
    multiple=True,
    metavar="DIM=SIZE",
    help="The size that hyperparameters were tuned at, n_embd=256; repeatable.",
)
@click.option("--optimizer", default="adamw", show_default=True, metavar="NAME")
@click.option("--weight-decay", metavar="NAME", help="A rule for weight decay instead of the optimizer's own.")
@click.option("--standing/--no-standing", default=True, help="Judge the set-up as it stands (builds it twice, small).")
@click.option(
    "--parametrized", is_flag=True, help="The code is meant to be parametrized: what grows or freezes is a finding."
)
@click.option("--verbose", "-v", is_flag=True, help="Say why, for every verdict.")
@reads_a_target(timeout=120.0, memory=8.0)
def analyze(
    target: str,
    settings: tuple[str, ...],
    inputs: tuple[str, ...],
    base: tuple[str, ...],
    fixed: tuple[str, ...],
    scaling: tuple[str, ...],
    parametrization: str,
    optimizer: str,
    weight_decay: str | None,
    standing: bool,
    parametrized: bool,
    form: str,
    verbose: bool,
    path: Path | None,
    timeout: float,
    memory: float,
) -> int:
    """Every parameter's role and scaling.

    TARGET is model.py, model.py:factory, pkg.mod:factory, hf:TYPE, hf:config.json or timm:NAME. It is imported and
    built in a process of its own, on the meta device. KEY=VALUE goes to the factory or config.
    """
    options = {
        "base": parse_base(base), "parametrization": parametrization, "optimizer": optimizer,
        "weight_decay": weight_decay, "rules": rule_folders(), "standing": standing,
        "declared": parametrized,
    }  # fmt: skip
    with progress(f"reading {target}"):
        answer = run(Job(target, settings, inputs, options, fixed, scaling, timeout, memory))
    click.echo(f"inputs {answer.how}", err=True)
    from mupc.plan import Plan, Standing  # pydantic and rich are slow to import, and a bad target needs neither
    from mupc.report import text

    plan = Plan.from_json(answer.document)
    said = None if answer.standing is None else Standing.model_validate_json(answer.standing)
    if form == "json":
        write(answer.document, path)
    else:
        color = colored(path)
        width = shutil.get_terminal_size().columns if path is None else 100
        write(text.render(plan, standing=said, verbose=verbose, color=color, width=width), path)
    return 1 if any(finding.severity != "info" for finding in plan.findings) else 0
