"""Repeated blocks are traced once: the others' nodes are copied, with their own parameters and their own path.

Sibling modules of one structure, called with inputs of one form, are compared before they are trusted: the first, the
second and the last are traced in full, and only where all three wrote the same ops are those between them copies. A
block that decides by its own number, writes what is not its own, or leaves tensors behind is never a template.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn

from mupc.trace.blocks import Block
from mupc.trace.likeness import SIMPLE, Ordinal, groups, is_ordinal
from mupc.trace.recorder import Recorder


class NotRepeatedError(Exception):
    """A block was not what its siblings were taken for, or failed under watch; trace again without templates."""


@dataclass(frozen=True, slots=True)
class Template:
    """What one block wrote: per node, target and arguments, with what they refer to in place of nodes.

    A reference is `("n", i)` to the block's own i-th node, `("in", i)` to its i-th tensor argument, `("p", name)` to
    one of its own parameters or buffers, `("x", node)` to a node of the model around it.
    """

    block: Block
    steps: tuple[tuple[Any, Any, Any, Any, str], ...]
    out: Any

    def same(self, other: Template | None) -> bool:
        return other is not None and self.steps == other.steps and self.out == other.out


@dataclass(slots=True)
class Group:
    """Siblings of one structure; per form of input, the templates of those traced in full."""

    last: nn.Module
    seen: dict[object, list[Template | None]] = field(default_factory=lambda: defaultdict(list))

    def template(self, form: object) -> Template | None:
        """What the first two agree on."""
        seen = self.seen[form]
        return seen[0] if len(seen) > 1 and seen[0] is not None and seen[0].same(seen[1]) else None

    def like(self, form: object) -> Block | None:
        """The second, which the later ones are like; the first may differ in what it reads."""
        second = self.seen[form][1]
        return None if second is None else second.block


@contextmanager
def folded_blocks(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """While inside, a repeated block's forward is replayed from its template where that is sound."""
    undo: list[Callable[[], None]] = []
    for members in groups(dict(model.named_modules(remove_duplicate=False))):
        group = Group(members[-1][1])
        for at, module in members:
            undo.append(_wrap(module, at, group, recorder))
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _wrap(module: nn.Module, at: int, group: Group, recorder: Recorder) -> Callable[[], None]:
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        inputs: list[torch.Tensor] = []
        form = _form((args, kwargs), inputs)
        if form is None:
            return original(*args, **kwargs)
        template = group.template(form)
        if template is not None and module is not group.last:
            return _Replay(template, module, recorder, inputs, like=group.like(form)).run()
        out, seen = _Observation(module, at, recorder, inputs).run(original, args, kwargs)
        if template is not None and not template.same(seen):
            raise NotRepeatedError
        if seen is not None:
            like = group.like(form) if template is not None else None
            recorder.blocks.append(replace(seen.block, like=like) if like else seen.block)
        if len(group.seen[form]) < 2:
            group.seen[form].append(seen)
        return out

    module.__dict__["forward"] = forward
    return lambda: module.__dict__.pop("forward", None)


def _form(value: Any, inputs: list[torch.Tensor]) -> object | None:
    """The form of arguments: shapes, plain values and structure; None where an argument could carry state."""
    if isinstance(value, torch.Tensor):
        inputs.append(value)
        stride = value.stride() if value.layout is torch.strided else None
        return "t", tuple(value.shape), stride, value.dtype, None if value.is_meta else id(value)
    if isinstance(value, SIMPLE):
        return "v", type(value), value
    if isinstance(value, (list, tuple)):
        parts = [_form(v, inputs) for v in value]
        return None if None in parts else (type(value), *parts)
    if type(value) is dict:
        pairs = [(k, _form(v, inputs)) for k, v in value.items()]
        return None if any(p is None for _, p in pairs) else ("d", *pairs)
    return None


