"""Ops whose result only the data knows: exact where the data is real, a recorded guess or a stand-in size where not."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import fx

from mupc.trace.functional import arguments

if TYPE_CHECKING:
    from mupc.trace.recorder import Recorder

STAND_IN: Final = 5  # rows that a data-dependent selection is taken to have
ALL: Final = 64  # up to here, a selection is taken to find every element
CHOICES = ("aten.nonzero", "aten.argwhere", "aten.where", "aten.topk", "aten.argmax", "aten.unique", "aten._unique")
SCALAR: Final = frozenset(
    {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::allclose"}
)
MASKS = (torch.bool, torch.uint8)
SPLITS: Final = frozenset({"aten::split", "aten::split_with_sizes"})


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an op, with some argument whose values are unknown."""

    recorder: Recorder
    name: str
    args: tuple[Any, ...]
    named: dict[str, Any]
    tensors: list[torch.Tensor]

    def real(self, tensor: torch.Tensor) -> bool:
        return self.recorder.memory.real(tensor)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype or self.tensors[0].dtype, device="meta")

    def size(self, took: int) -> int:
        """A size that only the data knows is taken to be `took`."""
        self.recorder.note("a size that depends on values", took)
        return took


def answer(recorder: Recorder, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
    """The result of a data-dependent op, or NotImplemented for any other op."""
    handler = HANDLERS.get(func._schema.name)
    if handler is None:
        return NotImplemented
    return handler(Call(recorder, func._schema.name, args, arguments(func, args, kwargs), tensors))


def _scalar(call: Call) -> Any:
    if call.name in ("aten::is_nonzero", "aten::equal", "aten::allclose") or call.tensors[0].dtype == torch.bool:
        return call.recorder.branch()
    if call.tensors[0].dtype.is_complex:
        took: Any = 1j
    elif call.tensors[0].dtype.is_floating_point:
        took = 1.0
    else:
        place = _chosen_place(call.recorder.memory.node(call.tensors[0]))
        took = 1 if place is None else place
    call.recorder.note("a number read from values", took)
    return took


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


def _rows(call: Call, mask: torch.Tensor) -> int:
    """How many elements are nonzero: all of a few, so that a loop over experts meets every one."""
    return call.size(mask.numel() if mask.numel() <= ALL else STAND_IN)


def _nonzero(call: Call) -> Any:
    return call.empty((_rows(call, call.tensors[0]), call.tensors[0].dim()), torch.long)


def _nonzero_each(call: Call) -> Any:
    if len(call.args) > 1 or len(call.named) > 1:
        return NotImplemented
    rows = _rows(call, call.tensors[0])
    return [call.empty((rows,), torch.long) for _ in range(max(1, call.tensors[0].dim()))]


def _masked_select(call: Call) -> Any:
    mask = call.named["mask"]
    shape = torch.broadcast_shapes(call.named["self"].shape, mask.shape)  # type: ignore[no-untyped-call]
    each = math.prod(shape) // max(1, mask.numel()) if call.real(mask) else 1
    return call.empty((_count(call, mask) * each,))


def _kept(call: Call) -> Any:
    """Boxes that overlap no better one: which, and how many, their places say."""
    return call.empty((call.size(min(STAND_IN, call.tensors[0].shape[0])),), torch.long)


def _count(call: Call, mask: torch.Tensor) -> int:
    return int(mask.sum()) if call.real(mask) else _rows(call, mask)


def _masked_index(call: Call) -> Any:
    """The shape of `x[..., mask, ...]`: one axis in place of those the masks cover."""
    x, indices = call.args[0], call.args[1]
    if not any(i is not None and i.dtype in MASKS for i in indices):
        return NotImplemented
    at, kept, shapes = 0, [], list[tuple[int, ...]]()
    places: list[int] = []  # of the indexed axes among all; where they are neighbours the new axis takes their place
    first = 0
    for index in indices:
        if index is None:
            kept.append(x.shape[at])
            at += 1
            continue
        first = len(kept) if not places else first
        covered = max(1, index.dim()) if index.dtype in MASKS else 1
        places += range(at, at + covered)
        shapes.append((_count(call, index),) if index.dtype in MASKS else tuple(index.shape))
        at += covered
    if places != list(range(places[0], places[-1] + 1)):
        first = 0
    return call.empty((*kept[:first], *_broadcast(shapes), *kept[first:], *x.shape[at:]))


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of all of them together; where a size that was guessed disagrees, the first holds."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True)
    return tuple(next((n for n in column if n != 1), 1) for column in columns)


def _put(call: Call) -> Any:
    """A write through indices keeps the shape, whatever the values' is."""
    x = call.args[0]
    return x if call.name.endswith("_") else torch.empty_like(x, device="meta")


def _repeated(call: Call) -> Any:
    repeats = call.named.get("repeats")
    if not isinstance(repeats, torch.Tensor):
        return NotImplemented
    x, dim = call.named.get("self"), call.named.get("dim")
    total = call.named.get("output_size")
    along = 1 if x is None else (x.numel() if dim is None else x.shape[dim])
    if call.real(repeats):
        total = int(repeats.sum()) if repeats.numel() > 1 else int(repeats) * along
    total = call.size(STAND_IN) if total is None else total
    if x is None:
        return call.empty((total,), torch.long)
    if dim is None:
        return call.empty((total,))
    shape = list(x.shape)
    shape[dim] = total
    return call.empty(tuple(shape))


def _bincount(call: Call) -> Any:
    return call.empty((call.size(max(call.named.get("minlength") or 0, STAND_IN)),), torch.long)


def _unique(call: Call) -> Any:
    x, rows = call.tensors[0], call.size(STAND_IN)
    dim = call.named.get("dim")
    shape = (rows,) if dim is None else (*x.shape[: dim % x.dim()], rows, *x.shape[dim % x.dim() + 1 :])
    inverse = tuple(x.shape) if dim is None else (x.shape[dim],)
    kept = call.empty(shape), call.empty(inverse, torch.long)
    return kept if call.name == "aten::_unique" else (*kept, call.empty((rows,), torch.long))


def _moved(call: Call) -> Any:
    """`real.to(other)` or `real.expand_as(other)` where `other` is on meta: only its dtype, or shape, is taken."""
    x, other = call.args[0], call.named.get("other")
    if not isinstance(other, torch.Tensor) or not call.real(x):
        return NotImplemented
    return AS[call.name](x, other)


AS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "aten::to": lambda x, other: x.to(other.dtype),
    "aten::type_as": lambda x, other: x.to(other.dtype),
    "aten::expand_as": lambda x, other: x.expand(other.shape),
    "aten::view_as": lambda x, other: x.view(other.shape),
    "aten::reshape_as": lambda x, other: x.reshape(other.shape),
}


