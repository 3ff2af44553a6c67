"""Exact exponents: monomials over named dims, laws in symbols, and what the abc-symmetry does to a setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import ClassVar

from mupc.errors import MupcError

Power = Fraction | int
_POWER = r"(?:\^(?P<power>-?\d+(?:/[1-9]\d*)?))?$"
_FACTOR = re.compile(r"^(?P<dim>[^\W\d][\w.]*)" + _POWER)
_CHOICE = re.compile(r"^(?P<which>max|min)\((?P<among>[^()]*)\)" + _POWER)


@dataclass(frozen=True, slots=True)
class Monomial:
    """A product of dims to exact powers, `n_embd^-1 * depth^-1/2`.

    `factors` is the canonical form: sorted by dim, no power zero, powers `Fraction`s; `of` brings pairs into it. Equal
    products are equal and hash alike. Raises `TypeError` for a float: no exponent is ever rounded.
    """

    factors: tuple[tuple[str, Fraction], ...] = ()

    ONE: ClassVar[Monomial]

    def __post_init__(self) -> None:
        if any(not isinstance(power, Fraction) for _, power in self.factors):
            raise TypeError(f"powers are exact Fractions, not {self.factors!r}")
        dims = [dim for dim, _ in self.factors]
        if dims != sorted(set(dims)) or any(not power for _, power in self.factors):
            raise ValueError(f"not in canonical form: {self.factors!r}; use Monomial.of")

    @classmethod
    def of(cls, powers: Mapping[str, Power] | Iterable[tuple[str, Power]]) -> Monomial:
        """From dim -> power, or pairs; the powers of equal dims add up."""
        total: dict[str, Fraction] = {}
        for dim, power in powers.items() if isinstance(powers, Mapping) else powers:
            total[dim] = total.get(dim, Fraction(0)) + _exact(power)
        return cls(tuple(sorted((dim, power) for dim, power in total.items() if power)))

    @classmethod
    def product(cls, dims: Iterable[str]) -> Monomial:
        """Every dim once; one named twice is squared."""
        return cls.of((dim, 1) for dim in dims)

    @classmethod
    def parse(cls, text: str) -> Monomial:
        """`"n_embd^-1/2 * n_head"`; `"1"` is the empty product. Raises `MupcError` on anything else."""
        powers: list[tuple[str, Power]] = []
        for word in (part.strip() for part in text.split("*")):
            found = _FACTOR.match(word)
            if found:
                powers.append((found["dim"], Fraction(found["power"] or 1)))
            elif word != "1":
                raise MupcError(f"{text!r} is no product of powers: {word!r} is neither 1 nor dim^power")
        return cls.of(powers)

    @property
    def dims(self) -> frozenset[str]:
        return frozenset(dim for dim, _ in self.factors)

    def __mul__(self, other: Monomial) -> Monomial:
        return Monomial.of([*self.factors, *other.factors])

    def __truediv__(self, other: Monomial) -> Monomial:
        return self * other**-1

    def __pow__(self, power: Power) -> Monomial:
        exact = _exact(power)
        return Monomial.of((dim, own * exact) for dim, own in self.factors)

    def sqrt(self) -> Monomial:
        return self ** Fraction(1, 2)

    def degree(self, rates: Mapping[str, Power] | None = None) -> Fraction:
        """The growth rate along a ray that gives each dim a rate; a dim without one grows at rate 1."""
        given = rates or {}
        return sum((power * given.get(dim, 1) for dim, power in self.factors), Fraction(0))

    def substitute(self, values: Mapping[str, Monomial]) -> Monomial:
        """Every named symbol replaced by a monomial; the others stay."""
        out = Monomial.ONE
        for dim, power in self.factors:
            out = out * values.get(dim, Monomial.of({dim: 1})) ** power
        return out

    def evaluate(self, sizes: Mapping[str, float]) -> float:
        """The value where every dim has the given size (or ratio). Raises `MupcError` for a dim without one."""
        value = 1.0
        for dim, power in self.factors:
            if dim not in sizes:
                raise MupcError(f"{self} has no value: no size is given for {dim}")
            value *= float(sizes[dim]) ** float(power)
        return value

    def __str__(self) -> str:
        return " * ".join(dim if power == 1 else f"{dim}^{power}" for dim, power in self.factors) or "1"

    def to_json(self) -> dict[str, str]:
        """`{"n_embd": "-1/2"}`."""
        return {dim: str(power) for dim, power in self.factors}

    @classmethod
    def from_json(cls, powers: Mapping[str, str]) -> Monomial:
        return cls.of({dim: Fraction(power) for dim, power in powers.items()})


Monomial.ONE = Monomial()


def _exact(power: Power) -> Fraction:
    if not isinstance(power, (Fraction, int)):
        raise TypeError(f"a power is a Fraction or an int, not {power!r}")
    return Fraction(power)


@dataclass(frozen=True, slots=True)
class Choice:
    """`max(a, b)` or `min(a, b)`: the operand that grows fastest (slowest) along the ray, the first of equals.

    Which one it is depends on which dims are infinite, not on sizes, so a law with a choice in it still gives a
    monomial (DESIGN.md section 6).
    """

    largest: bool
    among: tuple[Monomial, ...]

    def settle(self, values: Mapping[str, Monomial], rates: Mapping[str, Power] | None) -> Monomial:
        sign = 1 if self.largest else -1
        return max((one.substitute(values) for one in self.among), key=lambda m: sign * m.degree(rates))


@dataclass(frozen=True, slots=True)
class Law:
    """A value in symbols, as rules write it: `fan_out^1/2 * fan_in^-1/2 * max(fan_out, fan_in_widest)^-1/2`."""

    plain: Monomial
    choices: tuple[tuple[Choice, Fraction], ...] = ()

    @staticmethod
    @cache
    def parse(text: str) -> Law:
        """Raises `MupcError` where the text is no product of powers and choices."""
        plain, choices = [], []
        for word in (part.strip() for part in re.split(r"\*(?![^()]*\))", text)):
            found = _CHOICE.match(word)
            if found is None:
                plain.append(word)
                continue
            among = tuple(Monomial.parse(one) for one in found["among"].split(","))
            choices.append((Choice(found["which"] == "max", among), Fraction(found["power"] or 1)))
        return Law(Monomial.parse(" * ".join(plain) or "1"), tuple(choices))

    @property
    def symbols(self) -> frozenset[str]:
        return self.plain.dims.union(*(one.dims for choice, _ in self.choices for one in choice.among))

    def at(self, values: Mapping[str, Monomial], rates: Mapping[str, Power] | None = None) -> Monomial:
        """The monomial that the law is where its symbols have these values."""
        out = self.plain.substitute(values)
        for choice, power in self.choices:
            out = out * choice.settle(values, rates) ** power
        return out


@dataclass(frozen=True, slots=True)
class Setting:
    """The exponents of one parameter: multiplier (a), init std (b), learning rate (c), Adam's eps, weight decay.

    `clip` is the weight of its gradient in a total norm that shall not depend on width or gauge.
    """

    multiplier: Monomial = Monomial.ONE
    std: Monomial = Monomial.ONE
    lr: Monomial = Monomial.ONE
    eps: Monomial = Monomial.ONE
    decay: Monomial = Monomial.ONE
    clip: Monomial = Monomial.ONE


@dataclass(frozen=True, slots=True)
class Symmetry:
    """What leaves training unchanged when a multiplier is scaled by t and its tensor by 1/t (TP5, Lemma J.1).

    The weight's gradient then scales by t. `lr`, `eps` and `decay` are the powers of t that an optimizer's settings
    take; `others` holds those of its further knobs (Sophia's rho, Adagrad's accumulator). Every optimizer's file in
    `rules/optimizers/` states and cites its own: SGD lr/t^2; the sign and Adam families and Muon lr/t, eps t;
    Adafactor and LAMB lr unchanged. Decoupled decay keeps lr*decay; coupled L2 takes t^2 always, being added to a
    gradient that scales by t from a weight that scales by 1/t.
    """

    lr: Fraction
    eps: Fraction
    decay: Fraction
    others: Mapping[str, Fraction] = field(default_factory=dict)

    def moved(self, setting: Setting, t: Monomial) -> Setting:
        """The same training in another gauge: a group action, so `moved(t)` then `moved(1/t)` is the identity."""
        return Setting(
            multiplier=setting.multiplier * t,
            std=setting.std / t,
            lr=setting.lr * t**self.lr,
            eps=setting.eps * t**self.eps,
            decay=setting.decay * t**self.decay,
            clip=setting.clip / t,
        )
