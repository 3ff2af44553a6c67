"""TARGET string -> Target: a model on the meta device and the inputs its forward takes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mupc.target.load import Built, Target, build_target, load_target
    from mupc.target.torchvision_ops import import_timm, import_torchvision, import_transformers

__all__ = [
    "Built",
    "Target",
    "build_target",
    "import_timm",
    "import_torchvision",
    "import_transformers",
    "load_target",
]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: `mupc.target.settings` needs no torch, and nor does who imports it."""
    if name not in __all__:
        raise AttributeError(f"module 'mupc.target' has no attribute {name!r}")
    home = "torchvision_ops" if name.startswith("import_") else "load"
    return getattr(importlib.import_module(f"mupc.target.{home}"), name)
