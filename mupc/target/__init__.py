"""TARGET string -> Target: a model on the meta device and the inputs its forward takes."""

from mupc.target.torchvision_ops import import_timm

__all__ = ["import_timm"]
