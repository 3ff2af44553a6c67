"""Ops whose result only the data knows: exact where the data is real, a recorded guess or a stand-in size where not."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from mupc.trace.recorder import Recorder

STAND_IN = 5  # rows that a data-dependent selection is taken to have
ALL = 64  # up to here, `nonzero` is taken to find every element
CHOICES = ("aten.nonzero", "aten.argwhere", "aten.where", "aten.topk", "aten.argmax", "aten.unique", "aten._unique")
SCALAR = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::allclose")


def answer(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]
) -> Any:
    """The result of a data-dependent op, or NotImplemented for any other op."""
    name = func._schema.name
    if name in SCALAR:
        return _scalar(recorder, name, tensors)
    if name in ("aten::index", "aten::_unsafe_index"):
        return _masked_index(recorder, args)
    if name in ("aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index_put"):
        return _put(recorder, name, args)
    if name == "aten::to" and str(func).endswith("to.other") and not tensors[0].is_meta:
        return tensors[0].to(tensors[1].dtype)
    if not any(t.is_meta for t in tensors):
        return NotImplemented
    if name in ("aten::nonzero", "aten::argwhere"):
        return _empty(tensors[0], (_rows(tensors[0]), tensors[0].dim()), torch.long)
    if name == "aten::nonzero_numpy" or (name == "aten::where" and len(tensors) == 1 and len(args) == 1):
        return [_empty(tensors[0], (_rows(tensors[0]),), torch.long) for _ in range(max(1, tensors[0].dim()))]
    if name == "aten::masked_select":
        return _empty(tensors[0], (STAND_IN,), tensors[0].dtype)
    if (
        name == "aten::repeat_interleave"
        and len(tensors) > 0
        and isinstance(args[-1 if len(args) == 1 else 1], torch.Tensor)
    ):
        return _repeated(tensors, args, kwargs)
    if name == "aten::bincount":
        return _empty(
            tensors[0],
            (max(kwargs.get("minlength", 0), *(a for a in args if isinstance(a, int)), STAND_IN),),
            torch.long,
        )
    if name in ("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::_unique"):
        kept = _empty(tensors[0], (STAND_IN,), tensors[0].dtype)
        return (
            kept,
            _empty(tensors[0], tuple(tensors[0].shape), torch.long),
            _empty(tensors[0], (STAND_IN,), torch.long),
        )
    return NotImplemented


def shape_only(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Shapes of ops whose meta kernel refuses what the real one takes; NotImplemented for any other."""
    name = func._schema.name
    if name in ("aten::_grouped_mm", "aten::_scaled_grouped_mm"):
        a, b = args[0], args[1]
        if a.dim() == 2 and b.dim() == 3:
            return a.new_empty(a.shape[0], b.shape[2])
        if a.dim() == 3 and b.dim() == 3:
            return a.new_empty(a.shape[0], a.shape[1], b.shape[2])
        groups = args[2] if len(args) > 2 else kwargs.get("offs")
        return a.new_empty(groups.shape[0], a.shape[0], b.shape[1]) if groups is not None else NotImplemented
    return NotImplemented


def _rows(mask: torch.Tensor) -> int:
    """How many elements are nonzero: all of a few, so that a loop over experts meets every one."""
    return mask.numel() if mask.numel() <= ALL else STAND_IN


def _scalar(recorder: Recorder, name: str, tensors: list[torch.Tensor]) -> Any:
    if not any(t.is_meta for t in tensors):
        return NotImplemented
    if name in ("aten::is_nonzero", "aten::equal", "aten::allclose") or tensors[0].dtype == torch.bool:
        return recorder.choose("a branch on values", recorder._source())
    recorder.choose("a number read from values", recorder._source())
    if tensors[0].dtype.is_floating_point:
        return 1.0
    place = _chosen_place(recorder.node(tensors[0]))
    return 1 if place is None else place


def _chosen_place(node: fx.Node) -> int | None:
    """The number that a row of `nonzero` holds where everything is nonzero: its own place; None for other numbers."""
    place: int | None = None
    while node.op == "call_function" and node.args and isinstance(node.args[0], fx.Node):
        name = str(node.target)
        if name.startswith(CHOICES):
            return place or 0
        at = node.args[-1]
        if place is None and ("select" in name or node.target is operator.getitem) and isinstance(at, int):
            place = at if node.args[0].target is not operator.getitem or at else place
        elif not any(word in name for word in ("select", "getitem", "unbind", "squeeze", "to.", "view", "reshape")):
            return None
        node = node.args[0]
    return None


def _masked_index(recorder: Recorder, args: tuple[Any, ...]) -> Any:
    x, indices = args[0], args[1]
    if not any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices):
        return NotImplemented
    if not x.is_meta and not any(isinstance(i, torch.Tensor) and i.is_meta for i in indices):
        return NotImplemented
    before: list[int] = []
    at, placed = 0, 0
    wide: tuple[int, ...] = ()
    kept: list[int] = []
    for index in indices:
        if index is None:
            kept.append(x.shape[at])
            at += 1
        elif index.dtype in (torch.bool, torch.uint8):
            count = STAND_IN if index.is_meta else int(index.sum())
            wide = (count,)
            placed = len(kept) if not before else placed
            before.append(at)
            at += max(1, index.dim())
        else:
            wide = wide or tuple(index.shape)
            placed = len(kept) if not before else placed
            before.append(at)
            at += 1
    shape = (*kept[:placed], *wide, *kept[placed:], *x.shape[at:])
    return _empty(x, shape, x.dtype)


def _put(recorder: Recorder, name: str, args: tuple[Any, ...]) -> Any:
    """A write through indices keeps the shape, whatever the values' is."""
    x = args[0]
    if not x.is_meta and not any(isinstance(i, torch.Tensor) and i.is_meta for i in (*args[1], args[2])):
        return NotImplemented
    return x if name.endswith("_") else torch.empty_like(x, device="meta")


def _repeated(tensors: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    total = kwargs.get("output_size") or STAND_IN
    if len(tensors) == 1:
        return _empty(tensors[0], (total,), torch.long)
    x = tensors[0]
    dim = next((a for a in args[2:] if isinstance(a, int)), kwargs.get("dim"))
    repeats = tensors[1]
    if not repeats.is_meta:
        total = (
            int(repeats.sum())
            if repeats.numel() > 1
            else int(repeats) * (x.shape[dim] if dim is not None else x.numel())
        )
    if dim is None:
        return _empty(x, (total,), x.dtype)
    shape = list(x.shape)
    shape[dim] = total
    return _empty(x, tuple(shape), x.dtype)


def _empty(like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
