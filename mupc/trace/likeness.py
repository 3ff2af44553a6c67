"""When are two modules one structure? Classes, shapes and plain attributes agree, but for the place they stand in."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from mupc.trace.swap import keeps_values

ORDINAL = re.compile(r"idx|index|layer|block|depth|_id$")
SIMPLE = (int, float, str, bool, type(None), torch.dtype)
FEWEST = 3  # siblings below which nothing is saved
NUMBERS = 256  # elements up to which a buffer's values belong to the structure
DEEPEST = 3
# what nn.Module keeps for itself, and its tensors and children, which are compared apart
OWN = frozenset(nn.Module().__dict__) - {"training"}


class Ordinal:
    """A block's own number, which tells whether it was read: what it decides differs from block to block.

    It passes for an int, and is none: C code would read an int's value unseen.
    """

    __slots__ = ("read", "value")

    def __init__(self, value: int) -> None:
        self.value, self.read = value, False

    @property
    def __class__(self) -> type:
        return int

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise TypeError("a number stays a number")

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return int, (self.value,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value, name)


def _noting(operation: str) -> Any:
    def method(self: Ordinal, *operands: Any) -> Any:
        self.read = True
        return getattr(self.value, operation)(*(o.value if type(o) is Ordinal else o for o in operands))

    return method


OPERATIONS = """
    add radd sub rsub mul rmul floordiv rfloordiv truediv rtruediv mod rmod divmod rdivmod pow rpow eq ne lt le gt ge
    hash bool index int float and rand or ror xor rxor lshift rlshift rshift rrshift neg pos abs invert round
    str repr format
"""
for _operation in OPERATIONS.split():
    setattr(Ordinal, f"__{_operation}__", _noting(f"__{_operation}__"))


def groups(names: dict[str, nn.Module]) -> list[list[tuple[int, nn.Module]]]:
    """Numbered children of one parent, grouped by everything that shapes their forward."""
    by_parent: dict[str, list[tuple[int, nn.Module]]] = defaultdict(list)
    for name, module in names.items():
        parent, _, last = name.rpartition(".")
        if last.isdigit():
            by_parent[parent].append((int(last), module))
    found: list[list[tuple[int, nn.Module]]] = []
    for children in by_parent.values():
        if len(children) < FEWEST:
            continue
        alike: dict[object, dict[int, tuple[int, nn.Module]]] = defaultdict(dict)
        for at, module in children:
            if (key := structure(module, at)) is not None:
                alike[key][id(module)] = at, module
        found += [list(members.values()) for members in alike.values() if len(members) >= FEWEST]
    return found


def is_ordinal(key: str, value: object, at: int) -> bool:
    """Does an attribute hold the place of its block among its siblings?"""
    return type(value) is int and value in (at, at + 1) and ORDINAL.search(key) is not None


def structure(module: nn.Module, at: int) -> object | None:
    """Everything that shapes a module's forward, hashable; None for a module that is not to be repeated."""
    parts: list[object] = []
    shared: dict[int, int] = {}
    for name, sub in module.named_modules():
        if sub._forward_hooks or sub._forward_pre_hooks or "forward" in sub.__dict__:
            return None
        plain = tuple(
            (key, "ordinal" if is_ordinal(key, value, at) else form(value))
            for key, value in sub.__dict__.items()
            if key not in OWN
        )
        held = [
            (key, tuple(tensor.shape), tensor.dtype, shared.setdefault(id(tensor), len(shared)), _values(tensor))
            for key, tensor in (*sub._parameters.items(), *sub._buffers.items())
            if tensor is not None
        ]
        parts.append((name, type(sub), sub.training, plain, tuple(held)))
    return tuple(parts) if shared else None


def _values(tensor: torch.Tensor) -> object:
    """The values of small real buffers, which a forward may decide by."""
    if (
        isinstance(tensor, nn.Parameter)
        or not keeps_values(tensor)
        or tensor.numel() > NUMBERS
        or tensor.layout is not torch.strided
    ):
        return None
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())


def form(value: Any, depth: int = 0) -> object:
    """A plain value, comparable; what is not plain is compared by identity."""
    if isinstance(value, SIMPLE):
        return type(value), value
    if depth < DEEPEST and isinstance(value, (list, tuple)):
        return (type(value), *(form(v, depth + 1) for v in value))
    if depth < DEEPEST and isinstance(value, dict):
        return ("dict", *((form(k, depth + 1), form(v, depth + 1)) for k, v in value.items()))
    if isinstance(value, (set, frozenset)) and all(isinstance(v, SIMPLE) for v in value):
        return ("set", *sorted(map(repr, value)))
    if isinstance(value, functools.partial):
        return (
            "partial", form(value.func, depth + 1), form(value.args, depth + 1), form(value.keywords, depth + 1)
        )  # fmt: skip
    if hasattr(value, "__self__") and isinstance(value.__self__, nn.Module):
        return "method", value.__func__.__qualname__
    return id(value)
