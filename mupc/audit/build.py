"""A target at two sizes, with values: what `mupc audit` holds against each other. Runs the user's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from mupc.analysis import Analysis
from mupc.audit.compare import audit, counterparts, moved_dims
from mupc.audit.document import Audit
from mupc.inputs import Inputs, find_inputs
from mupc.instance import Maker
from mupc.rulebase import load_rules
from mupc.target.build import real
from mupc.target.load import build_target

if TYPE_CHECKING:
    from mupc.child import Job


def audit_target(job: Job) -> tuple[Audit, str]:
    """The audit, and how the inputs were found. Raises `MupcError` for whatever goes wrong."""
    from mupc.target.python import function_at

    options = dict(job.options)
    base: Mapping[str, int] = options.pop("base")
    place: str | None = options.pop("optimizer_config", None)
    extra: Sequence[str] = options.pop("rules", ())
    configure = function_at(place, "--optimizer-config") if place else None
    with real():
        built = build_target(job.target, job.settings)
    kept: list[Inputs] = []

    def inputs(model: nn.Module) -> Inputs:
        kept.append(find_inputs(model, job.inputs, built.example_inputs, built.own))
        return kept[-1]

    maker = Maker(built, inputs, job.target, job.fixed, job.scaling, configure)
    small, large = (maker.instance(changes) for changes in (dict(base), {}))
    notes: tuple[str, ...] = ()
    if moved := instead(small.analysis, large.analysis):
        grown, held = moved
        maker = replace(maker, fixed=(*maker.fixed, *held), scaling=(*maker.scaling, *grown))
        small, large = (maker.instance(changes) for changes in (dict(base), {}))
        notes = (f"judged with {' and '.join(grown)} growing in place of {' and '.join(held)}, as between the two",)
    found = audit(small, large, rulebase=load_rules(tuple(extra)), **options)
    return found.model_copy(update={"notes": (*notes, *found.notes)}), kept[-1].how


def instead(small: Analysis, large: Analysis) -> tuple[list[str], list[str]] | None:
    """Inner dims that grow between the two models while heads do not, and those heads: head_dim in place of n_head."""
    pairs = counterparts(list(large.roles.parameters), set(small.roles.parameters))
    dims = {d.name: d for d in moved_dims(small, large, pairs)}
    kinds = {d.name: d.kind for d in large.roles.dims}
    grown = [n for n, d in dims.items() if kinds.get(n) == "inner" and not d.grows and d.base != d.size]
    held = [n for n, d in dims.items() if kinds.get(n) == "heads" and d.grows and d.base == d.size]
    return (grown, held) if grown and held else None
