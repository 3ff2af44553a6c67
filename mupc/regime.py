"""Which limit a parametrization has under SGD: the dynamical dichotomy of Tensor Programs IV (arXiv:2011.14522).

Layer l holds W = n^-a_l w with w ~ N(0, n^-2b_l), stepped at rate eta n^-c_l; layers 1 to L are the input's and the
hidden ones, L + 1 the readout. The features' change over one step is of size n^-r.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from mupc.errors import MupcError
from mupc.exponents import Setting
from mupc.rulebase import RuleBase, Subject

HALF = Fraction(1, 2)
Name = Literal["unstable", "trivial", "kernel", "feature learning"]


@dataclass(frozen=True, slots=True)
class ABC:
    """Exponents of multiplier, init std and rate, one for each of L + 1 layers."""

    a: tuple[Fraction, ...]
    b: tuple[Fraction, ...]
    c: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if not len(self.a) == len(self.b) == len(self.c) >= 2:
            raise MupcError(
                f"a, b and c want one exponent for each of at least two layers, not {self.a}, {self.b}, {self.c}"
            )

    @classmethod
    def of(cls, a: Sequence[Fraction | int], b: Sequence[Fraction | int], c: Sequence[Fraction | int]) -> ABC:
        """One exponent of c stands for all layers."""
        rates = tuple(map(Fraction, c)) * (len(a) if len(c) == 1 else 1)
        return cls(tuple(map(Fraction, a)), tuple(map(Fraction, b)), rates)

    @property
    def r(self) -> Fraction:
        """TP4, Definition 3.2: r = min(a + b, 2a + c)_(L+1) + c - 1 + min over l <= L of 2 a_l + [l = 1].

        With rates by layer, each layer's own stands beside its 2 a_l: the change of the features is the largest of what
        the layers' updates make.
        """
        last = min(self.a[-1] + self.b[-1], 2 * self.a[-1] + self.c[-1])
        inner = zip(self.a[:-1], self.c[:-1], strict=True)
        return last - 1 + min(c + 2 * a + (at == 0) for at, (a, c) in enumerate(inner))


@dataclass(frozen=True, slots=True)
class Regime:
    """The verdict, r, and what it rests on, one line a condition that fails or decides."""

    name: Name
    r: Fraction
    why: tuple[str, ...]


def classify(abc: ABC) -> Regime:
    """Unstable, trivial, kernel or feature learning: TP4, Theorems 3.3 and 3.4, Corollary 3.5.

    Stable: a_1 + b_1 = 0, a_l + b_l = 1/2 between, a + b >= 1/2 at the readout, r >= 0, 2a + c >= 1 and a + b + r >= 1
    there. Nontrivial: one of the last two is an equality. Then r = 0 learns features and r > 0 is a kernel.
    """
    broken = list(_broken(abc))
    if broken:
        return Regime("unstable", abc.r, tuple(broken))
    out, step = abc.a[-1] + abc.b[-1] + abc.r, 2 * abc.a[-1] + abc.c[-1]
    if out != 1 and step != 1:
        why = f"the function does not move: a + b + r = {out} and 2a + c = {step} at the readout, both above 1"
        return Regime("trivial", abc.r, (why,))
    if abc.r == 0:
        return Regime("feature learning", abc.r, ("r = 0: features move by as much as they are",))
    return Regime("kernel", abc.r, (f"r = {abc.r}: features move by n^-{abc.r}, the function by a constant",))


def _broken(abc: ABC) -> list[str]:
    sums = [a + b for a, b in zip(abc.a, abc.b, strict=True)]
    found = []
    if sums[0] != 0:
        found.append(f"preactivations of layer 1 start at n^{-sums[0]}: a + b = {sums[0]}, not 0")
    for at, total in enumerate(sums[1:-1], 2):
        if total != HALF:
            found.append(f"preactivations of layer {at} are n^{HALF - total} of those before: a + b = {total}, not 1/2")
    if sums[-1] < HALF:
        found.append(f"the output starts at n^{HALF - sums[-1]}: a + b = {sums[-1]} at the readout, below 1/2")
    if abc.r < 0:
        found.append(f"features move by n^{-abc.r}: r = {abc.r}, below 0")
    if 2 * abc.a[-1] + abc.c[-1] < 1:
        step = 2 * abc.a[-1] + abc.c[-1]
        found.append(f"the readout's own update moves the output by n^{1 - step}: 2a + c = {step}, below 1")
    if abc.r >= 0 and sums[-1] + abc.r < 1:
        found.append(f"the features' change moves the output by n^{1 - sums[-1] - abc.r}: a + b + r is below 1")
    return found


def implied(settings: Mapping[str, Setting], hidden: int = 1) -> ABC:
    """The exponents of a set-up's roles, all widths n: its `input`, `hidden` (so many layers) and `output` settings."""
    layers = [settings["input"], *[settings["hidden"]] * hidden, settings["output"]]

    def powers(what: str) -> tuple[Fraction, ...]:
        return tuple(-getattr(layer, what).degree() for layer in layers)

    return ABC(powers("multiplier"), powers("std"), powers("lr"))


def of_parametrization(rules: RuleBase, name: str, hidden: int = 1) -> ABC:
    """What a parametrization of the rule base is under SGD, for a network of one width. Raises `MupcError`."""
    subjects = (
        Subject("input", fan_out=("n",)),
        Subject("hidden", fan_in=(("n",),), fan_out=("n",)),
        Subject("output", fan_in=(("n",),)),
    )
    return implied({s.role: rules.apply(name, "sgd", s).setting for s in subjects}, hidden)