class _Observation:
    """A block run in full, watched."""

    def __init__(self, module: nn.Module, at: int, recorder: Recorder, inputs: list[torch.Tensor]) -> None:
        self.module, self.at, self.recorder, self.inputs = module, at, recorder, inputs

    def run(self, original: Any, args: Any, kwargs: Any) -> tuple[Any, Template | None]:
        """The block's result, and its template, or None where it did what no template can repeat."""
        memory, log = self.recorder.memory, self.recorder.writer.log
        entered = [memory.node(t) for t in self.inputs]
        start, written, held, seen = len(log), len(memory.writes), _state(self.module), len(memory.held)
        with _watched(self.module, self.at) as ordinals:
            try:
                out = original(*args, **kwargs)
            except (TypeError, ValueError, AttributeError) as error:
                if ordinals:  # a number of its own would not have failed there, perhaps
                    raise NotRepeatedError from error
                raise
        sound = (
            not any(ordinal.read for ordinal in ordinals)
            and all(born > start for born in memory.writes[written:])
            and _state(self.module) == held
            and not self._left_behind(out, seen, start)
        )
        return out, self._template(out, start, entered) if sound else None

    def _left_behind(self, out: Any, seen: int, start: int) -> bool:
        """Does anything but the result and the recorder hold a tensor made in the block?"""
        memory = self.recorder.memory
        made = list(memory.held.values())[seen:]
        count = dict.fromkeys((id(h.tensor) for h in made), 1)  # by Held

        def held_by(value: Any) -> None:
            if isinstance(value, torch.Tensor):
                if id(value) in count:
                    count[id(value)] += 1
            elif isinstance(value, (list, tuple)):
                for item in value:
                    held_by(item)
            elif isinstance(value, dict):
                for item in value.values():
                    held_by(item)

        given = {id(t) for t in self.inputs}
        for h in made:
            if h.view is not None:
                held_by((h.view.parent, h.view.args, h.view.kwargs))
        for node in self.recorder.writer.log[start:]:
            held_by(node.meta["val"])
        held_by(list(memory.roots.values()))
        results = {id(t) for t in _flat(out)}
        for h in made:
            key = id(h.tensor)
            if key in results or key in given:
                continue
            twin = memory.twins.get(key)
            expected = count[key] + (twin is not None) + 1  # getrefcount's own
            if h.tensor._use_count() > 1:  # type: ignore[attr-defined]  # a view's base, say: torch itself holds it
                expected += _SHARED
            if sys.getrefcount(h.tensor) > expected:
                return True
        return False

    def _template(self, out: Any, start: int, entered: list[fx.Node]) -> Template | None:
        memory, writer = self.recorder.memory, self.recorder.writer
        nodes = tuple(writer.log[start:])
        known: dict[fx.Node, tuple[str, Any]] = {}
        for name, tensor in _tensors(self.module):
            known.setdefault(memory.node(tensor), ("p", name))
        if len(writer.log) > start + len(nodes):
            return None
        known |= {node: ("in", i) for i, node in reversed(list(enumerate(entered)))}
        known |= {node: ("n", i) for i, node in enumerate(nodes)}
        prefix = writer.path[-1]
        steps: list[tuple[Any, Any, Any, Any, str]] = []
        for node in nodes:
            if node.op == "placeholder":
                if (literal := _literal(node)) is None:
                    return None
                steps.append((None, literal, (), _sizes(node.meta["val"]), ""))
                continue
            inner = str(node.meta["module"])  # one that is not the block's own is called by its whole name
            inner = inner.removeprefix(prefix) if f"{inner}.".startswith(f"{prefix}.") else inner
            shape = _sizes(node.meta["val"])
            steps.append((node.target, _encode(node.args, known), _encode(node.kwargs, known), shape, inner))
        ends = _ends(out, self.recorder, known)
        own = {name: memory.node(tensor) for name, tensor in _tensors(self.module)}
        return None if ends is None else Template(Block(nodes, own), tuple(steps), ends)


