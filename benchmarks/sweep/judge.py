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
from tests.oracle.jacobian import Partition, partition, solved, violations
from tests.oracle.two_widths import STATE, Shapes, growth, shapes, unknown


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
    ends: int = 0  # axes that widen with an input or output, which is data: not judged
    varied: int = 0
    complete: bool = True  # every integer was varied in the time given
    jacobian_wrong: list[str] = field(default_factory=list)
    incomparable: list[str] = field(default_factory=list)  # variants that are other models, and why
    ms: dict[str, float] = field(default_factory=dict)  # bare meta forward, trace, inference


def judge(library: str, name: str, seconds: float = 60.0) -> Record:
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
        compare(record, found, model, analysis, seconds)
    return record


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]


def timed(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of the processor for a bare meta forward, a trace and the inference, each the better of two."""
    best: dict[str, float] = {}

    def clock(what: str, job: Callable[[], Any]) -> Any:
        start = time.process_time()
        out = job()
        took = (time.process_time() - start) * 1e3
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


def clocked(library: str, name: str) -> dict[str, float]:
    """A model's times alone."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = subject(library, name)
        model = found.build(found.config)
        args, kwargs, _ = found.call(model)
        return timed(model, args, kwargs)


def compare(record: Record, found: Subject, model: nn.Module, analysis: Any, seconds: float) -> None:
    """Both oracles. They vary a shallower model with the same tensors, only fewer."""
    deadline = time.monotonic() + seconds
    config, base = (found.config, shapes(model)) if found.wide else shallow(found.build, found.config, deadline)
    atoms = infer(model, dataclasses.replace(analysis.trace, blocks=()))  # each block with dims of its own
    moved = jacobian(record, found, config, base, partition(model, atoms, named=False), deadline)
    if found.wide:
        wide: Variant | None = Variant("as the case says", found.wide, shapes(found.build(found.wide)))
    else:
        wide = wider(found.build, config, base, deadline + seconds / 2)
    if wide is not None:
        record.wide = wide.label
        two_widths(record, found, analysis, (config, base), wide, None if found.wide else moved)


Moved = dict[tuple[str, int], str]  # (parameter, axis) -> the first variant that moved it


def jacobian(record: Record, found: Subject, config: Any, base: Shapes, axes: Partition, deadline: float) -> Moved:
    """Vary each integer alone; what the partition does not explain is a disagreement. Returns what moved at all."""
    moved: Moved = {}
    for variant in variants(found.build, config, base, deadline):
        if variant is None:
            record.complete = False
            break
        record.varied += 1
        for name, shape in variant.shapes.items():
            for axis, (before, after) in enumerate(zip(base[name], shape, strict=True)):
                if before != after:
                    moved.setdefault((name, axis), variant.label)
        if lines := violations(axes.axes, base, variant.shapes, axes.sizes, axes.sums):
            if excuse := incomparable(found, config, base, variant):
                record.incomparable.append(f"{variant.label}: {excuse}")
            else:
                record.jacobian_wrong += [f"{variant.label}: {line}" for line in lines]
    return moved


def two_widths(
    record: Record, found: Subject, analysis: Any, narrow: tuple[Any, Shapes], wide: Variant, moved: Moved | None
) -> None:
    """Which axes grow. One that no integer of the config moves says nothing by standing still; one that is as wide as
    an input or the output, and widens with it, is data by the policy, whatever its field is called."""
    config, base = narrow
    expected = growth(base, wide.shapes, found.hard)
    lines = []
    ends: set[int] | None = None
    for name, grows in expected.items():
        parameter = analysis.parameters[name]
        for axis, want in enumerate(grows):
            said = parameter.infinite[axis]
            if parameter.role == "unused" or said is None or said == want or base[name][axis] == 1:
                continue  # a size of 1 is no dim
            if not want and moved is not None and (name, axis) not in moved:
                continue
            if want and found.wide is None:
                ends = widening(found, config, wide.config) if ends is None else ends
                if base[name][axis] in ends:
                    record.ends += 1
                    continue
            by = (moved or {}).get((name, axis), wide.label)
            said_so = f"{name} {base[name]} axis {axis} {parameter.axes[axis]}"
            lines.append(f"{said_so}: {STATE[want]} ({by}), but the analysis says it {STATE[said]}")
    if lines and found.wide is None and not runs(found, wide.config):
        record.wide, record.incomparable = "", [*record.incomparable, f"{wide.label}: does not run"]
        return
    record.wide_wrong = lines


def runs(found: Subject, config: Any) -> bool:
    """Can the forward be traced at that config?"""
    try:
        traced(found, config)
    except Exception:  # whatever a library raises where its sizes do not fit
        return False
    return True


def widening(found: Subject, narrow: Any, wide: Any) -> set[int]:
    """Sizes, at the narrow config, of the axes of inputs and outputs that are another size at the wide one."""
    sizes: set[int] = set()
    try:
        one, two = (
            [tuple(n.meta["val"].shape) for n in (*t.inputs.values(), *t.outputs.values())]
            for t in (traced(found, narrow), traced(found, wide))
        )
    except Exception:  # the wide one does not run: nothing is excused
        return sizes
    for before, after in zip(one, two, strict=False):
        sizes |= {a for a, b in zip(before, after, strict=False) if a != b}
    return sizes


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
    axes = partition(model, infer(model, dataclasses.replace(analysis.trace, blocks=())), named=False)
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
