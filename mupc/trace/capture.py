"""Run a model's forward once under the recorder, with every parameter on meta, and hand back what was recorded."""

from __future__ import annotations

import dataclasses
import gc
import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher

from mupc.trace.blame import blame
from mupc.trace.recorder import SMALL, Recorder
from mupc.trace.templates import NotRepeatedError, folded_blocks

TRIES = 24


@dataclass(frozen=True, slots=True)
class Guess:
    """A branch or a number that depends on values, and the side that was taken."""

    source: str | None
    what: str
    took: object


@dataclass(frozen=True, slots=True)
class Trace:
    """One graph of pre-dispatch ATen ops on meta; parameters, buffers and inputs are its placeholders."""

    graph: fx.Graph
    parameters: dict[str, fx.Node]
    buffers: dict[str, fx.Node]
    inputs: dict[str, fx.Node]
    outputs: dict[str, fx.Node]
    tied: tuple[tuple[str, ...], ...]
    unused: tuple[str, ...]
    guesses: tuple[Guess, ...]


@dataclass(slots=True)
class Sides:
    """Which side each value-dependent branch takes: a default, flipped at some places."""

    default: bool
    flipped: frozenset[int] = frozenset()
    made: list[Guess] = dataclasses.field(default_factory=list)

    def choose(self, what: str, source: str | None) -> bool:
        took = self.default ^ (len(self.made) in self.flipped)
        self.made.append(Guess(source, what, took))
        return took


def trace(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, *, fold_blocks: bool = True
) -> Trace:
    """Any module to a `Trace`.

    The model may be on any device; it is not changed and nothing of its size is allocated. Branches that depend on
    values are guessed, the guess recorded; where a guess makes the forward fail the other side is tried, and where a
    parameter stays unread, the other sides (and training mode) are traced too and joined to the same graph.
    Raises `TraceError`, naming the user's line, where the forward fails on every side.
    """
    with unhurried():
        return _trace(model, args, dict(kwargs or {}), fold_blocks)


def _trace(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], fold_blocks: bool) -> Trace:
    swap = Swap(model)
    capture, sides = _first(model, swap, args, kwargs, fold_blocks)
    guesses = list(sides.made)
    if capture.unread():
        for other, training in _alternatives(sides):
            extra = Capture(model, swap, args, kwargs, other, fold_blocks, training, capture)
            try:
                extra.run()
            except Exception:  # an alternative that fails adds nothing
                capture.forget(extra)
                continue
            guesses += [g for g in other.made if g not in guesses]
            if not capture.unread():
                break
    return capture.result(tuple(dict.fromkeys(guesses)))


