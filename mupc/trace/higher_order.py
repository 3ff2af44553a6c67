"""Ops that take functions: both branches of a cond, one step of a loop, attention for flex attention."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree

from mupc.trace.recorder import Recorder

_known: set[str] = set()


@contextmanager
def taught() -> Iterator[None]:
    """The recorder knows the higher-order ops that have been imported."""
    for name, rule in RULES.items():
        module, _, op = name.rpartition(".")
        if name not in _known and hasattr(sys.modules.get(module), op):
            _known.add(name)
            getattr(sys.modules[module], op).py_impl(Recorder)(rule)
    flex = sys.modules.get("torch.nn.attention.flex_attention")
    if flex is None or not hasattr(flex, "_validate_device"):
        yield
        return
    check = flex._validate_device
    flex._validate_device = lambda *_: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        flex._validate_device = check  # type: ignore[attr-defined]


def _under(recorder: Recorder, function: Any, *args: Any) -> Any:
    with recorder:
        return function(*args)


def _cond(recorder: Recorder, pred: Any, true: Any, false: Any, operands: Any = ()) -> Any:
    """Both branches are traced; where both give tensors of one shape, the results are joined."""

    def both() -> Any:
        yes, tree = _pytree.tree_flatten(true(*operands))
        no, _ = _pytree.tree_flatten(false(*operands))
        chosen = pred if isinstance(pred, torch.Tensor) else None
        joined = [
            torch.where(chosen, a, b) if chosen is not None and isinstance(a, torch.Tensor) else a
            for a, b in zip(yes, no, strict=True)
        ]
        return _pytree.tree_unflatten(joined, tree)

    return _under(recorder, both)


def _while(recorder: Recorder, cond: Any, body: Any, carried: Any, extra: Any = ()) -> Any:
    """The condition and one step."""

    def once() -> Any:
        cond(*carried, *extra)
        return body(*carried, *extra)

    return _under(recorder, once)


def _flex(recorder: Recorder, query: Any, key: Any, value: Any, *_rest: Any, **_named: Any) -> Any:
    """Scores and masks of flex attention keep shapes: it is attention."""

    def attention() -> Any:
        grouped = query.shape[-3] != key.shape[-3]
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=grouped)
        sums = query.new_zeros(query.shape[:-1])
        return out, sums, sums

    return _under(recorder, attention)


RULES: dict[str, Any] = {
    "torch._higher_order_ops.cond.cond_op": _cond,
    "torch._higher_order_ops.while_loop.while_loop_op": _while,
    "torch._higher_order_ops.flex_attention.flex_attention": _flex,
}
