"""`mupc rules`."""

from __future__ import annotations

import json

import click

from mupc.cli.output import write
from mupc.config import rule_folders


@click.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rules(form: str) -> None:
    """Everything in the rule base, one line an entry."""
    from mupc.rulebase import load_rules

    rows = load_rules(rule_folders()).listing()
    if form == "json":
        write(json.dumps(rows, indent=2, ensure_ascii=False), None)
    else:
        wide = max(len(row["name"]) for row in rows)
        write("\n".join(f"{row['kind']:<15}  {row['name']:<{wide}}  {row['title']}" for row in rows), None)
