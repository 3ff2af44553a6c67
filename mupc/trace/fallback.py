"""Where the recorder's private hooks are missing: the same `Trace` from `torch.export`. Tests hold the two together."""

from __future__ import annotations

import operator
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils._pytree import tree_unflatten

from mupc.trace.capture import Forward, Trace
from mupc.trace.guesses import Sides
from mupc.trace.memory import meta_like
from mupc.trace.patches import quiet
from mupc.trace.recorder import Recorder
from mupc.trace.tree import leaves, replaced

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FRAME = re.compile(r'File "([^"]+)", line (\d+)')


@cache
def recorder_works() -> bool:
    """Can a mode be put on the PreDispatch key here, and does it see a whole op?"""
    from torch._dispatch.python import enable_python_dispatcher

    graph = fx.Graph()
    x = torch.empty(2, 2, device="meta")
    try:
        recorder = Recorder(graph, Sides(True))
        recorder.enter(x, "input", "x")
        with torch.no_grad(), enable_python_dispatcher(), recorder:
            torch.nn.functional.linear(x, x)
    except Exception:
        return False
    return any(node.target is torch.ops.aten.linear.default for node in graph.nodes)


def traced_by_export(forward: Forward) -> Trace:
    """The model exported on meta, without strict mode, as a `Trace`. Values are not known: no guesses are made."""
    swap = forward.swap
    swap.fresh()
    for state in swap.states:
        if not state.twin.is_meta:
            state.twin = meta_like(state.twin)
    try:
        with swap.applied(forward.model.training), quiet(), torch.no_grad():
            args = replaced(forward.args, "", lambda t, _: meta_like(t))
            kwargs = replaced(dict(forward.kwargs), "", lambda t, _: meta_like(t))
            program = torch.export.export(forward.model, args, kwargs, strict=False)
    except Exception as error:
        raise forward.failed(error) from error
    return _read(program, forward)


def _read(program: ExportedProgram, forward: Forward) -> Trace:
    graph, signature = program.graph, program.graph_signature
    _annotate(graph)
    nodes = {node.name: node for node in graph.nodes}
    kinds = {spec.arg.name: (spec.kind.name.lower(), spec.target) for spec in signature.input_specs}
    names, named = forward.named()
    paths = [p for v, name in zip(forward.args, names, strict=True) for p, _ in leaves(v, name)]
    paths += [p for name, v in named.items() for p, _ in leaves(v, name)]
    found: dict[str, dict[str, fx.Node]] = {"parameter": {}, "buffer": {}, "input": {}, "constant_tensor": {}}
    given = iter(paths)
    for name, (kind, target) in kinds.items():
        node = nodes[name]
        if kind == "user_input":
            if not isinstance(node.meta.get("val"), torch.Tensor):
                continue
            kind, target = "input", next(given, name)
        found.setdefault(kind, {})[str(target)] = node
        node.meta.update(kind=kind.removesuffix("_tensor"), name=str(target), module="", source=None)
    outputs = _outputs(program, nodes)
    parameters, tied = _merged(found["parameter"], forward)
    unused = tuple(name for name, node in parameters.items() if not node.users)
    last = next(n for n in reversed(graph.nodes) if n.op == "output")
    graph.erase_node(last)
    return Trace(graph, parameters, found["buffer"], found["input"], outputs, tied, unused, ())


def _outputs(program: ExportedProgram, nodes: dict[str, fx.Node]) -> dict[str, fx.Node]:
    """The forward's results by their paths."""
    given = [s.arg for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    ends = [nodes.get(getattr(arg, "name", "")) for arg in given]
    shown = [end and end.meta["val"] for end in ends]
    results = tree_unflatten(shown, program.call_spec.out_spec)
    found = iter(end for end, value in zip(ends, shown, strict=True) if isinstance(value, torch.Tensor))
    return {path: end for (path, _), end in zip(leaves(results), found, strict=True) if end is not None}


def _merged(found: dict[str, fx.Node], forward: Forward) -> tuple[dict[str, fx.Node], tuple[tuple[str, ...], ...]]:
    """One node per tensor: the names it goes by are tied."""
    merged: dict[str, fx.Node] = {}
    tied = []
    for state in forward.swap.states:
        if state.kind != "parameter":
            continue
        nodes = [found[name] for name in state.names if name in found]
        if nodes:
            merged[state.names[0]] = nodes[0]
            for other in nodes[1:]:
                other.replace_all_uses_with(nodes[0])
        if len(state.names) > 1:
            tied.append(tuple(state.names))
    return merged, tuple(tied)


def _annotate(graph: fx.Graph) -> None:
    """Module path and source line as the recorder writes them."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        stack: Any = list((node.meta.get("nn_module_stack") or {}).values())
        frames = FRAME.findall(node.meta.get("stack_trace") or "")
        node.meta["module"] = stack[-1][0] if stack else ""
        node.meta["source"] = f"{frames[-1][0]}:{frames[-1][1]}" if frames else None
        if node.target is operator.getitem:
            node.meta.setdefault("val", node.args[0].meta["val"][node.args[1]])
