"""What keeps a forward under the recorder: nothing bypasses it, nothing needs a device, nothing random differs."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from mupc.devices import any_device
from mupc.trace.higher_order import taught


@contextmanager
def quiet() -> Iterator[None]:
    """All of it, undone on leaving."""
    with ExitStack() as stack:
        stack.enter_context(_same_numbers())
        stack.enter_context(_values_through_ops())
        stack.enter_context(any_device())
        stack.enter_context(taught())
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def _same_numbers() -> Iterator[None]:
    """Random numbers are those of one seed, and the caller's generators are left where they were."""
    numpy = sys.modules.get("numpy.random")
    before = random.getstate(), torch.default_generator.get_state(), numpy and numpy.get_state()
    random.seed(0)
    torch.default_generator.manual_seed(0)
    if numpy:
        numpy.seed(0)
    try:
        yield
    finally:
        random.setstate(before[0])
        torch.default_generator.set_state(before[1])
        if numpy:
            numpy.set_state(before[2])


@contextmanager
def _values_through_ops() -> Iterator[None]:
    """`tolist`, formatting and the fused attention fast path would bypass the recorder."""
    fast, listed, written = (
        torch.backends.mha.get_fastpath_enabled(),
        torch.Tensor.tolist,
        torch.Tensor.__format__,
    )

    def tolist(self: torch.Tensor) -> Any:
        if not self.is_meta:
            return listed(self)
        return [tolist(row) for row in self] if self.dim() else self.item()

    def format_(self: torch.Tensor, spec: str) -> str:
        return str(written(self, spec)) if self.dim() or not self.is_meta else format(self.item(), spec)  # type: ignore[no-untyped-call]

    torch.backends.mha.set_fastpath_enabled(False)
    torch.Tensor.tolist = tolist  # type: ignore[assignment,method-assign]
    torch.Tensor.__format__ = format_  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.Tensor.tolist = listed  # type: ignore[method-assign]
        torch.Tensor.__format__ = written  # type: ignore[method-assign]
