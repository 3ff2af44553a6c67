"""The set-up of a target as it stands, however much of it can be had: two builds, else one, else nothing."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import torch

from mupc.analysis import Analysis
from mupc.errors import MupcError
from mupc.flow import flow
from mupc.flow.depth import DEPTH, Stream, along_depth, stacks
from mupc.flow.findings import Told, tell
from mupc.flow.numbers import Numbers, matched, probed
from mupc.flow.standing import from_model, from_twins
from mupc.inputs import Inputs
from mupc.rulebase import RuleBase
from mupc.structure import unwrapped
from mupc.target.build import real
from mupc.target.load import Built
from mupc.target.twins import MOST, Twins, twins


def stand(
    built: Built, analysis: Analysis, given: Inputs, rules: RuleBase, optimizer: str, *, declared: bool,
    fixed: Sequence[str] = (), scaling: Sequence[str] = (),
) -> tuple[Told | None, Numbers, str]:  # fmt: skip
    """What is told of the set-up, its numbers, and why nothing is told where nothing is."""
    found = twins(built, analysis, lambda model: given, fixed=tuple(fixed), scaling=tuple(scaling))
    if isinstance(found, Twins):
        numbers = probed(found.small.analysis, found.large.analysis, found.ratio)
        standing = from_twins(found.small, found.large, found.ratio, rules, optimizer, numbers.powers, found.again)
        notes = (f"built at {found.said}", *_unknown(numbers))
        streams = _streams(found, rules, optimizer)
        return tell(found.large.analysis, standing, declared=declared, notes=notes, streams=streams), numbers, ""
    numbers = matched(analysis)
    if sum(prod(p.shape) for p in analysis.roles.parameters.values()) > MOST:
        return None, numbers, f"{found}, and the model itself is too large to draw its init"
    torch.manual_seed(0)
    try:
        with real():
            model = unwrapped(built.remake({})[0])
    except (MupcError, RuntimeError, ValueError, TypeError) as error:
        return None, numbers, f"{found}, and it could not be built with values: {error}"
    standing = from_model(model, analysis, rules, optimizer, numbers.powers)
    return tell(analysis, standing, declared=declared, notes=(found, *_unknown(numbers))), numbers, ""


def _streams(found: Twins, rules: RuleBase, optimizer: str) -> list[Stream]:
    """What residual stacks add up to, the init read from two depths; nothing where depth cannot be set."""
    small, deep = found.small, found.deep
    if deep is None or not stacks(deep.analysis):
        return []
    ratio = Fraction(2)
    standing = from_twins(small, deep, ratio, rules, optimizer, probed(small.analysis, deep.analysis, ratio).powers)
    steps = flow(deep.analysis, standing.setup, DEPTH).steps
    return along_depth(deep.analysis, standing.setup, steps)


def _unknown(numbers: Numbers) -> list[str]:
    return [f"a number that may go with width, taken as none: {place}" for place in numbers.unknown]
