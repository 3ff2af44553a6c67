"""Build a model without its memory: parameters on the meta device, small constants real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

T = TypeVar("T")
_real = ContextVar("real", default=False)

# Results that depend on nothing but their arguments: a constructor may read them back with `.item()`.
_VALUES = {
    torch.arange, torch.linspace, torch.logspace, torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor,
    torch.eye, torch.range, torch.tril_indices, torch.triu_indices, torch.fft.fftfreq, torch.fft.rfftfreq,
    torch.hann_window, torch.hamming_window, torch.bartlett_window, torch.blackman_window, torch.kaiser_window,
}  # fmt: skip
_MOVES = {Tensor.cuda, Tensor.cpu, Tensor.pin_memory, Tensor.xpu}
_SMALL = 1 << 20  # elements of a constant that may be real


def build(make: Callable[[], T]) -> T:
    """Call `make` so that what it allocates is on meta; where its code needs real values, call it plainly."""
    if _real.get():
        return make()
    try:
        with OnMeta():
            return make()
    except Exception as error:
        if not needs_values(error):
            raise
    return make()


@contextmanager
def real() -> Iterator[None]:
    """While inside, targets are built as their code says, values and all: what init it draws can be seen."""
    token = _real.set(True)
    try:
        yield
    finally:
        _real.reset(token)


def needs_values(error: Exception) -> bool:
    """The error came from the meta device, not from the model."""
    said = str(error).lower()
    return isinstance(error, NotImplementedError) or "meta" in said or "unallocated storage" in said


class Unmoved(TorchFunctionMode):
    """`.cuda()` and the like leave a tensor where it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in _MOVES else func(*args, **(kwargs or {}))


class OnMeta(TorchFunctionMode):
    """Factories make meta tensors, small constants stay real, and a real operand that meets a meta one joins it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MOVES:
            return args[0]
        if func in _device_constructors():
            return _make(func, args, kwargs)
        if func is Tensor.to:
            args, kwargs = _stay(args, kwargs)
        devices = {tensor.device.type for tensor in _tensors((args, kwargs))}
        if "meta" in devices and "cpu" in devices:
            if _in_place(func) and args[0].device.type == "cpu":
                return args[0]  # its new values are nobody's to know
            args, kwargs = _to_meta(args), _to_meta(kwargs)
        return func(*args, **kwargs)


def _make(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
    if given:  # torch.as_tensor(tensor): it stays where it is
        kwargs.pop("device", None)
        return func(*args, **kwargs)
    asked = kwargs.get("device")
    may_be_real = func in _VALUES or (asked is not None and torch.device(asked).type == "cpu")
    if "pin_memory" in kwargs:
        kwargs["pin_memory"] = False
    made = func(*args, **{**kwargs, "device": "meta"})
    return func(*args, **{**kwargs, "device": "cpu"}) if may_be_real and made.numel() <= _SMALL else made


def _stay(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """`tensor.to(device, ...)` without its device."""
    tensor, *rest = args
    kwargs.pop("device", None)
    if rest and isinstance(rest[0], (str, torch.device, int)):
        rest[0] = tensor.device
    return (tensor, *rest), kwargs


def _in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from _tensors(value)


def _to_meta(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.to("meta") if tree.device.type == "cpu" else tree
    if isinstance(tree, dict):
        return {key: _to_meta(value) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(_to_meta(value) for value in tree)
    return tree
