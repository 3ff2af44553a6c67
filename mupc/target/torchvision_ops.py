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

# Their true schemas (torchvision/csrc/ops), and the shapes of their results.
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "ps_roi_align": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool": "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "deform_conv2d": "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
}
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
        if _declared:
            _stand_in()


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
    library.define(op + _SCHEMAS.get(op, "(Tensor input) -> Tensor"))
    _declared.append(library)


def _stand_in() -> None:
    """All the ops that layers call, with their shapes; then torchvision may think that it has them."""
    from torch.library import Library

    known = {str(schema.name) for schema in _schemas()}
    library: Any = Library("torchvision", "IMPL", "Meta")  # type: ignore[no-untyped-call]
    for op in _SCHEMAS:
        if f"torchvision::{op}" not in known:
            _declare(op)
    for op, shape in (("roi_align", _pooled), ("roi_pool", _both), ("ps_roi_align", _cut), ("ps_roi_pool", _cut)):
        library.impl(op, shape)
    library.impl("deform_conv2d", _convolved)
    _declared.append(library)
    extension: Any = importlib.import_module("torchvision.extension")
    extension._has_ops = lambda: True


def _schemas() -> list[Any]:
    import torch

    return [s for s in torch._C._jit_get_all_schemas() if str(s.name).startswith("torchvision::")]


def _pooled(x: Any, rois: Any, _scale: float, height: int, width: int, *_rest: Any) -> Any:
    return x.new_empty(rois.shape[0], x.shape[1], height, width)


def _both(x: Any, rois: Any, scale: float, height: int, width: int, *rest: Any) -> Any:
    return _pooled(x, rois, scale, height, width), x.new_empty(rois.shape[0], x.shape[1], height, width)


def _cut(x: Any, rois: Any, _scale: float, height: int, width: int, *_rest: Any) -> Any:
    shape = (rois.shape[0], x.shape[1] // (height * width), height, width)
    return x.new_empty(shape), x.new_empty(shape)


def _convolved(x: Any, weight: Any, offset: Any, _mask: Any, _bias: Any, *_rest: Any) -> Any:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])
