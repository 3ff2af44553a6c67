"""Exponents of sizes along a ray: exact, with None for what is nothing at all (zero init, no change)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

Power = Fraction | None
NONE = Fraction(0)
HALF = Fraction(1, 2)


def times(*powers: Power) -> Power:
    """The exponent of a product: nothing times anything is nothing."""
    if None in powers:
        return None
    return total(powers)  # type: ignore[arg-type]


def total(powers: Iterable[Fraction]) -> Fraction:
    """Their sum; most are zero, and an exact sum is slow."""
    found = [power for power in powers if power]
    return found[0] if len(found) == 1 else sum(found, NONE)


def most(powers: Iterable[Power]) -> Power:
    """The exponent of a sum: the largest one leads."""
    return max((power for power in powers if power is not None), default=None)


def least_of(powers: Iterable[Power]) -> Power:
    """The smallest exponent of a sum's terms."""
    return min((power for power in powers if power is not None), default=None)


def least(power: Power, bound: Fraction) -> Power:
    """At most the bound; nothing stays nothing."""
    return None if power is None else min(power, bound)
