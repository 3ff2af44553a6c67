"""Read a PyTorch model once and know how each of its parameters must scale."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mupc.errors import MupcError

if TYPE_CHECKING:
    from mupc import initializers
    from mupc.analysis import Analysis, analyze
    from mupc.monitor import Monitor
    from mupc.plan import Plan
    from mupc.plan import make_plan as plan

__version__ = "0.1.0"
__all__ = ["Analysis", "Monitor", "MupcError", "Plan", "__version__", "analyze", "initializers", "plan"]

# Imported when first asked for: torch takes a second, and the command line never needs it in its own process.
_HOMES: dict[str, tuple[str, str | None]] = {
    "Analysis": ("mupc.analysis", "Analysis"),
    "analyze": ("mupc.analysis", "analyze"),
    "Monitor": ("mupc.monitor", "Monitor"),
    "initializers": ("mupc.initializers", None),
    "Plan": ("mupc.plan", "Plan"),
    "plan": ("mupc.plan", "make_plan"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mupc' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
