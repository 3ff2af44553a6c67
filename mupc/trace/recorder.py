"""The recorder: a dispatch mode on the PreDispatch key that runs every op on meta and writes it down as a graph node.

Small tensors that the model computes without its parameters (masks, positions, lengths) stay real on the CPU, so that
control flow on them is exact; wherever such a tensor meets a meta tensor it is taken as meta.
"""

from __future__ import annotations

import operator
from types import CodeType
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode

from mupc.trace import dependent
from mupc.trace.blocks import Block
from mupc.trace.functional import RESHAPING, arguments, functional
from mupc.trace.guesses import Sides
from mupc.trace.memory import Memory, View, meta_like
from mupc.trace.writer import Writer

aten = torch.ops.aten
SMALL = 1 << 20  # elements a tensor may have and still be computed for real
TINY = 256  # elements and arguments below which any result is small
BUDGET = 1 << 25  # elements computed for real in one run
META = torch.device("meta")
CPU = torch.device("cpu")
WHOLE_NUMBERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FILLED = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")


class Recorder(SchemaCheckMode):  # type: ignore[no-untyped-call]  # a class the PreDispatch mode stack accepts
    """Runs ops on meta and records them in `graph`; `sides` answers what only the data knows."""

    def __init__(self, graph: fx.Graph, sides: Sides, until: CodeType | None = None) -> None:
        TorchDispatchMode.__init__(self, _dispatch_key=torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self.writer = Writer(graph, until)
        self.memory = Memory(self.writer)
        self.blocks: list[Block] = []  # runs of repeated blocks
        self.sides = sides
        self.spent = 0

    def enter(self, tensor: torch.Tensor, kind: str, name: str) -> fx.Node:
        """A placeholder for a tensor that no recorded op made."""
        node = self.writer.placeholder(kind, name, self.memory.meta(tensor))
        self.memory.bind(tensor, node)
        return node

    def branch(self) -> bool:
        """The side that a branch on values takes, here."""
        return self.sides.branch(self.writer.source())

    def note(self, what: str, took: object) -> None:
        """A number or size only the data knows was taken to be `took`."""
        self.sides.note(self.writer.source(), what, took)

    # running ops -----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._DisablePythonDispatcher():  # C++ meta kernels where there are any
            return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The op's result; the op is recorded unless its results are no tensors."""
        tensors: list[torch.Tensor] = []
        _collect(args, tensors)
        _collect(tuple(kwargs.values()), tensors)
        real = all(self.memory.real(t) for t in tensors)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": CPU if real else META}
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        if any(isinstance(a, torch.device) for a in args):
            args = tuple((CPU if real else META) if isinstance(a, torch.device) else a for a in args)
        if self.sides.made:
            args = dependent.adding_up(func, args, kwargs)
        if real and (func._schema.name in dependent.SCALAR or self._affordable(func, args, kwargs, tensors)):
            out = func(*args, **kwargs)
            self.spent += out.numel() if isinstance(out, torch.Tensor) and not out._is_view() else 0
        else:
            out = dependent.answer(self, func, args, kwargs, tensors)
            if out is NotImplemented:
                try:
                    out = self._on_meta(func, args, kwargs, tensors)
                except (RuntimeError, NotImplementedError, TypeError):
                    if not func._can_decompose():
                        raise
                    return self._decomposed(func, args, kwargs)
        if func._schema.is_mutable:
            self._record_writes(func, args, kwargs, out)
        elif isinstance(out, (torch.Tensor, tuple, list)):
            self._record(func, args, kwargs, out, tensors)
        return out

    def _on_meta(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
        name = func._schema.name.partition("::")[2]
        if name in FILLED and kwargs.get("dtype", tensors[0].dtype) in WHOLE_NUMBERS:
            plain = _filled(name, args, kwargs, tensors[0])
            if plain is not None:
                return plain
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": META}
        mutable = func._schema.is_mutable
        if mutable and func._schema.name in RESHAPING:
            self._keep_shape(args[0])
        metas, named = self._metas(args), {k: self._metas(v) for k, v in kwargs.items()}
        if func._overloadname == "data":  # a packed recurrence reads its batch sizes
            metas = (metas[0], args[1], *metas[2:])
        try:
            out = func(*metas, **named)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            out = dependent.shape_only(func, metas, named, error)
            if out is NotImplemented:
                raise
        return _same_objects(self.memory, out, tensors) if mutable else out

    def _decomposed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A composite op that needs values is recorded as the ops that it is made of."""
        with enable_python_dispatcher(), self:
            return func.decompose(*args, **kwargs)

    def _affordable(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> bool:
        """Is the real result small? Where its inputs do not tell, the meta kernel does."""
        if self.spent > BUDGET:
            return False
        biggest = max((t.numel() for t in tensors), default=0)
        if biggest > SMALL:
            return False
        numbers = list(_numbers((args, tuple(kwargs.values()))))
        if biggest <= TINY and max(numbers, default=0) <= TINY and (tensors or len(numbers) <= 2):
            return True
        if func._schema.is_mutable:
            return True
        try:
            meta = {**kwargs, "device": META} if "device" in kwargs else kwargs
            out = func(*self._metas(args), **{k: self._metas(v) for k, v in meta.items()})
        except Exception:  # data-dependent, or no meta kernel
            total = max(biggest, 1)
            for n in numbers:
                total *= max(1, int(n))
            return biggest <= SMALL if tensors and total <= SMALL * 8 else total <= SMALL
        results = out if isinstance(out, (tuple, list)) else (out,)
        return all(r.numel() <= SMALL or r._is_view() for r in results if isinstance(r, torch.Tensor))

    def _metas(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.memory.meta(value)
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self._metas(v) for v in value)
        return META if isinstance(value, torch.device) else value

    def _keep_shape(self, tensor: torch.Tensor) -> None:
        """Earlier nodes keep the shape that a tensor had before it is reshaped in place."""
        held = self.memory.held.get(id(tensor))
        if held is not None and held.node.meta["val"] is tensor:
            held.node.meta["val"] = meta_like(tensor)

    # recording -------------------------------------------------------------------------------------------------------

    def _record(self, func: Any, args: Any, kwargs: Any, out: Any, tensors: list[torch.Tensor]) -> None:
        memory = self.memory
        if isinstance(out, torch.Tensor) and any(out is t for t in tensors):
            return  # `contiguous`, `to`, dropout in eval mode: what they were given is what they return
        node = self.writer.call(func, memory.nodes(args), memory.nodes(kwargs), self._value(out))
        if not isinstance(out, torch.Tensor):
            self._parts(func, args, kwargs, out, node, tensors)
            return
        memory.bind(out, node, self._view(func, args, kwargs, out, tensors, None))

    def _parts(self, func: Any, args: Any, kwargs: Any, out: Any, node: fx.Node, tensors: list[torch.Tensor]) -> None:
        for i, item in enumerate(out):
            if isinstance(item, torch.Tensor):
                part = self.writer.call(operator.getitem, (node, i), {}, self.memory.meta(item))
                self.memory.bind(item, part, self._view(func, args, kwargs, item, tensors, i))
            elif isinstance(item, (tuple, list)):
                part = self.writer.call(operator.getitem, (node, i), {}, self._value(item))
                self._parts(func, args, kwargs, item, part, [])

    def _view(self, func: Any, args: Any, kwargs: Any, out: Any, tensors: Any, part: int | None) -> View | None:
        """The view that a result is, if it shares its first argument's memory."""
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or out is first or not tensors:
            return None
        storage = self.memory.storage(out)
        shares = storage and storage == self.memory.storage(first)
        return View(first, func, tuple(args[1:]), kwargs, part) if shares else None

    def _record_writes(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """The functional op, and its results as the new values of what the op wrote."""
        memory, twin = self.memory, functional(func)
        if func is aten.copy_.default:
            memory.written(args[0], self._copied(args[1], memory.meta(args[0])))
            if not all(memory.real(t) for t in args[:2]):
                memory.forget_values(args[0])
            return
        named = arguments(func, args, kwargs)
        given = tuple(memory.nodes(a) for a in args)
        named_given = {k: memory.nodes(v) for k, v in kwargs.items() if k not in twin.dropped}
        targets = [named[name] for name in twin.written if named.get(name) is not None]
        flat = [t for target in targets for t in (target if isinstance(target, (list, tuple)) else (target,))]
        values = [memory.meta(t) for t in flat]
        several = len(targets) > 1 or any(isinstance(t, (list, tuple)) for t in targets)
        node = self.writer.call(twin.target, given, named_given, values if several else values[0] if values else None)
        for i, (tensor, value) in enumerate(zip(flat, values, strict=True)):
            part = self.writer.call(operator.getitem, (node, i), {}, value) if several else node
            if func._schema.name in RESHAPING:
                memory.held.pop(id(tensor), None)
                memory.roots.pop(memory.storage(tensor), None)
                memory.bind(tensor, part)
                continue
            if not all(memory.real(t) for t in _tensors(args, kwargs)):
                memory.forget_values(tensor)
            memory.written(tensor, part)
        if isinstance(out, torch.Tensor) and all(out is not t for t in flat):
            memory.bind(out, node)

    def _copied(self, source: torch.Tensor, like: torch.Tensor) -> fx.Node:
        """What `copy_` leaves: the source, in the shape and type of what it overwrites, whose value is lost."""
        node = self.memory.node(source)
        if source.shape != like.shape:
            shown = like if source.dtype == like.dtype else like.to(source.dtype)
            node = self.writer.call(aten.expand.default, (node, list(like.shape)), {}, shown)
        if source.dtype != like.dtype:
            node = self.writer.call(aten.to.dtype, (node, like.dtype), {}, like)
        return node

    def _value(self, out: Any) -> Any:
        if isinstance(out, torch.Tensor):
            return self.memory.meta(out)
        return [self._value(item) for item in out] if isinstance(out, (tuple, list)) else out


def _same_objects(memory: Memory, out: Any, tensors: list[torch.Tensor]) -> Any:
    """An in-place op returns the very tensor it was given, also where a twin was written."""
    if isinstance(out, torch.Tensor):
        return next((t for t in tensors if t is out or memory.meta(t) is out), out)
    if isinstance(out, (tuple, list)):
        return type(out)(_same_objects(memory, item, tensors) for item in out)
    return out


def _filled(name: str, args: Any, kwargs: Any, like: torch.Tensor) -> torch.Tensor | None:
    """Zeros, ones or a constant of whole numbers, for real: they depend on no values, whatever gives their shape."""
    new = name.startswith("new_")
    shape = tuple(args[1] if new else like.shape)
    fill: Any = {"zeros": 0, "ones": 1}.get(name.removeprefix("new_").removesuffix("_like"))
    if fill is None:
        fill = args[-1] if len(args) > (2 if new else 1) else kwargs.get("fill_value")
    size = 1
    for n in shape:
        size *= n
    if size > SMALL or fill is None or isinstance(fill, torch.Tensor):
        return None
    return torch.full(shape, fill, dtype=kwargs.get("dtype") or like.dtype, device=CPU)


def _tensors(args: Any, kwargs: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    _collect(args, found)
    _collect(tuple(kwargs.values()), found)
    return found


def _collect(values: Any, out: list[torch.Tensor]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            out.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, out)


def _numbers(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1 << 62:
        yield abs(value)
