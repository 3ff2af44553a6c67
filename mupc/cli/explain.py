"""`mupc explain NAME`."""

from __future__ import annotations

import click

from mupc.cli.output import write
from mupc.config import rule_folders


@click.command()
@click.argument("name")
def explain(name: str) -> None:
    """What an entry of the rule base says, and its source."""
    from mupc.rulebase import load_rules

    write(load_rules(rule_folders()).explain(name), None)
