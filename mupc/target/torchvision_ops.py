"""Let torchvision be imported when its compiled ops are not to be had.

Beside a CPU-only torch, PyPI's torchvision cannot load its shared library (it wants CUDA's), and then
raises while it describes ops that were never defined. Tracing runs none of these ops, so a declared name is enough.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")

_declared: list[object] = []  # a torch Library forgets its ops when it is collected


def with_torchvision_ops(importing: Callable[[], T]) -> T:
    """Run `importing`; for each torchvision op found missing, declare it and run again from a clean slate."""
    while True:
        try:
            return importing()
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            _declare(missing[1])
            for name in list(sys.modules):
                if name.partition(".")[0] == "torchvision":
                    del sys.modules[name]


def import_torchvision() -> None:
    """Import torchvision where it is installed. Call it before timm and transformers, which import it in passing."""
    if importlib.util.find_spec("torchvision") is not None:
        with_torchvision_ops(lambda: importlib.import_module("torchvision"))


def import_timm() -> ModuleType:
    """`import timm`, also where torchvision's compiled ops cannot be loaded."""
    import_torchvision()
    return importlib.import_module("timm")


def import_transformers() -> ModuleType:
    """`import transformers`, also where torchvision's compiled ops cannot be loaded."""
    import_torchvision()
    return importlib.import_module("transformers")


def _declare(op: str) -> None:
    from torch.library import Library

    library: Any = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define(f"{op}(Tensor input) -> Tensor")
    _declared.append(library)
