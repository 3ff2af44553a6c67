"""timm models for the oracles, from cases_timm.txt: small arguments to the library's own functions and classes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from mupc.target.torchvision_ops import import_timm
from tests.oracle.cases_hf import image
from tests.oracle.rows import Row, read
from tests.oracle.two_widths import Case

timm = import_timm()
SIZES = {"image": 32, "photo": 64}


def repvgg(widths: list[int]) -> nn.Module:
    """RepVGG-A in four stages; its blocks are told apart by a config object."""
    from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg

    blocks = tuple(ByoBlockCfg(type="rep", d=1, c=c, s=2) for c in widths)
    return ByobNet(ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=widths[0]), num_classes=7)


def resolved(value: Any) -> Any:
    """`timm:metaformer.SepConv` is that class of timm.models."""
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if isinstance(value, str) and value.startswith("timm:"):
        module, _, name = value[5:].partition(".")
        return getattr(import_module(f"timm.models.{module}"), name)
    return value


def build(kind: str, given: dict[str, Any]) -> nn.Module:
    given = {key: resolved(value) for key, value in given.items()}
    if kind == "repvgg":
        return repvgg(**given)
    module, _, name = kind.rpartition(".")
    if module:
        return getattr(import_module(f"timm.models.{module}"), name)(**given)
    return timm.create_model(kind, **given)


def case(row: Row) -> Case:
    return Case(
        row.name,
        lambda: row.config(1),
        lambda: row.config(2),
        lambda given: build(row.head, given),
        lambda _: (image(SIZES[row.inputs])["pixel_values"],),
        row.hard,
    )


CASES = {row.name: case(row) for row in read(Path(__file__).with_name("cases_timm.txt"))}
