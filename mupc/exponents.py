"""Exact exponents: monomials over named dims, and what the abc-symmetry does to a setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from mupc.errors import MupcError

_FACTOR = re.compile(r"^(?P<dim>[A-Za-z_][\w.+]*)(?:\^(?P<power>-?\d+(?:/\d+)?))?$")


@dataclass(frozen=True, slots=True)
class Monomial:
    """A product of dims to exact powers, `n_embd^-1 * depth^-1/2`. Factors are kept sorted, powers of zero left out."""

    factors: tuple[tuple[str, Fraction], ...] = ()

    ONE: ClassVar[Monomial]

    @classmethod
    def of(cls, powers: Mapping[str, Fraction | int | str] | Iterable[tuple[str, Fraction]]) -> Monomial:
        """From dim -> power; equal dims add up."""
        pairs = powers.items() if isinstance(powers, Mapping) else powers
        total: dict[str, Fraction] = {}
        for dim, power in pairs:
            total[dim] = total.get(dim, Fraction(0)) + Fraction(power)
        return cls(tuple(sorted((d, p) for d, p in total.items() if p)))

    @classmethod
    def parse(cls, text: str) -> Monomial:
        """`"fan_in^-1/2 * fan_out"`; `"1"` is the empty product. Raises `MupcError` on anything else."""
        out = []
        for word in text.split("*"):
            found = _FACTOR.match(word.strip())
            if found is None and word.strip() != "1":
                raise MupcError(f"{text!r} is no product of powers: {word.strip()!r} is neither 1 nor dim^power")
            if found is not None:
                out.append((found["dim"], Fraction(found["power"] or 1)))
        return cls.of(out)

    @property
    def dims(self) -> frozenset[str]:
        return frozenset(dim for dim, _ in self.factors)

    def __mul__(self, other: Monomial) -> Monomial:
        return Monomial.of([*self.factors, *other.factors])

    def __truediv__(self, other: Monomial) -> Monomial:
        return self * other**-1

    def __pow__(self, power: Fraction | int) -> Monomial:
        return Monomial.of([(dim, p * power) for dim, p in self.factors])

    def substitute(self, values: Mapping[str, Monomial]) -> Monomial:
        """Every symbol replaced by a monomial; symbols without one stay."""
        out = Monomial.ONE
        for dim, power in self.factors:
            out = out * values.get(dim, Monomial.of({dim: 1})) ** power
        return out

    def evaluate(self, sizes: Mapping[str, float]) -> float:
        """The value where every dim has the given size (or ratio)."""
        value = 1.0
        for dim, power in self.factors:
            value *= float(sizes[dim]) ** float(power)
        return value

    def __str__(self) -> str:
        return " * ".join(dim if p == 1 else f"{dim}^{p}" for dim, p in self.factors) or "1"

    def to_json(self) -> dict[str, str]:
        """`{"n_embd": "-1/2"}`."""
        return {dim: str(power) for dim, power in self.factors}

    @classmethod
    def from_json(cls, powers: Mapping[str, str]) -> Monomial:
        return cls.of({dim: Fraction(power) for dim, power in powers.items()})


Monomial.ONE = Monomial()


@dataclass(frozen=True, slots=True)
class Symmetry:
    """What leaves training unchanged when a multiplier is scaled by t and the init by 1/t (TP5, Lemma J.1).

    `lr`, `eps` and `decay` are the powers of t that the rate, the optimizer's eps and its weight decay take: the
    sign- and Adam-family lr/t and eps t, SGD lr/t^2, Adafactor unchanged. Decoupled decay keeps lr*decay, so it takes
    the opposite power of the rate; coupled L2 takes t^2 always, being added to a gradient that scales with t.
    """

    lr: Fraction
    eps: Fraction
    decay: Fraction

    def moved(self, setting: Setting, t: Monomial) -> Setting:
        """The same training in another gauge."""
        return Setting(
            multiplier=setting.multiplier * t,
            std=setting.std / t,
            lr=setting.lr * t**self.lr,
            eps=setting.eps * t**self.eps,
            decay=setting.decay * t**self.decay,
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """The exponents of one parameter: multiplier (a), init std (b), learning rate (c), eps and weight decay."""

    multiplier: Monomial = Monomial.ONE
    std: Monomial = Monomial.ONE
    lr: Monomial = Monomial.ONE
    eps: Monomial = Monomial.ONE
    decay: Monomial = Monomial.ONE