def _pack(call: Call) -> Any:
    """Rows of a padded batch laid end to end; lengths that are not known are the full ones."""
    x, lengths, first = call.args[0], call.named["lengths"], call.named["batch_first"]
    batch, steps = x.shape[:2] if first else (x.shape[1], x.shape[0])
    counts = lengths.tolist() if call.real(lengths) else [call.size(steps)] * batch
    sizes = torch.tensor([sum(n > t for n in counts) for t in range(max(counts))])
    return call.empty((int(sizes.sum()), *x.shape[2:])), sizes


def _unpack(call: Call) -> Any:
    data, sizes, first = call.named["data"], call.named["batch_sizes"], call.named["batch_first"]
    steps = max(len(sizes), call.named.get("total_length") or 0)
    batch = int(sizes[0]) if call.real(sizes) else call.size(STAND_IN)
    shape = (batch, steps) if first else (steps, batch)
    lengths = (sizes[:, None] > torch.arange(batch)).sum(0) if call.real(sizes) else call.empty((batch,), torch.long)
    return call.empty((*shape, *data.shape[1:]), data.dtype), lengths


def adding_up(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Guessed sizes of parts that do not add up to what is split are made to: evenly, the rest to the first."""
    if func._schema.name not in SPLITS or len(args) < 2 or not isinstance(args[1], (list, tuple)):
        return args
    whole, parts = args[0].shape[args[2] if len(args) > 2 else kwargs.get("dim", 0)], len(args[1])
    if sum(args[1]) == whole or not parts:
        return args
    each = whole // parts
    return (args[0], [whole - each * (parts - 1), *[each] * (parts - 1)], *args[2:])


def _nothing(call: Call) -> Any:
    """An assertion about values."""
    return None


HANDLERS: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(SCALAR, _scalar),
    **dict.fromkeys(("aten::nonzero", "aten::argwhere"), _nonzero),
    **dict.fromkeys(("aten::nonzero_numpy", "aten::where"), _nonzero_each),
    **dict.fromkeys(("aten::index", "aten::_unsafe_index"), _masked_index),
    **dict.fromkeys(("aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index_put"), _put),
    **dict.fromkeys(("aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::_unique"), _unique),
    **dict.fromkeys(("aten::_assert_async", "aten::_assert_tensor_metadata"), _nothing),
    "aten::masked_select": _masked_select,
    "torchvision::nms": _kept,
    "aten::repeat_interleave": _repeated,
    "aten::bincount": _bincount,
    **dict.fromkeys(AS, _moved),
    "aten::_pack_padded_sequence": _pack,
    "aten::_pad_packed_sequence": _unpack,
}


def shape_only(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> Any:
    """Shapes of ops whose meta kernel refuses what the real one takes; NotImplemented for any other."""
    name = func._schema.name
    if name in ("aten::_grouped_mm", "aten::_scaled_grouped_mm"):
        a, b = args[0], args[1]
        groups = args[2] if len(args) > 2 else kwargs.get("offs")
        if b.dim() == 3:
            return a.new_empty(*a.shape[:-1], b.shape[2])
        if a.dim() == 3:
            return a.new_empty(a.shape[1], b.shape[1])
        return a.new_empty(groups.shape[0], a.shape[0], b.shape[1]) if groups is not None else NotImplemented
    if "dtype" in str(error) and _autocast():
        return _promoted(func, args, kwargs)
    return NotImplemented


def _autocast() -> bool:
    return any(torch.is_autocast_enabled(device) for device in ("cuda", "cpu"))


def _promoted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Under autocast, operands of different floating types are brought to the widest."""
    floats = [a.dtype for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()]
    if len(set(floats)) < 2:
        return NotImplemented
    widest = max(floats, key=lambda dtype: torch.finfo(dtype).bits)
    return func(*(a.to(widest) if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args), **kwargs)
