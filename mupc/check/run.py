"""Run a trace's graph on real values, so that every value of it can be seen.

What is drawn while running (dropout) would drown small changes: dropout lets everything through. Statistics of
batch norms are those of the batch, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from mupc.blame import describe
from mupc.errors import MupcError
from mupc.ops.table import printed
from mupc.trace import Trace

DROPS = ("aten.dropout", "aten.alpha_dropout", "aten.feature_dropout", "aten.feature_alpha_dropout",
         "aten.native_dropout")  # fmt: skip
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
Values = dict[fx.Node, Any]


class Graph:
    """A trace, its buffers and inputs, computed in `dtype`; parameters are given with each run."""

    def __init__(
        self, trace: Trace, buffers: Mapping[str, Tensor], inputs: Mapping[fx.Node, Any], dtype: torch.dtype,
        multipliers: Mapping[str, float] = MappingProxyType({}), scales: Mapping[str, float] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.trace, self.dtype, self.multipliers, self.scales = trace, dtype, multipliers, scales
        self.nodes = list(trace.graph.nodes)
        self.parameters = {node: name for name, node in trace.parameters.items()}
        self.fixed: Values = {node: self.cast(value) for node, value in inputs.items()}
        for name, node in trace.buffers.items():
            self.fixed[node] = self.cast(buffers[name])
        for node in self.nodes:
            if node.op == "placeholder" and node not in self.parameters and node not in self.fixed:
                self.fixed[node] = self.cast(node.meta["value"])

    def cast(self, value: Any) -> Any:
        """Floats, and complex numbers, in the dtype that is computed in."""
        return as_dtype(value.detach(), self.dtype) if isinstance(value, Tensor) else value

    def run(self, parameters: Mapping[str, Tensor], seen: Callable[[fx.Node, Any], None] | None = None) -> Values:
        """Every node's value, `seen` one by one. Raises `MupcError` where the graph does not fit the values."""
        values: Values = {}
        for node in self.nodes:
            if node.op == "placeholder":
                name = self.parameters.get(node)
                values[node] = self.fresh(node) if name is None else self.weight(parameters, name)
            else:
                values[node] = self.call(node, values)
            if seen is not None:
                seen(node, values[node])
        return values

    def weight(self, parameters: Mapping[str, Tensor], name: str) -> Tensor:
        """A tensor times its multiplier."""
        return parameters[name] * self.scales[name] if name in self.scales else parameters[name]

    def fresh(self, node: fx.Node) -> Any:
        """A buffer may be written to (running statistics): a copy each time."""
        value = self.fixed[node]
        return value.clone() if isinstance(value, Tensor) and node.meta.get("kind") == "buffer" else value

    def call(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        """One node's value from those of its arguments."""
        name = printed(node.target)
        if name.startswith(DROPS):
            whole = values[node.args[0]]  # type: ignore[index]
            return (whole, torch.ones_like(whole, dtype=torch.bool)) if "native" in name else whole
        args = tuple(self.argument(value, values) for value in node.args)
        kwargs = {key: self.argument(value, values) for key, value in node.kwargs.items()}
        args, kwargs = self.without_dropout(node, args, kwargs)
        target: Any = node.target
        if name.startswith(tuple(SCATTERS)) and args[0].is_complex():
            target = SCATTERS[name.rpartition(".")[0]]
        try:
            result = target(*args, **kwargs)
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError) as error:
            place = node.meta.get("source") or node.meta.get("module") or node.name
            raise MupcError(f"{place}: {name} cannot be run on real values: {describe(error)}") from error
        return result * self.multipliers[node.name] if node.name in self.multipliers else result

    def argument(self, value: Any, values: Mapping[fx.Node, Any]) -> Any:
        if isinstance(value, fx.Node):
            return values[value]
        if isinstance(value, (list, tuple)):
            return type(value)(self.argument(one, values) for one in value)
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if value in (torch.complex32, torch.complex64):
            return COMPLEX[self.dtype]
        return self.dtype if value in FLOATS else value

    @staticmethod
    def without_dropout(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Whole ops that drop inside: attention, recurrent ones."""
        schema = getattr(node.target, "_schema", None)
        for at, argument in enumerate(schema.arguments if schema is not None else ()):
            if argument.name in ("dropout_p", "dropout") and str(argument.type) == "float":
                if at < len(args):
                    args = (*args[:at], 0.0, *args[at + 1 :])
                elif argument.name in kwargs:
                    kwargs = kwargs | {argument.name: 0.0}
        return args, kwargs


def _slice_scatter(
    x: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    out = x.clone()
    out[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)] = src
    return out


def _select_scatter(x: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    out = x.clone()
    out.select(dim, index).copy_(src)
    return out


# torch does not differentiate these of complex tensors.
SCATTERS = {"aten.slice_scatter": _slice_scatter, "aten.select_scatter": _select_scatter}


def as_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats and complex numbers in that precision; others as they are."""
    if value.is_complex():
        return value.to(COMPLEX[dtype])
    return value.to(dtype) if value.is_floating_point() else value


def floats(values: Mapping[fx.Node, Any]) -> Iterator[tuple[fx.Node, Tensor]]:
    """The calls' results that are real tensors with values in them."""
    for node, value in values.items():
        real = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
        if node.op == "call_function" and real and value.numel():
            yield node, value
