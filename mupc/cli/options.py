"""Option values that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mupc.errors import MupcError

Command = Callable[..., Any]


def reads_a_target(timeout: float, memory: float, parametrization: str | None = "mup") -> Callable[[Command], Command]:
    """The options of every command that imports a target and traces it, and where its result goes."""
    positive = click.FloatRange(min=0, min_open=True)
    spec = "An input, 'idx:int64[2,128]<50257'; repeatable. Default: inferred."
    options = (
        click.option("--input", "inputs", multiple=True, metavar="SPEC", help=spec),
        click.option("--fixed", multiple=True, metavar="DIM", help="Hold this dim fixed, whatever is inferred."),
        click.option("--scaling", multiple=True, metavar="DIM", help="Let this dim grow, whatever is inferred."),
        click.option("--parametrization", default=parametrization, show_default=True, metavar="NAME"),
        click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True),
        click.option(
            "--output", "-o", "path", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of stdout."
        ),
        click.option("--timeout", type=positive, default=timeout, show_default=True, metavar="SECONDS"),
        click.option("--memory", type=positive, default=memory, show_default=True, metavar="GB"),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def parse_base(pairs: tuple[str, ...]) -> dict[str, int]:
    """`("n_embd=256",)` -> `{"n_embd": 256}`."""
    base: dict[str, int] = {}
    for pair in pairs:
        found = re.fullmatch(r"([\w.]+)=(\d+)", pair)
        if found is None or int(found[2]) == 0:
            raise MupcError(f"--base {pair!r}: write DIM=SIZE, for example n_embd=256")
        base[found[1]] = int(found[2])
    return base
