"""Meta twins in place of a model's parameters while its forward runs; the model is left as it was found."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from mupc.errors import TraceError
from mupc.trace.memory import PLAIN, Memory, meta_like, storage_of
from mupc.trace.recorder import SMALL


@dataclass(slots=True)
class State:
    """One parameter or buffer: all the names it goes by, all the tensors that are it, and its twin."""

    kind: str
    names: list[str]
    originals: list[torch.Tensor]
    twin: torch.Tensor = field(init=False)

    def renew(self) -> None:
        """A new twin; buffers that fit keep their values."""
        original = self.originals[0]
        with torch.no_grad():
            if self.kind == "buffer" and keeps_values(original):
                self.twin = original.detach().clone()
                return
            twin = meta_like(original)
        if isinstance(original, nn.Parameter):
            self.twin = nn.Parameter(twin, requires_grad=original.requires_grad)
            self.twin.__dict__.update(original.__dict__)  # tags that a forward reads: microsoft/mup's infshape
        else:
            self.twin = twin


def keeps_values(tensor: torch.Tensor) -> bool:
    """May its values be held and read?"""
    return type(tensor) in PLAIN and tensor.device.type == "cpu" and tensor.numel() <= SMALL


class Swap:
    """The states of a model, and the exchange of its tensors for their twins."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.by_id: dict[int, State] = {}
        groups: dict[object, State] = {}
        for kind, named in (
            ("parameter", model.named_parameters(remove_duplicate=False)),
            ("buffer", model.named_buffers(remove_duplicate=False)),
        ):
            for name, tensor in named:
                if nn.parameter.is_lazy(tensor):
                    raise TraceError(f"{name}: its shape is not known before a first forward; call the model once")
                state = groups.setdefault(_same(tensor), State(kind, [], []))
                state.names.append(name)
                if id(tensor) not in self.by_id:
                    self.by_id[id(tensor)] = state
                    state.originals.append(tensor)
        self.states = list(groups.values())
        for state in self.states:
            state.renew()

    def fresh(self) -> None:
        """New buffers for a new run: the last one may have written them."""
        for state in self.states:
            if state.kind == "buffer":
                state.renew()

    def introduce(self, memory: Memory) -> None:
        """References to the originals kept elsewhere mean the same; so do views of them. Their values are not read."""
        for state in self.states:
            node = memory.node(state.twin)
            for original in state.originals:
                memory.bind(original, node)
                memory.twins[id(original)] = original, state.twin
                if state.kind == "parameter" and not original.is_meta:
                    memory.unknown.add(storage_of(original))
        for name, module in self.model.named_modules():
            for key, value in module.__dict__.items():
                if isinstance(value, torch.Tensor) and id(value) not in self.by_id:
                    memory.names.setdefault(id(value), f"{name}.{key}" if name else key)

    @contextmanager
    def applied(self, training: bool) -> Iterator[None]:
        """While inside, the model computes with the twins; afterwards every module is as it was."""
        modules = list(self.model.modules())
        saved = [(held, dict(held)) for m in modules for held in (m.__dict__, m._parameters, m._buffers, m._modules)]
        contents = [(value, _copy(value)) for m in modules for value in m.__dict__.values() if type(value) in MUTABLE]
        try:
            for module in modules:
                module.__dict__["training"] = training
                tensors: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
                for held in tensors:
                    held |= {k: self.by_id[id(t)].twin for k, t in held.items() if id(t) in self.by_id}
                for name, value in list(module.__dict__.items()):
                    if isinstance(value, torch.Tensor) and id(value) in self.by_id:
                        module.__dict__[name] = self.by_id[id(value)].twin
                    elif type(value) in (list, tuple) and any(id(v) in self.by_id for v in value):
                        module.__dict__[name] = type(value)(self._twin(v) for v in value)
                    elif type(value) is dict and any(id(v) in self.by_id for v in value.values()):
                        module.__dict__[name] = {k: self._twin(v) for k, v in value.items()}
            yield
        finally:
            for held, before in saved:
                held.clear()
                held.update(before)
            for value, content in contents:
                value.clear()
                (value.extend if type(value) in (list, deque) else value.update)(content)

    def _twin(self, value: Any) -> Any:
        state = self.by_id.get(id(value))
        return value if state is None else state.twin


MUTABLE = (list, dict, set, deque, OrderedDict, defaultdict)


def _copy(value: Any) -> Any:
    return list(value) if type(value) in (list, deque) else value.copy()


def _same(tensor: torch.Tensor) -> object:
    """Tensors that are one: the same object, or the same view of the same memory."""
    storage = storage_of(tensor) if type(tensor) in PLAIN and tensor.numel() else 0
    if not storage:
        return id(tensor)
    return storage, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
