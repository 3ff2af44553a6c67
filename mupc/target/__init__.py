"""TARGET string -> Target: a model on the meta device and the inputs its forward takes."""

from mupc.target.load import Built, Target, build_target, load_target
from mupc.target.torchvision_ops import import_timm, import_torchvision, import_transformers

__all__ = ["Built", "Target", "build_target", "import_timm", "import_torchvision", "import_transformers", "load_target"]
