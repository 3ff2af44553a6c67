"""A TARGET string to a `Target`: the model, built on meta, and the inputs its forward takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mupc.errors import TargetError
from mupc.inputs import Inputs, find_inputs
from mupc.structure import unwrapped
from mupc.target.call import Size
from mupc.target.settings import parse_settings


@dataclass(frozen=True, slots=True)
class Built:
    """What a target's factory made, and how to make it again with other settings.

    `remake` gives the optimizer too, where the factory returns one.
    """

    model: nn.Module
    make: Callable[[Mapping[str, Any]], nn.Module]
    optimizer: object | None = None
    example_inputs: Callable[[], Any] | None = None
    where: str = ""  # the file or type that the model came from, as errors name it
    own: str = ""  # the folder that holds the user's code, when it is an installed package
    sizes: Mapping[str, int] = field(default_factory=dict)  # the factory's arguments that are whole numbers
    pair: Callable[[Mapping[str, Any]], tuple[nn.Module, object | None]] | None = None
    fields: Mapping[str, Size] = field(default_factory=dict)  # every setting that is a whole number or a list of them

    def remake(self, changes: Mapping[str, Any]) -> tuple[nn.Module, object | None]:
        """The model and its optimizer again, with these settings changed."""
        return self.pair(changes) if self.pair else (self.make(changes), None)


@dataclass(frozen=True, slots=True)
class Target:
    """A model and what to call it with.

    `make(settings)` builds it again, at another size; `sizes` names the whole numbers that its factory was called with.
    """

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    how: str
    optimizer: object | None
    make: Callable[[Mapping[str, Any]], nn.Module]
    sizes: Mapping[str, int]
    built: Built

    @property
    def inputs(self) -> Inputs:
        """What the model is called with, and where it came from."""
        return Inputs(self.args, self.kwargs, self.how)


def load_target(name: str, settings: Sequence[str] = (), inputs: Sequence[str] = ()) -> Target:
    """Import, build and find inputs. Runs the user's code: see `mupc.child`.

    Raises `TargetError` with one line for whatever goes wrong, the user's own exceptions included.
    """
    built = build_target(name, settings)
    model = unwrapped(built.model)
    found: Inputs = find_inputs(model, inputs, built.example_inputs, built.own)
    return Target(name, model, found.args, found.kwargs, found.how, built.optimizer, built.make, built.sizes, built)


def build_target(name: str, settings: Sequence[str] = ()) -> Built:
    """The model alone. TARGET's prefix says who builds it: `hf:`, `timm:`, else a file or module."""
    chosen = parse_settings(settings)
    if not name.strip():
        raise TargetError("no target: give model.py, model.py:factory, pkg.mod:factory, hf:TYPE or timm:NAME")
    kind, colon, rest = name.partition(":")
    builder = {"hf": "mupc.target.hf", "timm": "mupc.target.timm"}.get(kind if colon else "", "mupc.target.python")
    module = importlib.import_module(builder)
    built: Built = module.build_target(name if builder.endswith("python") else rest, chosen)
    return built