@contextmanager
def unhurried() -> Iterator[None]:
    """No cyclic garbage collection while many objects that stay alive are made."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _first(model: nn.Module, swap: Swap, args: Any, kwargs: Any, fold: bool) -> tuple[Capture, Sides]:
    """The first side of every guess on which the forward finishes."""
    failures: list[Exception] = []
    todo = [Sides(True), Sides(False)]
    tried: set[tuple[bool, frozenset[int]]] = set()
    while todo and len(tried) < TRIES:
        sides = todo.pop(0)
        if (sides.default, sides.flipped) in tried:
            continue
        tried.add((sides.default, sides.flipped))
        capture = Capture(model, swap, args, kwargs, sides, fold)
        try:
            capture.run()
        except NotRepeatedError:
            return _first(model, swap, args, kwargs, fold=False)
        except Exception as error:
            failures.append(error)
            if not sides.made:
                break
            todo += [
                Sides(sides.default, sides.flipped ^ {at})
                for at in range(len(sides.made) - 1, max(-1, len(sides.made) - 4), -1)
            ]
            continue
        return capture, sides
    raise blame(failures[0], bool(sides.made)) from failures[0]


def _alternatives(sides: Sides) -> Iterator[tuple[Sides, bool]]:
    if sides.made:
        yield Sides(not sides.default), False
    yield Sides(sides.default), True
    if sides.made:
        yield Sides(not sides.default), True


class Swap:
    """Meta twins of a model's parameters, real clones of its small buffers; in place while a forward runs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names: dict[int, list[str]] = {}
        self.tensors: dict[int, torch.Tensor] = {}
        self.originals: list[torch.Tensor] = []
        self.kinds: dict[int, str] = {}
        for kind, named in (
            ("parameter", model.named_parameters(remove_duplicate=False)),
            ("buffer", model.named_buffers(remove_duplicate=False)),
        ):
            for name, tensor in named:
                self.names.setdefault(id(tensor), []).append(name)
                self.kinds.setdefault(id(tensor), kind)
                if id(tensor) not in self.tensors:
                    self.originals.append(tensor)
                    self.tensors[id(tensor)] = _twin(tensor, kind)

    def fresh(self) -> None:
        """New buffers for a new run: the last one may have written them."""
        for tensor in self.originals:
            if self.kinds[id(tensor)] == "buffer":
                self.tensors[id(tensor)] = _twin(tensor, "buffer")

    @contextmanager
    def applied(self, training: bool) -> Iterator[None]:
        """While inside, the model computes with the twins; afterwards every module is as it was."""
        saved: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (held, dict(held))
            for module in self.model.modules()
            for held in (module.__dict__, module._parameters, module._buffers, module._modules)
        ]
        try:
            for module in list(self.model.modules()):
                module.__dict__["training"] = training
                tensors: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
                for held in tensors:
                    held |= {k: self.tensors[id(t)] for k, t in held.items() if t is not None and id(t) in self.tensors}
                for name, value in list(module.__dict__.items()):
                    if isinstance(value, (list, tuple)) and any(id(v) in self.tensors for v in value):
                        module.__dict__[name] = type(value)(self.tensors.get(id(v), v) for v in value)
            yield
        finally:
            for held, before in saved:
                held.clear()
                held.update(before)


