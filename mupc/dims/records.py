"""What the fold writes down: tensors as atoms, what each value is made of, and every use of every parameter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch import fx

from mupc.dims.atoms import Atoms, Axis

Trail = frozenset[tuple[str, int]]  # (parameter, axis)
Tensor = tuple[Axis, ...]
NEUTRAL, WEIGHT, DATA = 0, 1, 2
POSITIONAL = ("arange", "linspace", "logspace", "tril_indices", "triu_indices")


@dataclass(frozen=True, slots=True)
class Weight:
    """Parameters alone went into this value; per axis, where it came from."""

    parameters: frozenset[str]
    trails: tuple[Trail, ...]


@dataclass(frozen=True, slots=True)
class RawUse:
    """One use of one parameter: per axis of the parameter, the words and the atoms they are about.

    `contracts`: the op multiplies and sums, or looks up, so that `out` axes are made by this parameter.
    """

    parameter: str
    node: fx.Node
    op: str
    axes: tuple[tuple[tuple[str, Axis], ...], ...]
    contracts: bool


@dataclass(frozen=True, slots=True)
class Held:
    """An activation that is linear in a weight and still has axes of it: its use so far, where each axis is from."""

    use: RawUse
    trails: tuple[Trail, ...]


@dataclass(slots=True)
class Folded:
    """What the fold knows: atoms, axes of every tensor, uses, and facts about axes."""

    atoms: Atoms = field(default_factory=Atoms)
    tensors: dict[fx.Node, tuple[Tensor, ...]] = field(default_factory=dict)
    sources: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)  # of every call, once per tensor
    status: dict[fx.Node, int] = field(default_factory=dict)
    weights: dict[fx.Node, Weight] = field(default_factory=dict)
    uses: list[RawUse] = field(default_factory=list)
    factors: set[tuple[str, int]] = field(default_factory=set)  # axes contracted between parameters alone
    marks: dict[str, list[Axis]] = field(default_factory=lambda: defaultdict(list))
    contracted: list[tuple[Axis, fx.Node]] = field(default_factory=list)  # between activations
    constant: set[fx.Node] = field(default_factory=set)  # neither inputs nor positions went into these
    given: set[fx.Node] = field(default_factory=set)  # inputs, and what is made of them without a parameter
    numbers: set[fx.Node] = field(default_factory=set)  # of these, contractions of weights that leave no axis
    matrices: list[tuple[Axis, Axis]] = field(default_factory=list)  # what is contracted, and what is left free beside
    held: dict[fx.Node, list[Held]] = field(default_factory=dict)
    then: dict[tuple[str, fx.Node], RawUse] = field(default_factory=dict)  # (parameter, use) -> the use it ends in
    assumed: dict[str, int] = field(default_factory=dict)  # ops without a row -> how often
    labels: dict[fx.Node, dict[str, Axis]] = field(default_factory=dict)  # what each call's labels stand for
