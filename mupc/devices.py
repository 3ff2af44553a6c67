"""Hard-coded devices need not exist where a forward only runs on meta."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def any_device() -> Iterator[None]:
    """While inside, naming `cuda` wakes no driver, and autocast on meta is autocast on the CPU."""
    wakes = [(m, m._lazy_init) for m in (torch.cuda, torch.xpu, torch.mps) if hasattr(m, "_lazy_init")]
    real = torch.amp.autocast_mode.autocast.__init__

    def start(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        real(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    for module, _ in wakes:
        module._lazy_init = lambda: None  # type: ignore[attr-defined]
    torch.amp.autocast_mode.autocast.__init__ = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module, wake in wakes:
            module._lazy_init = wake  # type: ignore[attr-defined]
        torch.amp.autocast_mode.autocast.__init__ = real  # type: ignore[method-assign]
