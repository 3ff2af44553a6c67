"""A target built with its values, its optimizer and its analysis: what audit, flow and check hold side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mupc.analysis import Analysis, analyze
from mupc.blame import blame, describe
from mupc.errors import MupcError, TargetError
from mupc.groups import optimizers
from mupc.inputs import Inputs
from mupc.structure import unwrapped
from mupc.target.build import real
from mupc.target.load import Built

DRAWS = 256  # at most
DRAWN = 40_000_000  # elements of all draws together
MODULES = 20_000  # built for all draws together
SMALL = 4096  # entries of a tensor of which one draw does not tell enough


@dataclass(frozen=True, slots=True)
class Instance:
    """A model with its values, its optimizer or optimizers if there are any, and its analysis."""

    model: nn.Module
    optimizer: object | None
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class Maker:
    """Builds a target with values at any settings. `inputs` gives a model what its forward takes."""

    built: Built
    inputs: Callable[[nn.Module], Inputs]
    target: str
    fixed: Sequence[str] = ()
    scaling: Sequence[str] = ()
    configure: Callable[[nn.Module], Any] | None = None  # makes the optimizer, where the target does not

    def model(self, changes: Mapping[str, Any], seed: int = 0) -> tuple[nn.Module, object | None]:
        """The model and its optimizer alone. Raises `MupcError` for whatever the user's code raises."""
        torch.manual_seed(seed)
        try:
            with real():
                model, optimizer = self.built.remake(changes)
        except MupcError:
            raise
        except Exception as error:
            said = " ".join(f"{name}={value}" for name, value in changes.items())
            raise TargetError(f"{self.target} {said}: {describe(error)}") from error
        model = unwrapped(model)
        if self.configure is not None:
            try:
                optimizer = self.configure(model)
            except (Exception, SystemExit) as error:
                raise TargetError(blame(error)) from error
            if not optimizers(optimizer):
                name = getattr(self.configure, "__name__", "the configuration")
                said = f"--optimizer-config: {name} returned a {type(optimizer).__name__}, which steps nothing"
                raise TargetError(f"{said}: return an optimizer, or several")
        return model, optimizer

    def instance(self, changes: Mapping[str, Any], seed: int = 0) -> Instance:
        """And its analysis."""
        model, optimizer = self.model(changes, seed)
        given = self.inputs(model)
        sizes = {**self.built.sizes, **{name: size for name, size in changes.items() if isinstance(size, int)}}
        analysis = analyze(
            model, given.args, given.kwargs, fixed=self.fixed, scaling=self.scaling, sizes=sizes, target=self.target
        )
        return Instance(model, optimizer, analysis)


@dataclass(slots=True)
class Draws:
    """The same two models with other seeds, as many as it takes to tell what their smallest tensors do."""

    maker: Maker
    settings: tuple[Mapping[str, Any], Mapping[str, Any]]
    most: int
    small: list[dict[str, Tensor]] = field(default_factory=list)
    large: list[dict[str, Tensor]] = field(default_factory=list)

    @classmethod
    def of(
        cls, maker: Maker, small: Instance, large: Instance, settings: tuple[Mapping[str, Any], Mapping[str, Any]]
    ) -> Draws:
        """The first draw is theirs."""
        entries = sum(tensor.numel() for one in (small, large) for tensor in one.model.parameters())
        modules = sum(1 for one in (small, large) for _ in one.model.modules())
        most = max(1, min(DRAWS, DRAWN // max(1, entries), MODULES // modules))
        first: list[dict[str, Tensor]] = [dict(one.model.named_parameters()) for one in (small, large)]
        return cls(maker, settings, most, [first[0]], [first[1]])

    def more(self) -> bool:
        """Twice as many of each, small tensors only; False where that is too much work, or the model is not alike."""
        if 2 * len(self.small) > self.most:
            return False
        for seed in range(len(self.small), 2 * len(self.small)):
            for drawn, changes in zip((self.small, self.large), self.settings, strict=True):
                tensors = self.maker.model(changes, seed)[0].named_parameters()
                drawn.append({name: tensor for name, tensor in tensors if tensor.numel() <= SMALL})
        return True

    def of_pair(self, then: str, now: str) -> tuple[list[Tensor], list[Tensor]]:
        """All draws of a tensor of the small model and of one of the large."""
        return [one[then] for one in self.small if then in one], [one[now] for one in self.large if now in one]
