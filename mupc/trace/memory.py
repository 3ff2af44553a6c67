"""Which node holds a tensor's value now: a write to a view reaches its base, and a stale view is made again.

Each storage has one root, the first tensor seen of it; every other tensor on it is a view, of the tensor it was made
from or, where no recorded op made it (`.data`, a slice kept from before the trace), of the root by its geometry.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from mupc.trace.writer import Writer

aten = torch.ops.aten
PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
KEPT = 1 << 12  # elements up to which a constant's values are kept on its node


@dataclass(slots=True)
class View:
    """How a tensor looks into its parent: the op that made it (None: it is all of it) and which of its results."""

    parent: torch.Tensor
    target: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    part: int | None = None


@dataclass(slots=True)
class Held:
    """A tensor, kept alive so that its id stays its own, and the node of its value at a version of its storage."""

    tensor: torch.Tensor
    node: fx.Node
    storage: int
    version: int
    view: View | None
    born: int


class Memory:
    """The nodes of all tensors seen."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.held: dict[int, Held] = {}
        self.roots: dict[int, torch.Tensor] = {}
        self.versions: dict[int, int] = {}
        self.unknown: set[int] = set()  # storages on the CPU whose contents are not what the program would hold
        self.twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.rooms: dict[int, torch.Tensor] = {}  # per storage, memory on meta for its tensors' twins
        self.stands_for: dict[int, int] = {}  # such memory -> the storage
        self.names: dict[int, str] = {}  # of tensors that may turn up as constants
        self.writes: list[int] = []  # per write, when the storage that it reached was first seen

    # values ----------------------------------------------------------------------------------------------------------

    def real(self, tensor: torch.Tensor) -> bool:
        """Are its values those the program would compute?"""
        return tensor.device.type == "cpu" and type(tensor) in PLAIN and self.storage(tensor) not in self.unknown

    def meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on meta: itself, or a twin that is kept."""
        if tensor.is_meta and type(tensor) in PLAIN:
            return tensor
        known = self.twins.get(id(tensor))
        if known is None or known[1].shape != tensor.shape:
            with torch._C._DisableTorchDispatch():
                known = self.twins[id(tensor)] = tensor, self._twin(tensor)
        return known[1]

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """On meta, tensors that share memory share it too."""
        storage = self.storage(tensor)
        if not storage or tensor.is_meta or type(tensor) not in PLAIN:
            return meta_like(tensor)
        room = self.rooms.get(storage)
        if room is None:
            size = tensor.untyped_storage().nbytes()
            room = self.rooms[storage] = torch.empty(size, dtype=torch.uint8, device="meta")
            self.stands_for[storage_of(room)] = storage
        twin = torch.empty(0, dtype=tensor.dtype, device="meta")
        return twin.set_(room.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())

    def storage(self, tensor: torch.Tensor) -> int:
        """A number of its own per memory, that of a twin being its tensor's; 0 where there is none."""
        own = storage_of(tensor)
        return self.stands_for.get(own, own) if self.stands_for else own

    def forget_values(self, tensor: torch.Tensor) -> None:
        """Something was written into a real tensor that only the data knows."""
        if not tensor.is_meta:
            self.unknown.add(self.storage(tensor))

    # nodes -----------------------------------------------------------------------------------------------------------

    def bind(self, tensor: torch.Tensor, node: fx.Node, view: View | None = None) -> None:
        """From now on, `node` is this tensor's value."""
        storage = self.storage(tensor)
        born = len(self.writer.log)
        if storage:
            root = self.roots.setdefault(storage, tensor)
            if root is not tensor:
                if view is None:
                    view = View(root, *_look(root, tensor))
                born = self.held[id(root)].born
        self.held[id(tensor)] = Held(tensor, node, storage, self.versions.get(storage, 0), view, born)

    def node(self, tensor: torch.Tensor) -> fx.Node:
        """The tensor's value as a node."""
        held = self.held.get(id(tensor))
        if held is None or (held.storage and held.storage != self.storage(tensor)):
            return self._unseen(tensor)
        if held.view is not None and held.version != self.versions.get(held.storage, 0):
            held.node = self._seen_through(held.view, tensor)
            held.version = self.versions.get(held.storage, 0)
        return held.node

    def _seen_through(self, view: View, tensor: torch.Tensor) -> fx.Node:
        base = self.node(view.parent)
        if view.target is None:
            return base
        args = (base, *self.nodes(view.args))
        if view.part is None:
            return self.writer.call(view.target, args, self.nodes(view.kwargs or {}), self.meta(tensor))
        whole = self.writer.call(view.target, args, self.nodes(view.kwargs or {}), None)
        node = self.writer.call(operator.getitem, (whole, view.part), {}, self.meta(tensor))
        whole.meta["val"] = [node.meta["val"]] * (view.part + 1)
        return node

    def _unseen(self, tensor: torch.Tensor) -> fx.Node:
        root = self.roots.get(self.storage(tensor))
        if root is None or root is tensor:
            return self.constant(tensor)
        view = View(root, *_look(root, tensor))
        node = self._seen_through(view, tensor)
        self.bind(tensor, node, view)
        return node

    def constant(self, tensor: torch.Tensor) -> fx.Node:
        """A placeholder for a tensor that is captured from outside and is no parameter, buffer or input."""
        name = self.names.get(id(tensor)) or self.writer.constant()
        node = self.writer.placeholder("constant", name, self.meta(tensor))
        if self.real(tensor) and tensor.numel() <= KEPT:
            with torch._C._DisableTorchDispatch():
                node.meta["value"] = tensor.detach().clone()
        self.roots.pop(self.storage(tensor), None)
        self.bind(tensor, node)
        return node

    def nodes(self, value: Any) -> Any:
        """Arguments with nodes in place of tensors, and plain values; devices are meta."""
        if isinstance(value, torch.Tensor):
            return self.node(value)
        if isinstance(value, (list, tuple)):
            found = [self.nodes(v) for v in value]
            return tuple(found) if isinstance(value, tuple) else found
        if isinstance(value, dict):
            return {k: self.nodes(v) for k, v in value.items()}
        if isinstance(value, torch.device):
            return torch.device("meta")
        if value is None or isinstance(value, _PLAIN_ARGUMENTS):
            return value
        return None if isinstance(value, torch.Generator) else str(value)

    # writes ----------------------------------------------------------------------------------------------------------

    def written(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """`tensor` now holds `node`: so do the parts of its bases that it looks into."""
        held = self.held.get(id(tensor))
        if held is None or held.storage != self.storage(tensor):
            self.bind(tensor, node)
            return
        version = self.versions.get(held.storage, 0) + 1
        chain = [held]
        while (view := chain[-1].view) is not None:
            self.node(view.parent)
            chain.append(self.held[id(view.parent)])
        self.writes.append(chain[-1].born)
        for part, whole in zip(chain, [*chain[1:], None], strict=True):
            part.node, part.version = node, version
            if whole is not None:
                node = self._put_back(part, whole, node)
        self.versions[held.storage] = version

    def _put_back(self, part: Held, whole: Held, new: fx.Node) -> fx.Node:
        """The whole's value once the part of it seen through a view is replaced by `new`."""
        view, base, value = part.view, whole.node, self.meta(whole.tensor)
        assert view is not None
        if view.target is None:
            return new
        name = view.target._schema.name.removeprefix("aten::")
        named = {a.name: v for a, v in zip(view.target._schema.arguments[1:], view.args, strict=False)}
        named |= view.kwargs or {}
        call, child = self.writer.call, part.tensor
        if name == "slice":
            return call(aten.slice_scatter.default, (base, new, *view.args), view.kwargs or {}, value)
        if name == "select":
            return call(aten.select_scatter.default, (base, new, *view.args), view.kwargs or {}, value)
        if name == "diagonal":
            return call(aten.diagonal_scatter.default, (base, new, *view.args), view.kwargs or {}, value)
        if name == "unbind":
            return call(aten.select_scatter.default, (base, new, named.get("dim", 0), view.part), {}, value)
        if view.part is not None or name == "narrow":
            dim = _cut_dim(whole.tensor, child)
            if dim is not None:
                stride = whole.tensor.stride(dim)
                start = (child.storage_offset() - whole.tensor.storage_offset()) // stride if stride else 0
                return call(aten.slice_scatter.default, (base, new, dim, start, start + child.shape[dim]), {}, value)
        if name in ("view_as_real", "view_as_complex"):
            back = aten.view_as_complex.default if name == "view_as_real" else aten.view_as_real.default
            return call(back, (new,), {}, value)
        order = permutation(whole.tensor, child)
        if order is not None:
            inverse = [order.index(i) for i in range(len(order))]
            return call(aten.permute.default, (new, inverse), {}, value)
        if child.numel() == value.numel():
            return call(aten.reshape.default, (new, list(value.shape)), {}, value)
        place = (list(child.shape), list(child.stride()), child.storage_offset())
        return call(aten.as_strided_scatter.default, (base, new, *place), {}, value)


_PLAIN_ARGUMENTS = (int, float, bool, str, complex, torch.dtype, torch.layout, torch.memory_format)


def storage_of(tensor: torch.Tensor) -> int:
    """A number of its own per storage; 0 where there is none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse, or a wrapper subclass
        return 0


def meta_like(tensor: torch.Tensor) -> torch.Tensor:
    """A meta tensor of the same shape, strides and type."""
    if tensor.layout is torch.strided and type(tensor) in PLAIN:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device="meta")


def permutation(whole: torch.Tensor, part: torch.Tensor) -> list[int] | None:
    """The order in which `part` holds the axes of `whole`, if it is a permutation other than none."""
    if whole.dim() != part.dim() or whole.storage_offset() != part.storage_offset():
        return None
    axes = list(zip(whole.shape, whole.stride(), strict=True))
    order: list[int] = []
    for axis in zip(part.shape, part.stride(), strict=True):
        at = next((i for i, other in enumerate(axes) if i not in order and other == axis), None)
        if at is None:
            return None
        order.append(at)
    return None if order == sorted(order) else order


def _look(root: torch.Tensor, tensor: torch.Tensor) -> tuple[Any, tuple[Any, ...]]:
    """The op that shows `tensor` to one who has its storage's root, from geometry alone."""
    if root.dtype != tensor.dtype:
        return aten.view.dtype, (tensor.dtype,)
    same_start = root.storage_offset() == tensor.storage_offset()
    if same_start and root.shape == tensor.shape and root.stride() == tensor.stride():
        return None, ()
    order = permutation(root, tensor)
    if order is not None:
        return aten.permute.default, (order,)
    if same_start and root.numel() == tensor.numel() and root.is_contiguous() and tensor.is_contiguous():
        return aten.reshape.default, (list(tensor.shape),)
    return aten.as_strided.default, (list(tensor.shape), list(tensor.stride()), tensor.storage_offset())


def _cut_dim(whole: torch.Tensor, part: torch.Tensor) -> int | None:
    """The axis along which `part` is a run of `whole`."""
    if whole.dim() != part.dim() or whole.stride() != part.stride():
        return None
    cut = [d for d in range(whole.dim()) if whole.shape[d] != part.shape[d]]
    return cut[0] if len(cut) == 1 else (0 if not cut and whole.dim() else None)
