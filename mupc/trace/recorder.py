"""The recorder: a dispatch mode on the PreDispatch key that runs every op on meta and writes it down as a graph node.

Small tensors that the model computes without its parameters (masks, positions, lengths) stay real on the CPU, so that
control flow on them is exact; wherever such a tensor meets a meta tensor it is taken as meta. In-place ops become
nodes whose value later reads see; a write to a view reaches its base by the matching scatter.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import fx
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode

from mupc.trace import dependent

aten = torch.ops.aten
SMALL = 1 << 20  # elements a tensor may have and still be computed for real
TORCH = str(Path(torch.__file__).parent) + os.sep
HERE = str(Path(__file__).resolve().parent) + os.sep
META = torch.device("meta")
CPU = torch.device("cpu")


@dataclass(slots=True)
class View:
    """How a tensor looks into another one's memory, and how often that memory had been written when it was made."""

    parent: torch.Tensor
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    version: int


class Recorder(SchemaCheckMode):  # type: ignore[no-untyped-call]  # a class the PreDispatch mode stack accepts
    """Runs ops on meta, records them in `graph`. `choose` answers what only the data knows."""

    def __init__(self, graph: fx.Graph, choose: Callable[[str, str | None], bool]) -> None:
        TorchDispatchMode.__init__(self, _dispatch_key=torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self.graph = graph
        self.ask = choose
        self.questions = 0
        self.nodes: dict[int, fx.Node] = {}
        self.alive: list[Any] = []  # ids stay unique while what they name lives
        self.views: dict[int, View] = {}
        self.storages: dict[int, torch.Tensor] = {}
        self.versions: dict[int, int] = {}  # storage -> writes seen
        self.twins: dict[int, torch.Tensor] = {}
        self.path: list[str] = [""]
        self.log: list[fx.Node] = []  # every node, in order
        self.here = str(Path.cwd()) + os.sep

    # entering tensors ------------------------------------------------------------------------------------------------

    def enter(self, tensor: torch.Tensor, kind: str, name: str) -> fx.Node:
        """A placeholder for a tensor that no recorded op made."""
        node = self.graph.placeholder(f"{kind}_{name}".replace(".", "_"))
        node.meta.update(kind=kind, name=name, val=self.meta(tensor), module="", source=None)
        self.log.append(node)
        self.bind(tensor, node)
        return node

    def bind(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """From now on, `node` is this tensor's value."""
        key = id(tensor)
        self.nodes[key] = node
        self.alive.append(tensor)
        if tensor.layout is torch.strided:
            self.storages.setdefault(_storage(tensor), tensor)

    def node(self, tensor: torch.Tensor) -> fx.Node:
        """The node of a tensor: by identity, else by memory, else a new constant. A stale view is made again."""
        found = self.nodes.get(id(tensor))
        if found is None:
            return self._unseen(tensor)
        view = self.views.get(id(tensor))
        if view is not None and view.version != self.versions.get(_storage(tensor), 0):
            view.version = self.versions[_storage(tensor)]
            found = self._create(view.target, self._nodes((view.parent, *view.args)), view.kwargs, found.meta["val"])
            self.nodes[id(tensor)] = found
        return found

    def _unseen(self, tensor: torch.Tensor) -> fx.Node:
        held = self.storages.get(_storage(tensor)) if tensor.layout is torch.strided else None
        if held is not None and tensor.numel():
            base = self.node(held)
            if tuple(held.shape) == tuple(tensor.shape):
                self.bind(tensor, base)
                return base
            if held.numel() == tensor.numel():
                node = self._create(aten.reshape.default, (base, list(tensor.shape)), {}, self.meta(tensor))
                self.bind(tensor, node)
                return node
        return self.enter(tensor, "constant", f"c{len(self.nodes)}")

    def meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on meta: itself, or a twin that is kept."""
        if tensor.is_meta:
            return tensor
        twin = self.twins.get(id(tensor))
        if twin is None or twin.shape != tensor.shape:
            with torch._C._DisableTorchDispatch():
                twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            self.twins[id(tensor)] = twin
            self.alive.append(tensor)
        return twin

    def choose(self, what: str, source: str | None) -> bool:
        """The side to take where only values could tell."""
        self.questions += 1
        return self.ask(what, source)

    # running ops -----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._DisablePythonDispatcher():  # C++ meta kernels where there are any
            return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op's result; the op is recorded unless it has no tensor results."""
        tensors: list[torch.Tensor] = []
        _collect(args, tensors)
        _collect(tuple(kwargs.values()), tensors)
        real = all(not t.is_meta for t in tensors)
        if "device" in kwargs and kwargs["device"] is not None:
            kwargs = {**kwargs, "device": CPU if real else META}
        if "pin_memory" in kwargs:
            kwargs = {**kwargs, "pin_memory": False}
        args = _devices(func, args, real)
        known = dependent.answer(self, func, args, kwargs, tensors)
        if known is not NotImplemented:
            out = known
        elif real and self._small(func, args, kwargs, tensors):
            out = func(*args, **kwargs)
        else:
            if "device" in kwargs and kwargs["device"] is not None:
                kwargs = {**kwargs, "device": META}
            given = self._on_meta(args), {k: self._on_meta(v) for k, v in kwargs.items()}
            out = self._meta_call(func, *given)
            if func._schema.is_mutable:
                out = self._same_objects(func, args, kwargs, out)
        if isinstance(out, (torch.Tensor, tuple, list)):
            self.record(func, args, kwargs, out, tensors)
        return out

    def _meta_call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError):
            known = dependent.shape_only(self, func, args, kwargs)
            if known is NotImplemented:
                raise
            return known

    def _small(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> bool:
        """Would the real result be small? Judged by the inputs, or by the sizes a factory is given."""
        if tensors:
            biggest = max(t.numel() for t in tensors)
            if biggest > SMALL:
                return False
            sizes = [n for a in args if isinstance(a, (list, tuple)) for n in a if isinstance(n, int)]
            total = 1
            for n in sizes:
                total *= max(n, 1)
            return total <= SMALL * 8 or "expand" in str(func)
        total = 1
        for a in (*args, kwargs.get("size")):
            if isinstance(a, (list, tuple)):
                for n in a:
                    total *= n if isinstance(n, int) and n > 0 else 1
            elif isinstance(a, (int, float)):
                total = max(total, int(abs(a)) if abs(a) < 1 << 40 and "arange" in str(func) else 1)
        return total <= SMALL

    def _on_meta(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.meta(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self._on_meta(v) for v in value) if not hasattr(value, "_fields") else value
        return value

    def _same_objects(self, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """An in-place op returns the very tensor it was given, also where a twin was written."""
        if isinstance(out, torch.Tensor):
            for value in (*args, *kwargs.values()):
                if isinstance(value, torch.Tensor) and (value is out or self.twins.get(id(value)) is out):
                    return value
        return out

    # recording -------------------------------------------------------------------------------------------------------

    def record(self, func: Any, args: Any, kwargs: Any, out: Any, tensors: list[torch.Tensor]) -> None:
        """Write the op down, bind its results, and carry writes to the base of what was written."""
        node = self._create(func, self._nodes(args), {k: self._nodes(v) for k, v in kwargs.items()}, _values(self, out))
        mutable = func._schema.is_mutable
        if isinstance(out, torch.Tensor):
            self._result(func, args, kwargs, out, node, mutable)
        else:
            self._results(out, node, func, args, kwargs)
        if mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, torch.Tensor):
                    self._written(value, node if not isinstance(out, (tuple, list)) else self.nodes[id(value)])
            for argument in func._schema.arguments[len(args) :]:
                value = kwargs.get(argument.name)
                if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, torch.Tensor):
                    self._written(value, node)

    def _result(self, func: Any, args: Any, kwargs: Any, out: torch.Tensor, node: fx.Node, mutable: bool) -> None:
        if not mutable and id(out) in self.nodes and any(out is a for a in args):
            self.nodes[id(out)] = node  # `contiguous`, `to` and the like may return what they were given
            return
        self.bind(out, node)
        first = args[0] if args else None
        if not mutable and isinstance(first, torch.Tensor) and out.numel() and _shares(out, first):
            self.views[id(out)] = View(first, func, tuple(args[1:]), kwargs, self.versions.get(_storage(out), 0))

    def _results(self, out: Any, node: fx.Node, func: Any, args: Any, kwargs: Any) -> None:
        for i, item in enumerate(out):
            if isinstance(item, torch.Tensor):
                part = self._create(operator.getitem, (node, i), {}, self.meta(item))
                self.bind(item, part)
            elif isinstance(item, (tuple, list)):
                part = self._create(operator.getitem, (node, i), {}, _values(self, item))
                self._results(item, part, func, args, kwargs)

    def _written(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """`tensor` now has the value `node`; so have the parts of its bases that it looks into."""
        self.nodes[id(tensor)] = node
        if tensor.layout is not torch.strided:
            return
        storage = _storage(tensor)
        view = self.views.get(id(tensor))
        while view is not None:
            parent = view.parent
            node = self._put_back(view, self.nodes[id(parent)] if id(parent) in self.nodes else self.node(parent), node)
            self.nodes[id(parent)] = node
            tensor, view = parent, self.views.get(id(parent))
        held = self.storages.get(storage)
        if held is not None and held is not tensor and tuple(held.shape) == tuple(tensor.shape):
            self.nodes[id(held)] = node
        self.versions[storage] = self.versions.get(storage, 0) + 1
        self._refresh(tensor, storage)

    def _refresh(self, tensor: torch.Tensor, storage: int) -> None:
        """Tensors on the written chain are up to date."""
        view = self.views.get(id(tensor))
        while view is not None:
            view.version = self.versions[storage]
            view = self.views.get(id(view.parent))

    def _put_back(self, view: View, base: fx.Node, part: fx.Node) -> fx.Node:
        """The parent's value once the part seen through the view is replaced."""
        name = view.target._schema.name.removeprefix("aten::")
        value = self.meta(view.parent)
        if name in ("slice", "select"):
            scatter = aten.slice_scatter.default if name == "slice" else aten.select_scatter.default
            return self._create(scatter, (base, part, *view.args), view.kwargs, value)
        if name == "narrow":
            dim, start, length = view.args
            return self._create(aten.slice_scatter.default, (base, part, dim, start, start + length), {}, value)
        if name in ("transpose", "t", "permute", "movedim", "swapaxes"):
            order = _order(name, view.args, value.dim())
            inverse = [order.index(i) for i in range(len(order))]
            return self._create(aten.permute.default, (part, inverse), {}, value)
        if part.meta["val"].numel() == value.numel():
            return self._create(aten.reshape.default, (part, list(value.shape)), {}, value)
        return self._create(
            aten.as_strided_scatter.default, (base, part, list(value.shape), list(value.stride())), {}, value
        )

    def _create(self, target: Any, args: Any, kwargs: Any, value: Any) -> fx.Node:
        node = self.graph.create_node("call_function", target, args, kwargs)
        node.meta["val"] = value
        node.meta["module"] = self.path[-1]
        node.meta["source"] = self._source()
        self.log.append(node)
        return node

    def _nodes(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.node(value)
        if isinstance(value, (list, tuple)):
            return tuple(self._nodes(v) for v in value) if isinstance(value, tuple) else [self._nodes(v) for v in value]
        if isinstance(
            value,
            (int, float, bool, str, complex, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format),
        ):
            return value
        return None if isinstance(value, torch.Generator) else str(value)

    def _source(self) -> str | None:
        """The innermost frame outside torch and mupc."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if not name.startswith((TORCH, HERE, "<")) and name != contextlib.__file__:
                return f"{name.removeprefix(self.here)}:{frame.f_lineno}"
            frame = frame.f_back
        return None


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _shares(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.layout is torch.strided and b.layout is torch.strided and _storage(a) == _storage(b)


def _collect(values: Any, out: list[torch.Tensor]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            out.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, out)


def _values(recorder: Recorder, out: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return recorder.meta(out)
    if isinstance(out, (tuple, list)):
        return [_values(recorder, item) for item in out]
    return out


def _devices(func: Any, args: tuple[Any, ...], real: bool) -> tuple[Any, ...]:
    """Device arguments name the device the tensors are on; `.to(device)` moves nothing."""
    if not any(isinstance(a, torch.device) for a in args):
        return args
    return tuple((CPU if real else META) if isinstance(a, torch.device) else a for a in args)


def _order(name: str, args: tuple[Any, ...], rank: int) -> list[int]:
    order = list(range(rank))
    if name == "permute":
        return [d % rank for d in args[0]]
    if name == "movedim":
        with torch._C._DisableTorchDispatch():
            probe = torch.empty(list(range(2, rank + 2)), device="meta")
            return [n - 2 for n in torch.movedim(probe, *args).shape]
    i, j = (args[0] % rank, args[1] % rank) if args else (0, 1)
    if rank > 1:
        order[i], order[j] = order[j], order[i]
    return order