class _Replay:
    """A template's nodes, copied for a sibling."""

    def __init__(
        self,
        template: Template,
        module: nn.Module,
        recorder: Recorder,
        inputs: list[torch.Tensor],
        like: Block | None,
    ) -> None:
        memory = recorder.memory
        self.template, self.recorder, self.inputs, self.like = template, recorder, inputs, like
        self.own = {name: memory.node(tensor) for name, tensor in _tensors(module)}
        self.given = [memory.node(t) for t in inputs]
        self.made: list[fx.Node] = []

    def run(self) -> Any:
        """The sibling's result: fresh tensors, bound to the copies."""
        writer, made = self.recorder.writer, self.made
        prefix, create = writer.path[-1], writer.graph.create_node
        steps = zip(self.template.block.nodes, self.template.steps, strict=True)
        for like, (target, args, kwargs, _shape, inner) in steps:
            meta: dict[str, Any]
            model = like.meta
            if target is None:
                name = writer.constant()
                made.append(writer.graph.placeholder(f"constant_{name}"))
                made[-1].meta.update(model, name=name)
                continue
            node = create("call_function", target, self._decode(args), self._decode(kwargs))
            meta = node.meta
            meta["val"], meta["module"], meta["source"] = (
                model["val"],
                prefix + inner if inner[:1] in ("", ".") else inner,
                model["source"],
            )
            if "user_source" in model:
                meta["user_source"] = model["user_source"]
            meta["like"] = like
            made.append(node)
        writer.log += made
        self.recorder.blocks.append(Block(tuple(made), self.own, self.like, copied=True))
        with torch._C._DisableTorchDispatch():
            return self._build(self.template.out)

    def _decode(self, value: Any) -> Any:
        tag = value[0]
        if tag == "n":
            return self.made[value[1]]
        if tag == "=" or tag == "x":
            return value[1]
        if tag == "in":
            return self.given[value[1]]
        if tag == "p":
            return self.own[value[1]]
        if tag == "seq":
            parts = [self._decode(v) for v in value[2]]
            return parts if value[1] else tuple(parts)
        return {k: self._decode(v) for k, v in value[1]}

    def _build(self, value: Any) -> Any:
        if value[0] == "t":
            if value[1][0] == "in":
                return self.inputs[value[1][1]]
            node = self._decode(value[1])
            shown = node.meta["val"]
            fresh = torch.empty_strided(shown.shape, shown.stride(), dtype=shown.dtype, device="meta")
            self.recorder.memory.bind(fresh, node)
            return fresh
        if value[0] == "=":
            return value[1]
        if value[0] == "seq":
            parts = [self._build(v) for v in value[2]]
            return parts if value[1] else tuple(parts)
        return {k: self._build(v) for k, v in value[1]}


def _shared() -> int:
    """How many references torch itself adds to a tensor that more than its Python object holds."""
    x = torch.empty(2, device="meta")
    alone = sys.getrefcount(x)
    view = x.view(2)
    return sys.getrefcount(x) - alone if view is not x else 0


_SHARED = _shared()


@contextmanager
def _watched(module: nn.Module, at: int) -> Iterator[list[Ordinal]]:
    """The block's own numbers are replaced by ones that tell whether they were read."""
    ordinals: list[Ordinal] = []
    places: list[tuple[dict[str, Any], str, int]] = []
    for sub in module.modules():
        for key, value in sub.__dict__.items():
            if is_ordinal(key, value, at):
                places.append((sub.__dict__, key, value))
    for held, key, value in places:
        ordinals.append(Ordinal(value))
        held[key] = ordinals[-1]
    try:
        yield ordinals
    finally:
        for held, key, value in places:
            if type(held.get(key)) is Ordinal:
                held[key] = value


def _literal(node: fx.Node) -> object | None:
    """The value of a tensor written in the code; None for one kept from before."""
    value = node.meta.get("value")
    if value is None or not node.meta["name"].startswith("c") or not node.meta["name"][1:].isdigit():
        return None
    with torch._C._DisableTorchDispatch(), torch._C._DisablePythonDispatcher():
        return str(value.dtype), tuple(value.shape), tuple(value.reshape(-1).tolist())


def _state(module: nn.Module) -> dict[tuple[int, str], object]:
    """What a block holds as attributes: one that leaves anything behind has an effect no template repeats."""
    return {
        (id(sub), key): value if type(value) is not Ordinal and isinstance(value, SIMPLE) else id(value)
        for sub in module.modules()
        for held in (sub.__dict__, sub._buffers)
        for key, value in held.items()
    }


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _flat(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))


def _sizes(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    return tuple(_sizes(v) for v in value) if isinstance(value, (list, tuple)) else value


def _encode(value: Any, known: dict[fx.Node, tuple[str, Any]]) -> Any:
    if isinstance(value, fx.Node):
        return known.get(value, ("x", value))
    if isinstance(value, (list, tuple)):
        return "seq", isinstance(value, list), tuple(_encode(v, known) for v in value)
    if isinstance(value, dict):
        return "map", tuple((k, _encode(v, known)) for k, v in value.items())
    return "=", value


def _ends(out: Any, recorder: Recorder, known: dict[fx.Node, tuple[str, Any]]) -> Any:
    """The block's result with references in place of tensors; None where it holds anything else than plain values."""
    if isinstance(out, torch.Tensor):
        reference = known.get(recorder.memory.node(out))
        return reference and (("t", reference) if out.is_meta or reference[0] == "in" else None)
    if isinstance(out, SIMPLE):
        return "=", out
    if isinstance(out, (list, tuple)) and not hasattr(out, "_fields"):
        parts = tuple(_ends(o, recorder, known) for o in out)
        return None if None in parts else ("seq", isinstance(out, list), parts)
    if type(out) is dict:
        pairs = tuple((k, _ends(v, recorder, known)) for k, v in out.items())
        return None if any(v is None for _, v in pairs) else ("map", pairs)
    return None
