"""In-place and `out=` ops as the functional ops that compute the same values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

# ops that change an argument's geometry, not its contents
RESHAPING = {
    f"aten::{name}"
    for name in (
        "squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "as_strided_", "resize_", "resize_as_",
        "set_", "detach_", "rename_",
    )
}  # fmt: skip
RENAMED = {
    "aten::normal_": "normal_functional",
    "aten::_index_put_impl_": "_index_put_impl",
    "aten::detach_": "detach",
    "aten::resize_as_": "resize_as",
}
# what an op leaves where it overwrites everything: nothing of what was there before
OVERWRITING = {"aten::zero_": torch.ops.aten.zeros_like.default, "aten::fill_.Scalar": torch.ops.aten.full_like.default}


@dataclass(frozen=True, slots=True)
class Functional:
    """The op to record, the arguments it leaves out, and those whose new values it returns, in order."""

    target: Any
    dropped: tuple[str, ...]
    written: tuple[str, ...]


@cache
def functional(func: Any) -> Functional:
    """The functional twin of a mutable op; the op itself where there is none."""
    schema = func._schema
    if func.name() in OVERWRITING:
        return Functional(OVERWRITING[func.name()], (), ("self",))
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    outs = tuple(a.name for a in schema.arguments if a.is_out)
    kept = [(a.name, str(a.type)) for a in schema.arguments if not a.is_out]
    namespace, _, name = schema.name.partition("::")
    if outs:
        packet = getattr(getattr(torch.ops, namespace), name, None)
    else:
        bare = RENAMED.get(schema.name, name[:-1] if name.endswith("_") else name)
        packet = getattr(getattr(torch.ops, namespace), bare, None)
    if packet is not None and (outs or name.endswith("_")):
        overloads = [getattr(packet, o) for o in packet.overloads()]
        for other in sorted(overloads, key=lambda o: o._overloadname != func._overloadname):
            if not other._schema.is_mutable and [(a.name, str(a.type)) for a in other._schema.arguments] == kept:
                return Functional(other, outs, written)
    return Functional(func, (), written)


def arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every given argument by its name in the schema."""
    named = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)}
    return named | kwargs
