"""What flow knows of one tensor of the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mupc.flow.powers import HALF, Power

EMPTY: frozenset[str] = frozenset()
Part = tuple[frozenset[str], Fraction]  # generators and size of one term of a sum
MOST = 8  # terms of a sum that are told apart


@dataclass(frozen=True, slots=True)
class Value:
    """Exponents of a typical entry along the ray; None where there is nothing.

    `init`: its size at initialization. `delta1`: its change, to first order in the rate; of it `effective`, by updates
    of weights right before (dW x), and `propagating`, by changes that come in (W dx), a bound by the weight's operator
    norm. `delta`: the change to all orders. At finite width a sum's slope lies between those of its terms: `spread` is
    how far the smallest term of `delta1` lies below it, `loose` the same for `propagating`, a change that knows nothing
    of the weight it meets included; `mixed` the same for `init`, where a function keeps a constant beside what
    vanishes. `generators`: the random parameters whose flip of a channel's sign flips the value; none: it is coherent.
    `parts`: a sum's terms at init, each with its own generators. Nothing is said of a value that is not `known`: an
    init, an op or a number before it is not.
    """

    init: Power = None
    delta1: Power = None
    delta: Power = None
    effective: Power = None
    propagating: Power = None
    generators: frozenset[str] = EMPTY
    loose: Fraction = Fraction(0)
    spread: Fraction = Fraction(0)
    mixed: Fraction = Fraction(0)
    parts: tuple[Part, ...] = ()
    known: bool = True

    def each(self) -> tuple[Part, ...]:
        """The terms that it is known to be a sum of at init; one where nothing more is known."""
        return self.parts or (() if self.init is None else ((self.generators, self.init),))


def parted(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The largest of each sign, the larger first; a single one needs no telling apart."""
    largest: dict[frozenset[str], Fraction] = {}
    for generators, size in parts:
        largest[generators] = max(size, largest.get(generators, size))
    if len(largest) < 2:
        return ()
    return tuple(sorted(largest.items(), key=lambda part: -part[1])[:MOST])


def moved(parts: Iterable[Part], by: Fraction) -> tuple[Part, ...]:
    """All of them times a number that grows so."""
    return tuple((generators, size + by) for generators, size in parts)


def product(factors: Sequence[Value], over: Fraction, mean: Fraction) -> tuple[
    Power, frozenset[str], Fraction, tuple[Part, ...]
]:  # fmt: skip
    """Size, generators, what is mixed into it, and terms of a product that is summed over so much.

    Every term of one factor meets every term of the others: a tied embedding meets itself in the stream that began
    with it. What is coherent by that is so for a fixed share of the entries (a token's own logit): `mixed`.
    """
    found: list[tuple[Fraction, frozenset[str], Fraction]] = []
    for chosen in itertools.product(*(factor.each() for factor in factors)):
        signs, met = frozenset[str](), frozenset[str]()
        for generators, _ in chosen:
            met |= signs & generators
            signs ^= generators
        size = sum((size for _, size in chosen), (over * HALF if signs else over) - mean)
        found.append((size, signs, over * HALF if met and not signs else Fraction(0)))
    if not found:
        return None, EMPTY, Fraction(0), ()
    whole = frozenset.intersection(*(signs for _, signs, _ in found))
    size, _, mixed = max(found, key=lambda one: one[0])
    several = any(factor.parts for factor in factors)
    parts = parted((signs, size) for size, signs, _ in found) if several else ()
    return size, whole, mixed, parts
