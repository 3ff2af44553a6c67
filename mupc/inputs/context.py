"""What a model says of itself: its config, sizes, and first layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from mupc.inputs.docstring import BATCH, documented
from mupc.inputs.guess import Guess
from mupc.inputs.signature import Parameters, forward_parameters

__all__ = ["BATCH", "Context"]
_LENGTHS = (13, 11, 17, 19, 23, 29, 31, 37)
_MOST_CONFIGS = 32


@dataclass(frozen=True)
class Context:
    """Read once per model. `field("a", "b")` looks through the config and its sub-configs."""

    model: nn.Module

    @cached_property
    def parameters(self) -> Parameters:
        return forward_parameters(self.model)

    @cached_property
    def documented(self) -> dict[str, list[Guess]]:
        return documented(self)

    @cached_property
    def configs(self) -> tuple[tuple[str, Any], ...]:
        """The model's config, then its sub-configs by name, breadth first; timm's `default_cfg` counts as one."""
        found: list[tuple[str, Any]] = []
        for name in ("config", "cfg", "pretrained_cfg", "default_cfg", "args", "hparams"):
            value = getattr(self.model, name, None)
            if value is not None and not isinstance(value, (str, int, nn.Module)):
                found.append((name, value))
        for _, config in found:
            found += [(key, value) for key, value in _items(config) if key.endswith("config") and _items(value)]
            if len(found) > _MOST_CONFIGS:
                break
        return tuple(found)

    def field(self, *names: str, under: str = "") -> Any:
        """The first of these config fields that holds something; `under="vision"` asks that sub-config first."""
        order = sorted(self.configs, key=lambda named: not under or under not in named[0])
        for _, config in order:
            for name in names:
                value = config.get(name) if isinstance(config, dict) else getattr(config, name, None)
                if value is not None and not isinstance(value, bool) and not callable(value):
                    return value
        return None

    def number(self, *names: str, under: str = "", default: int = 0) -> int:
        value = self.field(*names, under=under)
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
            value = value[0]
        return value if isinstance(value, int) and value > 0 else default

    @cached_property
    def sizes(self) -> frozenset[int]:
        return frozenset(size for p in self.model.parameters() for size in p.shape)

    @cached_property
    def length(self) -> int:
        """A sequence length that no axis of a parameter has, and that the positions can hold."""
        limit = (
            self.number(
                "max_position_embeddings", "block_size", "n_positions", "context_length", "max_seq_len", under="text"
            )
            or 1 << 30
        )
        fit = [n for n in _LENGTHS if n <= limit]
        return next((n for n in fit if n not in self.sizes), fit[0] if fit else limit)

    @cached_property
    def other_length(self) -> int:
        return next((n for n in (7, 5, *_LENGTHS) if n not in self.sizes and n != self.length), 7)

    @cached_property
    def leaves(self) -> tuple[nn.Module, ...]:
        """Modules without children, in order of registration."""
        return tuple(m for m in self.model.modules() if next(m.children(), None) is None)

    @cached_property
    def vocabulary(self) -> int:
        """The first embedding's rows, else the config's."""
        found = self.number("vocab_size", "n_vocab", "n_tokens", "num_embeddings", "vocabulary_size", under="text")
        first = next((m.num_embeddings for m in self.leaves if isinstance(m, nn.Embedding)), 0)
        return found or first or 2

    @cached_property
    def image(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        size = self.field("input_size", under="vision")
        if isinstance(size, (tuple, list)) and len(size) == 3:
            channels = getattr(self.model, "in_chans", None)
            return channels if isinstance(channels, int) else size[0], size[1], size[2]
        conv = next((m for m in self.leaves if isinstance(m, nn.Conv2d)), None)
        channels = self.number("num_channels", "in_channels", "in_chans", "num_input_channels", under="vision") or (
            conv.in_channels if conv else 3
        )
        height, width = _pair(self.field("image_size", "img_size", "resolution", "size", under="vision"))
        if not height:
            height, width = _pair(_attribute(self.model, "img_size", "image_size", "input_resolution", "resolution"))
        return channels, height or 64, width or height or 64


def _attribute(model: nn.Module, *names: str) -> Any:
    for module in model.modules():
        for name in names:
            if (value := getattr(module, name, None)) is not None and not callable(value):
                return value
    return None


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int) and not isinstance(size, bool):
        return size, size
    if isinstance(size, dict):
        side = size.get("shortest_edge") or 0
        return int(size.get("height") or side), int(size.get("width") or side)
    if isinstance(size, (list, tuple)) and len(size) >= 2 and all(isinstance(s, int) for s in size[-2:]):
        return size[-2], size[-1]
    return 0, 0


def _items(config: Any) -> list[tuple[str, Any]]:
    if isinstance(config, dict):
        return [(str(k), v) for k, v in config.items()]
    return (
        list(vars(config).items()) if hasattr(config, "__dict__") and not isinstance(config, (type, nn.Module)) else []
    )
