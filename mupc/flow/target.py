"""The set-up of a target as it stands, however much of it can be had: two builds, else one, else nothing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

from mupc.analysis import Analysis
from mupc.errors import MupcError
from mupc.flow import flow
from mupc.flow.depth import DEPTH, Stream, along_depth, stacks
from mupc.flow.findings import Told, tell
from mupc.flow.numbers import matched, probed
from mupc.flow.standing import from_model, from_twins
from mupc.instance import Draws, Maker
from mupc.rulebase import RuleBase
from mupc.target.load import Target
from mupc.target.twins import MOST, Twins, twins


def stand(
    target: Target, analysis: Analysis, rules: RuleBase, optimizer: str, *, declared: bool,
    fixed: Sequence[str] = (), scaling: Sequence[str] = (),
) -> Told:  # fmt: skip
    """What is told of the set-up, or why nothing is."""
    maker = Maker(target.built, lambda model: target.inputs, target.name, fixed, scaling)
    found = twins(maker, analysis)
    if isinstance(found, Twins):
        numbers = probed(found.small, found.large, found.ratio)
        draws = Draws.of(maker, found.small, found.large, found.settings)
        standing = from_twins(found.small, found.large, found.ratio, rules, optimizer, numbers, draws)
        notes, streams = (f"built at {found.said}",), _streams(maker, found, rules, optimizer)
        return tell(found.large.analysis, standing, numbers, declared=declared, notes=notes, streams=streams)
    numbers = matched(analysis)
    if sum(prod(p.shape) for p in analysis.roles.parameters.values()) > MOST:
        why = f"{found}, and the model itself is too large to draw its init"
        return Told(None, literals=numbers.told, why=why)
    try:
        model, _ = maker.model({})
    except MupcError as error:
        return Told(None, literals=numbers.told, why=f"{found}, and it could not be built with values: {error}")
    numbers = matched(analysis, model)
    standing = from_model(model, analysis, rules, optimizer, numbers)
    return tell(analysis, standing, numbers, declared=declared, notes=(found,))


def _streams(maker: Maker, found: Twins, rules: RuleBase, optimizer: str) -> list[Stream]:
    """What residual stacks add up to, the init read from two depths; nothing where depth cannot be set."""
    small, deep = found.small, found.deep
    if deep is None or not stacks(deep.analysis):
        return []
    ratio = Fraction(2)
    draws = Draws.of(maker, small, deep, (found.settings[0], found.deeper))
    standing = from_twins(small, deep, ratio, rules, optimizer, probed(small, deep, ratio), draws)
    return along_depth(deep.analysis, standing.setup, flow(deep.analysis, standing.setup, DEPTH).steps)
