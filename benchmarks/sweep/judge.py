"""What the sweep asks of one model: is it built, traced, classified, and do both oracles agree?"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.sweep.subjects import Subject, subject
from benchmarks.sweep.vary import Variant, shallow, variants, wider
from mupc.analysis import analyze, infer
from mupc.trace import Trace, trace, unhurried
from tests.oracle.jacobian import partition, solved, violations
from tests.oracle.two_widths import Shapes, growth, shapes, unknown, wrong

ORACLE_SECONDS = 60


@dataclass
class Record:
    """One model's row. `stage` is how far it came: unbuildable, no inputs, untraced, traced."""

    library: str
    name: str
    stage: str = "unbuildable"
    model: str = ""
    inputs: str = ""
    error: str = ""
    tensors: int = 0
    unused: int = 0
    unknown: list[str] = field(default_factory=list)
    wide: str = ""
    wide_wrong: list[str] = field(default_factory=list)
    varied: int = 0
    complete: bool = True  # every integer was varied in the time given
    jacobian_wrong: list[str] = field(default_factory=list)
    incomparable: list[str] = field(default_factory=list)  # variants that are other models, and why
    ms: dict[str, float] = field(default_factory=dict)  # bare meta forward, trace, inference


def judge(library: str, name: str) -> Record:
    """Everything about one model. What goes wrong is in the record; only the sweep's own mistakes are raised."""
    record = Record(library, name)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            found = subject(library, name)
            model = found.build(found.config)
        except Exception as error:
            record.error = short(error)
            return record
        record.model = type(model).__name__
        record.stage = "no inputs"
        try:
            args, kwargs, record.inputs = found.call(model)
        except Exception as error:
            record.error = short(error)
            return record
        record.stage = "untraced"
        try:
            analysis = analyze(model, args, kwargs)
        except Exception as error:
            record.error = short(error)
            return record
        record.stage = "traced"
        record.tensors = len(analysis.parameters)
        record.unknown = [f"{n}: {analysis.parameters[n].why[-1:]}" for n in unknown(analysis.parameters)]
        record.unused = sum(p.role == "unused" for p in analysis.parameters.values())
        record.ms = timed(model, args, kwargs)
        compare(record, found, model, analysis)
    return record


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]


def timed(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a bare meta forward, a trace and the inference, each the better of two, side by side."""
    best: dict[str, float] = {}

    def clock(what: str, job: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        out = job()
        took = (time.perf_counter() - start) * 1e3
        best[what] = min(took, best.get(what, took))
        return out

    bare_args, bare_kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, kwargs))

    def bare() -> None:
        with torch.device("meta"):
            model(*bare_args, **bare_kwargs)

    for _ in range(2):
        if "bare" in best or not best:
            try:
                clock("bare", bare)
            except Exception:  # it reads values, which meta tensors have not
                best.pop("bare", None)
        with unhurried():
            graph = clock("trace", lambda: trace(model, args, kwargs))
            clock("infer", lambda graph=graph: infer(model, graph))
    return {what: round(took, 2) for what, took in best.items()}


def compare(record: Record, found: Subject, model: nn.Module, analysis: Any) -> None:
    """Both oracles. They vary a shallower model with the same tensors, only fewer."""
    deadline = time.monotonic() + ORACLE_SECONDS
    config, base = shallow(found.build, found.config, deadline) if found.wide is None else (found.config, shapes(model))
    parameters = {name: p for name, p in analysis.parameters.items() if name in base}
    wide = (
        wider(found.build, config, base, deadline)
        if found.wide is None
        else Variant("as the case says", found.wide, shapes(found.build(found.wide)))
    )
    if wide is not None:
        record.wide = wide.label
        record.wide_wrong = wrong(parameters, growth(base, wide.shapes, found.hard), base)
    axes = partition(model, analysis, named=True)
    for variant in variants(found.build, config, base, deadline):
        if variant is None:
            record.complete = False
            break
        record.varied += 1
        if lines := violations(axes.axes, base, variant.shapes, axes.sizes, axes.sums):
            if excuse := incomparable(found, config, base, variant):
                record.incomparable.append(f"{variant.label}: {excuse}")
            else:
                record.jacobian_wrong += [f"{variant.label}: {line}" for line in lines]


def incomparable(found: Subject, config: Any, base: Shapes, variant: Variant) -> str | None:
    """Why a variant that the partition does not explain says nothing of it: it does not run, is another program, or has
    one more dim, whose size at the base is 1 (a size of 1 is no dim: grouped heads, one to a group)."""
    try:
        model = found.build(variant.config)
        args, kwargs, _ = found.call(model)
        analysis = analyze(model, args, kwargs)
    except Exception as error:
        return f"does not run ({short(error)[:80]})"
    if ops(analysis.trace) != ops(traced(found, config)):
        return "runs other ops"
    axes = partition(model, analysis, named=True)
    ratios, contradictions = solved(axes.axes, variant.shapes, base)
    new = [name for name, size in axes.sizes.items() if (r := ratios.ratio((name,))) is not None and r * size == 1]
    return f"has a dim more, {new[0]}" if new and not contradictions else None


def ops(trace: Trace) -> list[str]:
    return [str(node.target) for node in trace.graph.nodes if node.op == "call_function"]


def traced(found: Subject, config: Any) -> Trace:
    model = found.build(config)
    args, kwargs, _ = found.call(model)
    return trace(model, args, kwargs)


def plain(record: Record) -> dict[str, Any]:
    """The record as JSON has it."""
    return dataclasses.asdict(record)
