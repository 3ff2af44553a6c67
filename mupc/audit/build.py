"""A target at two sizes, with values: what `mupc audit` holds against each other. Runs the user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from mupc.analysis import Analysis, analyze
from mupc.audit.compare import Setup, audit
from mupc.audit.document import Audit
from mupc.blame import blame
from mupc.errors import MupcError, TargetError
from mupc.inputs import Inputs, find_inputs
from mupc.rulebase import load_rules
from mupc.structure import unwrapped
from mupc.target.build import real
from mupc.target.load import Built, build_target

if TYPE_CHECKING:
    from mupc.child import Job


def audit_target(job: Job) -> tuple[Audit, str]:
    """The audit, and how the inputs were found. Raises `MupcError` for whatever goes wrong."""
    options = dict(job.options)
    base: Mapping[str, int] = options.pop("base")
    place: str | None = options.pop("optimizer_config", None)
    extra: Sequence[str] = options.pop("rules", ())
    configure = configured(place) if place else None
    with real():
        built = build_target(job.target, job.settings)
        inputs: list[Inputs] = []
        small, large = (_setup(job, built, changes, configure, inputs) for changes in (dict(base), {}))
    return audit(small, large, rulebase=load_rules(tuple(extra)), **options), inputs[-1].how


def _setup(
    job: Job, built: Built, changes: Mapping[str, Any], configure: Callable[[nn.Module], Any] | None, kept: list[Inputs]
) -> Setup:
    torch.manual_seed(0)
    model, optimizer = built.remake(changes)
    model = unwrapped(model)
    if configure is not None:
        try:
            optimizer = configure(model)
        except (Exception, SystemExit) as error:
            raise TargetError(blame(error)) from error
    kept.append(find_inputs(model, job.inputs, built.example_inputs, built.own))
    analysis: Analysis = analyze(
        model, kept[-1].args, kept[-1].kwargs, fixed=job.fixed, scaling=job.scaling,
        sizes={**built.sizes, **changes}, target=job.target,
    )  # fmt: skip
    return Setup(model, optimizer, analysis)


def configured(place: str, option: str = "--optimizer-config") -> Callable[..., Any]:
    """`train.py:configure`, a function of the user's: one that is given the model and returns its optimizer."""
    from mupc.target.python import import_place

    where, colon, name = place.rpartition(":")
    if not colon or not name.isidentifier():
        raise MupcError(f"{option} {place!r}: write train.py:function or pkg.mod:function")
    module = import_place(where, place)
    found = getattr(module, name, None)
    if not callable(found):
        have = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise MupcError(f"{where} has no function {name!r}; it has {', '.join(have) or 'none'}")
    return cast("Callable[..., Any]", found)
