"""What is set up: per parameter the exponents of its init and rate along a ray, and the numbers in the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from mupc.exponents import Law, Monomial
from mupc.flow.numbers import Numbers
from mupc.flow.powers import Power
from mupc.plan import Plan
from mupc.roles import Roles
from mupc.rulebase import Optimizer, RuleBase

RANDOM = ("input", "hidden", "output")
NONE_FOUND = Numbers()


@dataclass(frozen=True, slots=True)
class Ray:
    """How fast things grow together: every width at one rate, the depth at another."""

    width: Fraction = Fraction(1)
    depth: Fraction = Fraction(0)
    depths: frozenset[str] = frozenset()  # names of dims that are depths

    def of(self, monomial: Monomial) -> Fraction:
        """The power with which a monomial grows along the ray."""
        rates = (power * (self.depth if dim in self.depths else self.width) for dim, power in monomial.factors)
        return sum(rates, Fraction(0))


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter as set up. `init` is None for zeros; `random`: its entries have zero mean, so sums cancel."""

    init: Power
    lr: Power
    rule: Optimizer
    random: bool
    multiplier: Fraction = Fraction(0)

    def step(self, grad: Power, fans: Mapping[str, Fraction]) -> Power:
        """The exponent of an update's entries: the optimizer's law for the rate, read the other way.

        A file's law says which rate gives an update of a wanted size, lr = update * f(gradient, fans, std); so an
        update is lr / f.
        """
        if self.lr is None:
            return None
        law = Law.parse(self.rule.lr.law)
        if "grad" in law.symbols and grad is None:
            return None
        sizes = {"update": Fraction(0), "grad": grad or Fraction(0), "std": self.init or Fraction(0), **fans}
        values = {name: Monomial.of({name: 1}) if name != "update" else Monomial.ONE for name in law.symbols}
        rates = {name: sizes.get(name, Fraction(0)) for name in law.symbols}
        return self.lr - law.at(values, rates).degree(rates)


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that flow needs beside the graph. A parameter without an entry is not known, and all behind it.

    `numbers`: exponents of numbers in the code, by node; `uses`: those of multipliers that a plan puts on one use of a
    tensor, by the node of that use; `unsure`: nodes whose number is not known.
    """

    weights: Mapping[str, Weight]
    numbers: Mapping[str, Fraction] = field(default_factory=dict)
    uses: Mapping[str, Fraction] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()


def from_plan(plan: Plan, roles: Roles, rules: RuleBase, ray: Ray, numbers: Numbers = NONE_FOUND) -> Setup:
    """What the plan says of a model, as exponents along a ray. Gains start at one, biases at zero."""
    weights, uses = {}, {}
    for p in plan.parameters:
        if p.init_std is None or p.lr is None or p.optimizer is None:
            continue
        bias = p.sub_role == "bias"
        weights[p.name] = Weight(
            init=None if bias else ray.of(p.init_std.monomial),
            lr=ray.of(p.lr.monomial),
            rule=rules.optimizer(p.optimizer),
            random=p.role in RANDOM,
            multiplier=ray.of(p.multiplier.monomial) if p.multiplier else Fraction(0),
        )
        for use, planned in zip(roles.parameters[p.name].uses, p.uses, strict=True):
            if planned.multiplier is not None:
                uses[use.node] = ray.of(planned.multiplier.monomial)
    return Setup(weights, numbers.powers, uses, frozenset(numbers.unknown))
