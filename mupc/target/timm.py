"""`timm:NAME`: any architecture timm can create, with keyword arguments for `timm.create_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mupc.blame import describe
from mupc.errors import TargetError
from mupc.target.build import build
from mupc.target.load import Built
from mupc.target.settings import near_names, nested
from mupc.target.torchvision_ops import import_timm


def build_target(name: str, settings: Mapping[str, Any]) -> Built:
    """Create `name` without weights, on meta."""
    try:
        timm = import_timm()
    except ImportError as error:
        raise TargetError(f"timm:{name} needs timm (pip install 'mupc[timm]'): {error}") from error
    if not timm.is_model(name):
        raise TargetError(f"timm has no model {name!r}{near_names(name, timm.list_models())}")

    def make(changes: Mapping[str, Any]) -> nn.Module:
        model: nn.Module = build(lambda: timm.create_model(name, pretrained=False, **nested({**settings, **changes})))
        return model

    try:
        return Built(make({}), make, where=f"timm:{name}")
    except Exception as error:
        raise TargetError(f"timm:{name}: {describe(error)}") from error
