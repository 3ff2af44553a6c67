"""Tensors inside arguments and results: sequences, mappings, dataclasses and plain objects are walked."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, nn.Module, type)
DEEPEST = 6


def replaced(value: Any, path: str, change: Callable[[torch.Tensor, str], torch.Tensor], depth: int = 0) -> Any:
    """A copy of the arguments with every tensor changed; what holds no tensors is passed on as it is."""
    if isinstance(value, torch.Tensor):
        return change(value, path)
    if depth > DEEPEST or isinstance(value, PLAIN) or next(leaves(value), None) is None:
        return value

    def inner(item: Any, key: object) -> Any:
        return replaced(item, f"{path}.{key}" if path else str(key), change, depth + 1)

    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(inner(v, k) for k, v in zip(value._fields, value, strict=True)))
    if isinstance(value, (list, tuple)):
        return type(value)(inner(v, i) for i, v in enumerate(value))
    if type(value) is dict:
        return {k: inner(v, k) for k, v in value.items()}
    twin = copy.copy(value)
    if isinstance(value, Mapping):
        for k, v in value.items():
            twin[k] = inner(v, k)
        return twin
    for k, v in vars(value).items():
        object.__setattr__(twin, k, inner(v, k))
    return twin


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a value, by path, in order."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if depth > DEEPEST or isinstance(value, PLAIN):
        return
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif dataclasses.is_dataclass(value):
        items = ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
    else:
        items = getattr(value, "__dict__", {}).items()
    for name, item in items:
        yield from leaves(item, f"{path}.{name}" if path else str(name), depth + 1)
