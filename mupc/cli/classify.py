"""`mupc classify`."""

from __future__ import annotations

from fractions import Fraction

import click

from mupc.cli.output import write
from mupc.config import rule_folders
from mupc.errors import MupcError


@click.command()
@click.argument("name", required=False)
@click.option("--a", "a", metavar="A1,A2,...", help="Exponents of the multipliers n^-a, the readout's last.")
@click.option("--b", "b", metavar="B1,B2,...", help="Exponents of the init std n^-b.")
@click.option("--c", "c", metavar="C or C1,C2,...", help="Exponents of the rate n^-c.")
@click.option("--hidden", type=click.IntRange(min=0), default=1, show_default=True, help="Hidden layers, with NAME.")
def classify(name: str | None, a: str | None, b: str | None, c: str | None, hidden: int) -> None:
    """Which infinite-width limit a parametrization has under SGD: unstable, trivial, kernel or feature learning.

    NAME is a parametrization of the rule base; or give exponents: --a 0,1/2,1/2 --b 0,0,0 --c 0 is the NTK's.
    """
    from mupc import regime
    from mupc.rulebase import load_rules

    if name is not None and any((a, b, c)):
        raise MupcError("give a parametrization's name or --a, --b and --c, not both")
    if name is not None:
        abc = regime.of_parametrization(load_rules(rule_folders()), name, hidden)
    elif a and b and c:
        abc = regime.ABC.of(_powers("--a", a), _powers("--b", b), _powers("--c", c))
    else:
        raise MupcError("give a parametrization's name, or all of --a, --b and --c")
    found = regime.classify(abc)
    rows = [f"{key} = {', '.join(map(str, powers))}" for key, powers in (("a", abc.a), ("b", abc.b), ("c", abc.c))]
    write("\n".join([f"{found.name}, r = {found.r}", *(f"  {why}" for why in found.why), *rows]), None)


def _powers(option: str, text: str) -> list[Fraction]:
    try:
        return [Fraction(word.strip()) for word in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise MupcError(f"{option} {text!r}: write exponents with commas between, 0,1/2,1/2") from None