def _twin(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "buffer" and not tensor.is_meta and tensor.numel() <= SMALL:
        return tensor.detach().cpu().clone()
    twin = (
        torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        if tensor.layout is torch.strided
        else torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    )
    return nn.Parameter(twin, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


class Capture:
    """One run of the forward. A later run on other sides (of `base`) writes into the same graph and placeholders."""

    def __init__(
        self,
        model: nn.Module,
        swap: Swap,
        args: Any,
        kwargs: Any,
        sides: Sides,
        fold: bool,
        training: bool = False,
        base: Capture | None = None,
    ) -> None:
        self.model, self.swap, self.sides, self.fold, self.training, self.base = (
            model,
            swap,
            sides,
            fold,
            training,
            base,
        )
        self.args, self.kwargs = args, kwargs
        self.graph: fx.Graph = base.graph if base else fx.Graph()
        self.recorder = Recorder(self.graph, sides.choose)
        self.places: dict[int, fx.Node] = {} if base is None else dict(base.places)
        self.inputs: dict[str, fx.Node] = {} if base is None else base.inputs
        self.outputs: dict[str, fx.Node] = {} if base is None else base.outputs
        self.before = len(self.graph.nodes)

    def run(self) -> None:
        self.swap.fresh()
        with self.swap.applied(self.training):
            self._enter_state()
            args, kwargs = self._enter_inputs()
            with ExitStack() as stack:
                stack.enter_context(_paths(self.model, self.recorder))
                if self.fold:
                    stack.enter_context(folded_blocks(self.model, self.recorder))
                stack.enter_context(_quiet())
                stack.enter_context(torch.no_grad())
                stack.enter_context(enable_python_dispatcher())
                stack.enter_context(self.recorder)
                out = self.model(*args, **kwargs)
            found = dict(leaves(out))
            prefix = "" if self.base is None else f"alternative{len(self.outputs)}."
            self.outputs |= {f"{prefix}{name}": self.recorder.node(tensor) for name, tensor in found.items()}

    def _enter_state(self) -> None:
        for original in self.swap.originals:
            key = id(original)
            tensor = self.swap.tensors[key]
            known = self.places.get(key)
            if known is None:
                known = self.places[key] = self.recorder.enter(tensor, self.swap.kinds[key], self.swap.names[key][0])
            else:
                self.recorder.bind(tensor, known)
            self.recorder.nodes[key] = known  # a reference to the original that was kept elsewhere

    def _enter_inputs(self) -> tuple[Any, Any]:
        try:
            bound = inspect.signature(self.model.forward).bind_partial(*self.args, **self.kwargs)
            names = {f"args.{i}": name for i, name in enumerate(list(bound.arguments)[: len(self.args)])}
        except (TypeError, ValueError):
            names = {}

        def enter(value: Any, path: str) -> Any:
            if isinstance(value, torch.Tensor):
                keep = (
                    not value.dtype.is_floating_point
                    and not value.dtype.is_complex
                    and value.numel() <= SMALL
                    and not value.is_meta
                )
                tensor = (
                    value.detach().cpu().clone() if keep else torch.empty(value.shape, dtype=value.dtype, device="meta")
                )
                if path in self.inputs:
                    self.recorder.bind(tensor, self.inputs[path])
                else:
                    self.inputs[path] = self.recorder.enter(tensor, "input", path)
                return tensor
            if isinstance(value, dict):
                return type(value)((k, enter(v, f"{path}.{k}")) for k, v in value.items())
            if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
                return type(value)(enter(v, f"{path}.{i}") for i, v in enumerate(value))
            return value

        args = tuple(enter(v, names.get(f"args.{i}", f"args.{i}")) for i, v in enumerate(self.args))
        return args, {k: enter(v, k) for k, v in self.kwargs.items()}

    def unread(self) -> list[str]:
        return [
            self.swap.names[k][0] for k, n in self.places.items() if self.swap.kinds[k] == "parameter" and not n.users
        ]

    def forget(self, extra: Capture) -> None:
        """Take an alternative's nodes out again."""
        for node in list(reversed(self.graph.nodes))[: len(self.graph.nodes) - extra.before]:
            if node.op == "call_function" and not node.users:
                self.graph.erase_node(node)

    def result(self, guesses: tuple[Guess, ...]) -> Trace:
        by_kind: dict[str, dict[str, fx.Node]] = {"parameter": {}, "buffer": {}}
        for key, node in self.places.items():
            by_kind[self.swap.kinds[key]][self.swap.names[key][0]] = node
        order = {name: None for name, _ in self.model.named_parameters()}
        parameters = {name: by_kind["parameter"][name] for name in order if name in by_kind["parameter"]}
        tied = tuple(
            tuple(names)
            for key, names in self.swap.names.items()
            if len(names) > 1 and self.swap.kinds[key] == "parameter"
        )
        return Trace(
            self.graph, parameters, by_kind["buffer"], self.inputs, self.outputs, tied, tuple(self.unread()), guesses
        )


@contextmanager
def _paths(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Keep the recorder's module path while submodules run."""
    names = {id(module): name for name, module in model.named_modules()}

    def enter(module: nn.Module, _args: Any) -> None:
        recorder.path.append(names.get(id(module), recorder.path[-1]))

    def leave(module: nn.Module, _args: Any, _out: Any) -> None:
        if len(recorder.path) > 1:
            recorder.path.pop()

    handles = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """No fused fast paths; `tolist` and formatting of meta values give stand-ins: all would bypass the recorder."""
    fast = torch.backends.mha.get_fastpath_enabled()
    real = torch.Tensor.tolist

    def tolist(self: torch.Tensor) -> Any:
        if not self.is_meta:
            return real(self)
        return [tolist(row) for row in self] if self.dim() else self.item()

    written = torch.Tensor.__format__

    def format_(self: torch.Tensor, spec: str) -> str:
        return written(self, spec) if self.dim() or not self.is_meta else format(self.item(), spec)

    torch.backends.mha.set_fastpath_enabled(False)
    torch.Tensor.tolist = tolist  # type: ignore[assignment,method-assign]
    torch.Tensor.__format__ = format_  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.Tensor.tolist = real  # type: ignore[method-assign]
        torch.Tensor.__format__ = written  # type: ignore[method-assign]


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of an output, by path: mappings, sequences, dataclasses and plain objects are walked."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if depth > 6 or value is None or isinstance(value, (str, int, float, bool, nn.Module)):
        return
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif dataclasses.is_dataclass(value):
        items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    else:
        items = getattr(value, "__dict__", {}).items()
    for name, item in items:
        yield from leaves(item, f"{path}.{name}" if path else str(name), depth + 1)
