"""A bare forward on meta: does the model accept these inputs?

Small tensors that depend on no parameter stay real, so that masks, lengths and grids have their true values.
Values that do depend on parameters are made up: this only asks whether shapes fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from mupc.devices import any_device
from mupc.inputs.guess import Guess
from mupc.inputs.signature import forward_parameters
from mupc.target.build import Unmoved

_aten = torch.ops.aten
_SMALL = 1 << 20
_RANDOM = {_aten.rand, _aten.randn, _aten.randint, _aten.randperm, _aten.normal, _aten.bernoulli, _aten.empty_strided}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the forward raised, or None if it returned.

    `ops` were run by then, a measure of how far it got; `guessed` says that values were made up on the way.
    """

    error: Exception | None
    ops: int
    guessed: bool


def attempt(model: nn.Module, inputs: Mapping[str, Guess]) -> Attempt:
    """Call the model's forward on meta, in eval mode, as it is found."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    extra = {"use_cache": False} if "use_cache" in forward_parameters(model).names else {}
    mode = OnMetaForward()
    tolist = Tensor.tolist
    try:
        Tensor.tolist = _tolist(tolist, mode)  # type: ignore[method-assign]
        with torch.no_grad(), any_device(), Unmoved(), mode:
            model(**{name: guess.tensor() for name, guess in inputs.items()}, **extra)
    except Exception as error:
        return Attempt(error, mode.ops, mode.guessed)
    finally:
        Tensor.tolist = tolist  # type: ignore[method-assign]
        for module, was in training:
            module.training = was
    return Attempt(None, mode.ops, mode.guessed)


def _tolist(plain: Any, mode: OnMetaForward) -> Any:
    """Ones for values that are not known; `tolist` is not an op, so the mode does not see it."""

    def tolist(self: Tensor) -> Any:
        if not self.is_meta:
            return plain(self)
        mode.guessed = True
        return plain(torch.ones(self.shape, dtype=self.dtype, device="cpu"))

    return tolist


class OnMetaForward(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run ops on meta as soon as one operand is there, on the CPU while all are small and known."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops = 0
        self.guessed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops += 1
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        on_meta = any(tensor.is_meta for tensor in tensors)
        if not tensors:
            return _factory(func, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta" if on_meta else "cpu"
        if not on_meta:
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in _HANDLERS:
            self.guessed |= packet in _MADE_UP
            return _HANDLERS[packet](func, args, kwargs)
        if func._schema.is_mutable and isinstance(args[0], Tensor) and not args[0].is_meta:
            return args[0]
        return func(*_meta(args), **_meta(kwargs))


def _factory(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if "device" not in {argument.name for argument in func._schema.arguments}:
        return func(*args, **kwargs)
    kwargs.pop("pin_memory", None)
    shape = func(*args, **{**kwargs, "device": "meta"})
    asked = kwargs.get("device")
    if shape.numel() > _SMALL or func.overloadpacket in _RANDOM:
        return shape
    if asked is not None and torch.device(asked).type == "meta" and shape.dtype.is_floating_point:
        return shape  # fused kernels (lstm) compare devices before any op is dispatched
    made = func(*args, **{**kwargs, "device": "cpu"})
    return made.zero_() if func.overloadpacket is _aten.empty else made


def _meta(tree: Any) -> Any:
    return tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) and not leaf.is_meta else leaf, tree)


def _item(func: Any, args: Any, kwargs: Any) -> Any:
    dtype = args[0].dtype
    return False if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1


def _nonzero(func: Any, args: Any, kwargs: Any) -> Any:
    return torch.empty((args[0].numel(), args[0].dim()), dtype=torch.int64, device="meta")


def _index(func: Any, args: Any, kwargs: Any) -> Any:
    """A boolean index becomes the integer ones it stands for."""
    values, *rest = args
    indices: list[Any] = []
    for index in rest[0]:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            where = index.nonzero() if not index.is_meta else _nonzero(func, (index,), {})
            indices += [part.contiguous() for part in where.unbind(1)]
        else:
            indices.append(index)
    if func._schema.is_mutable and not values.is_meta:
        return values
    return func(values.to("meta"), _meta(indices), *_meta(rest[1:]), **_meta(kwargs))


def _masked_select(func: Any, args: Any, kwargs: Any) -> Any:
    values, mask = args
    count = int(mask.expand(values.shape).sum()) if not mask.is_meta else values.numel()
    return torch.empty((count,), dtype=values.dtype, device="meta")


def _bincount(func: Any, args: Any, kwargs: Any) -> Any:
    return torch.empty(
        (max(1, kwargs.get("minlength", args[2] if len(args) > 2 else 1)),), dtype=torch.int64, device="meta"
    )


def _repeat_interleave(func: Any, args: Any, kwargs: Any) -> Any:
    size = kwargs.get("output_size") or int(args[0].numel())
    return torch.empty((size,), dtype=torch.int64, device="meta")


def _equal(func: Any, args: Any, kwargs: Any) -> Any:
    return args[0].shape == args[1].shape


def _unique(func: Any, args: Any, kwargs: Any) -> Any:
    numel = args[0].numel()
    new = torch.empty((numel,), dtype=args[0].dtype, device="meta")
    count = torch.empty((numel,), dtype=torch.int64, device="meta")
    return new, torch.empty(args[0].shape, dtype=torch.int64, device="meta"), count


def _grouped_mm(func: Any, args: Any, kwargs: Any) -> Any:
    """The real kernel insists on a dtype; the shape does not depend on it."""
    left, right = args[0], args[1]
    return torch.empty((*left.shape[:-1], right.shape[-1]), dtype=left.dtype, device="meta")


_HANDLERS: dict[Any, Any] = {
    _aten._local_scalar_dense: _item,
    _aten.nonzero: _nonzero,
    _aten.index: _index,
    _aten.index_put: _index,
    _aten.index_put_: _index,
    _aten._index_put_impl_: _index,
    _aten._unsafe_index: _index,
    _aten.masked_select: _masked_select,
    _aten.bincount: _bincount,
    _aten.equal: _equal,
    _aten._unique2: _unique,
}
_MADE_UP = {_aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten.bincount, _aten.equal, _aten._unique2}
if hasattr(_aten, "_grouped_mm"):
    _HANDLERS[_aten._grouped_mm] = _grouped_mm
