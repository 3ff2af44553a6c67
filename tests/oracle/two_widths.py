"""Two widths: build a model at two widths on meta; an axis grows exactly where the two shapes differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Shapes = dict[str, tuple[int, ...]]
STATE = {True: "grows", False: "is fixed"}


@dataclass(frozen=True)
class Case:
    """A model that can be built at any size: from a config (a nested dict or object of ints) or from keyword arguments.

    `base` and `wide` make configs; `wide` doubles the fields that mean width and leaves those that the policy of
    DESIGN.md section 4 holds fixed: head_dim, experts, ranks, states, counts.
    """

    name: str
    base: Callable[[], Any]
    wide: Callable[[], Any]
    build: Callable[[Any], nn.Module]
    inputs: Callable[[Any], dict[str, Any] | tuple[Any, ...]]
    hard: frozenset[int] = frozenset()  # widths that the library writes into its code: nothing can double them

    def meta(self, config: Any) -> nn.Module:
        """The model on the meta device."""
        with torch.device("meta"):
            return self.build(config).eval()

    def call(self, config: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The forward's arguments at that config."""
        given = self.inputs(config)
        return (given, {}) if isinstance(given, tuple) else ((), given)


def shapes(model: nn.Module) -> Shapes:
    """Every parameter's shape, tied names included."""
    return {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}


def growth(base: Shapes, wide: Shapes, hard: frozenset[int] = frozenset()) -> dict[str, tuple[bool, ...]]:
    """Which axes differ between the two, or are a width that nothing can double."""
    assert base.keys() == wide.keys(), sorted(base.keys() ^ wide.keys())
    return {name: tuple(a != b or a in hard for a, b in zip(base[name], wide[name], strict=True)) for name in base}


def wrong(parameters: Mapping[str, Any], expected: Mapping[str, tuple[bool, ...]], base: Shapes) -> list[str]:
    """Axes on which the analysis is sure and mistaken. Unused parameters have nothing to be judged by."""
    lines = [f"{name}: missing from the analysis" for name in expected.keys() - parameters.keys()]
    for name in sorted(expected.keys() & parameters.keys()):
        found = parameters[name]
        if found.role == "unused":
            continue
        for axis, (said, grows) in enumerate(zip(found.infinite, expected[name], strict=True)):
            if said is not None and said != grows:
                where = f"{name} {base[name]} axis {axis} {found.axes[axis]}"
                lines.append(f"{where}: {STATE[grows]}, but the analysis says it {STATE[said]}")
    return lines


def unknown(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters the analysis could not judge."""
    return sorted(name for name, p in parameters.items() if p.role == "unknown" or None in p.infinite)
