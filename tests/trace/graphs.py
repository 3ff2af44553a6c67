"""Reading a Trace in tests: which ops it holds, what an output depends on, and the values it computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from mupc.trace import Trace, trace
from mupc.trace.tree import leaves


def name(node: fx.Node) -> str:
    """`linear` for `aten.linear.default`."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))


def calls(found: Trace, op: str | None = None) -> list[fx.Node]:
    """The call nodes, or those of one op."""
    return [n for n in found.graph.nodes if n.op == "call_function" and (op is None or name(n) == op)]


def count(found: Trace) -> Counter[str]:
    """How often each op occurs."""
    return Counter(name(n) for n in calls(found))


def upstream(node: fx.Node) -> set[fx.Node]:
    """Every node that a node depends on."""
    seen: set[fx.Node] = set()
    todo = [node]
    while todo:
        for before in todo.pop().all_input_nodes:
            if before not in seen:
                seen.add(before)
                todo.append(before)
    return seen


def reads(found: Trace, output: str | None = None) -> set[str]:
    """Names of the parameters, buffers and inputs that an output depends on."""
    ends = found.outputs.values() if output is None else [found.outputs[output]]
    nodes = set().union(*(upstream(n) | {n} for n in ends)) if ends else set()
    return {n.meta["name"] for n in nodes if n.op == "placeholder"}


def values(found: Trace, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The outputs of the graph run on the model's own numbers."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    given: dict[int, Any] = {id(n): tensors[k].detach().clone() for k, n in (found.parameters | found.buffers).items()}
    flat = [t for _, t in leaves(args)] + [t for _, t in leaves(dict(kwargs))]
    given |= {id(n): t.clone() for n, t in zip(found.inputs.values(), flat, strict=True)}
    for node in found.graph.nodes:
        if node.op == "placeholder" and id(node) not in given:
            given[id(node)] = node.meta["value"].clone()
        elif node.op == "call_function":
            given[id(node)] = _called(node, given)
    return {path: given[id(node)] for path, node in found.outputs.items()}


def _called(node: fx.Node, given: dict[int, Any]) -> Any:
    def real(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return given[id(value)]
        if isinstance(value, (list, tuple)):
            return type(value)(real(v) for v in value)
        return torch.device("cpu") if isinstance(value, torch.device) else value

    with torch.no_grad():
        out = node.target(*real(node.args), **{k: real(v) for k, v in node.kwargs.items()})  # type: ignore[operator]
    shown = node.meta["val"]
    if isinstance(out, Tensor):
        assert tuple(out.shape) == tuple(shown.shape), (
            f"{node.format_node()}: {shown.shape} shown, {out.shape} computed"
        )
        assert out.dtype == shown.dtype, node.format_node()
        return out.clone()  # the graph is a value graph: nothing aliases
    return out


def faithful(model: nn.Module, *args: Any, fold_blocks: bool = True, **kwargs: Any) -> Trace:
    """The trace of a real CPU model, after checking that its graph computes what the model computes."""
    found = trace(model, args, kwargs, fold_blocks=fold_blocks)
    computed = values(found, model, args, kwargs)
    with torch.no_grad():
        expected = dict(leaves(model.eval()(*args, **kwargs)))
    assert list(computed) == list(expected)
    for path, tensor in expected.items():
        torch.testing.assert_close(computed[path], tensor, msg=lambda text, path=path: f"output {path!r}: {text}")
    return found
