"""`mupc explain NAME`."""

from __future__ import annotations

import click

from mupc.cli.output import write


@click.command()
@click.argument("name")
def explain(name: str) -> None:
    """What an entry of the rule base says, and its source."""
    from mupc.rulebase import load_rules

    write(load_rules().explain(name), None)
