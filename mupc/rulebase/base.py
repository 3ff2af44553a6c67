"""From rules to exponents: which rules match a parameter, and what they and its optimizer's laws come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from mupc.errors import MupcError
from mupc.exponents import Law, Monomial, Setting
from mupc.rulebase.schema import (
    Case,
    Claims,
    DecayRule,
    Entry,
    Initializer,
    Mistake,
    Optimizer,
    Parametrization,
    Rule,
    WeightDecay,
)
from mupc.rulebase.words import explained

E = TypeVar("E", bound=Entry)
GAUGES = ("fold", "table8", "unit")
KNOWN = ("input", "hidden", "output", "vector", "scalar")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a rule can see of a parameter, or of a part of one.

    `fan_in` lists the growing dims of each contracted axis, the widest axis first; `fan_out` and `batch` the growing
    dims created and carried. `dims` gives (kind, grows) for every dim on the parameter's axes. `depth` names the
    model's depth, where it has one. `residual_branch`: on one of repeated blocks; `ends_branch`: that branch is linear
    in it, together with what else ends it. `sides`: the sizes of both fans, in and out, what is fixed in them included.
    """

    role: str
    fan_in: tuple[tuple[str, ...], ...] = ()
    fan_out: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    sub_role: str | None = None
    ops: frozenset[str] = frozenset()
    residual_branch: bool = False
    ends_branch: bool = False
    tied: bool = False
    dims: Mapping[str, tuple[str, bool | None]] = field(default_factory=dict)
    depth: str | None = None
    sides: tuple[int, int] | None = None

    def values(self) -> dict[str, Monomial]:
        """What the symbols of a law stand for here."""
        axes = [Monomial.product(axis) for axis in self.fan_in]
        fan_in = Monomial.product(dim for axis in self.fan_in for dim in axis)
        fan_out, batch = Monomial.product(self.fan_out), Monomial.product(self.batch)
        return {
            "fan_in": fan_in,
            "fan_in_widest": max(axes, key=Monomial.degree, default=Monomial.ONE),
            "fan_out": fan_out,
            "fan_max": self._larger(fan_in, fan_out),
            "batch": batch,
            "entries": fan_in * fan_out * batch,
            "depth": Monomial.product([self.depth] if self.depth else []),
        }

    def _larger(self, fan_in: Monomial, fan_out: Monomial) -> Monomial:
        """The fan that is larger at this size; where sizes are not given, that grows faster."""
        inward = self.sides[0] > self.sides[1] if self.sides else fan_in.degree() > fan_out.degree()
        return fan_in if inward else fan_out


@dataclass(frozen=True, slots=True)
class Applied:
    """The exponents of one parameter, which optimizer steps it, and the rules that said so.

    Decay goes with the rate to `decay_power` (-1 where lr*decay is kept).
    """

    setting: Setting
    optimizer: str
    rules: tuple[Rule, ...]
    decay_power: Fraction = Fraction(0)
    decays: bool = True

    def at_rate(self, lr: Monomial) -> Monomial:
        """The weight decay that goes with another rate than the rules' own."""
        return self.setting.decay * (lr / self.setting.lr) ** self.decay_power


class RuleBase(BaseModel):
    """Everything in `rules/`, by name. `sources` are the files it was read from."""

    model_config = ConfigDict(frozen=True)
    parametrizations: dict[str, Parametrization]
    optimizers: dict[str, Optimizer]
    weight_decays: dict[str, WeightDecay] = {}
    initializers: dict[str, Initializer] = {}
    mistakes: dict[str, Mistake] = {}

    def apply(self, parametrization: str, optimizer: str, subject: Subject, weight_decay: str | None = None) -> Applied:
        """The exponents of one parameter; `weight_decay` names a rule to go by instead of the optimizer's own.

        Raises `MupcError` for an unknown name or role, a missing law, a decay that is not stated for the optimizer.
        """
        chosen, optim = self.parametrization(parametrization), self.stepping(optimizer, subject.role)
        if subject.role not in KNOWN:
            raise MupcError(f"a parameter whose role is {subject.role} has no exponents")
        if chosen.families and optim.family not in chosen.families:
            raise MupcError(f"{chosen.name} is known for {' and '.join(chosen.families)}, not for {optim.name}")
        rules = tuple(rule for rule in chosen.rule if matches(rule, subject))
        said = _said(rules, optim)
        fixed = {dim: 0 for dim, (_, grows) in subject.dims.items() if not grows}
        rates = fixed | ({subject.depth: 0} if subject.depth else {})
        values = subject.values() | _own_symbols(chosen, subject)

        def settle(key: str, otherwise: str | None) -> Monomial:
            law = said.get(key, otherwise)
            if law is None:
                raise MupcError(f"{chosen.name} has no {key} for {subject.role} parameters, which {optim.name} needs")
            parsed = Law.parse(law)
            if lacking := sorted(parsed.symbols - set(values)):
                raise MupcError(
                    f"{chosen.name} has no {lacking[0]} for {subject.role} parameters, which {optim.name}'s {key} needs"
                )
            return parsed.at(values, rates)

        for key in ("multiplier", "std", "grad", "update"):
            if key in said or key == "multiplier":
                values[key] = settle(key, "1")
        values["lr"] = settle("lr", optim.lr.law)
        values["eps"] = settle("eps", optim.eps.law) if optim.eps else Monomial.ONE
        decays = said.get("decay", optim.weight_decay.law) if optim.weight_decay else "1"
        decayed = True
        if weight_decay is not None and optim.weight_decay:
            ruled = self.decay_of(weight_decay, optim, subject.role)
            said["decay"], decayed = ruled.law or "1", ruled.decays
            decays = said["decay"]
        setting = Setting(
            multiplier=values["multiplier"],
            std=settle("std", None),
            lr=values["lr"],
            eps=values["eps"],
            decay=settle("decay", decays) if optim.weight_decay else Monomial.ONE,
            clip=settle("clip", "1"),
        )
        power = dict(Law.parse(decays).plain.factors).get("lr", Fraction(0))
        return Applied(setting, optim.name, rules, power, decayed)

    def decay_of(self, name: str, optim: Optimizer, role: str) -> DecayRule:
        """The rule of a weight decay for parameters of a role. Raises `MupcError` where it is not known for them."""
        chosen = _find("weight decay", self.weight_decays, name)
        form = optim.weight_decay.form if optim.weight_decay else "none"
        if chosen.forms and form not in chosen.forms:
            raise MupcError(f"decay {name} is stated for {' and '.join(chosen.forms)} decay; {optim.name}'s is {form}")
        found = [rule for rule in chosen.rule if rule.roles is None or role in rule.roles]
        if not found:
            raise MupcError(f"decay {name} says nothing of {role} parameters")
        return found[-1]

    def in_gauge(self, gauge: str, applied: Applied, subject: Subject) -> Applied:
        """The same training with multipliers where the gauge has them (TP5, Tables 8 and 9; u-muP, arXiv:2407.17465).

        `fold` has none beside the rules'; `table8` puts a readout's 1/fan_in into a multiplier; `unit` makes every
        matrix's init unit, its multiplier taking what the init had. Raises `MupcError` for another name.
        """
        if gauge not in GAUGES:
            raise MupcError(f"no gauge is called {gauge!r}; there are {', '.join(GAUGES)}")
        t = Monomial.ONE
        if gauge == "table8" and subject.role == "output":
            t = subject.values()["fan_in"] ** -1 / applied.setting.multiplier
        if gauge == "unit" and subject.role in ("input", "hidden", "output"):
            t = applied.setting.std
        moved = self.optimizer(applied.optimizer).law().moved(applied.setting, t)
        return replace(applied, setting=moved)

    def parametrization(self, name: str) -> Parametrization:
        """Raises `MupcError` listing what there is."""
        return _find("parametrization", self.parametrizations, name)

    def optimizer(self, name: str) -> Optimizer:
        """Raises `MupcError` listing what there is."""
        return _find("optimizer", self.optimizers, name)

    def stepping(self, name: str, role: str) -> Optimizer:
        """The optimizer that steps parameters of this role: itself, or what it falls back to."""
        optim = self.optimizer(name)
        if optim.roles is None or role in optim.roles:
            return optim
        if optim.fallback is None:
            raise MupcError(f"{name} does not step {role} parameters, and names no fallback")
        return self.stepping(optim.fallback, role)

    def entries(self) -> list[tuple[str, Entry]]:
        """Every entry with its kind, in order of kind and name: what `mupc rules` lists."""
        tables: list[tuple[str, Mapping[str, Entry]]] = [
            ("parametrization", self.parametrizations),
            ("optimizer", self.optimizers),
            ("weight decay", self.weight_decays),
            ("initializer", self.initializers),
            ("finding", self.mistakes),
        ]
        return [(kind, table[name]) for kind, table in tables for name in sorted(table)]

    def listing(self) -> list[dict[str, str]]:
        """One row an entry: kind, name, status, title, source."""
        return [
            {"kind": kind, "name": e.name, "status": e.status, "title": e.title, "source": e.source}
            for kind, e in self.entries()
        ]

    def explain(self, name: str) -> str:
        """An entry in words, its sources cited. Raises `MupcError` where nothing is called so."""
        found = [explained(kind, entry) for kind, entry in self.entries() if entry.name == name]
        if not found:
            raise MupcError(f"nothing is called {name!r}; {_near(name, [entry.name for _, entry in self.entries()])}")
        return "\n\n".join(found)

    def cases(self) -> Iterator[tuple[Claims, bool, Case]]:
        """Every case of every file, and whether it is claimed to be true."""
        for _, entry in self.entries():
            if isinstance(entry, Claims):
                yield from ((entry, True, case) for case in entry.valid)
                yield from ((entry, False, case) for case in entry.invalid)


def failure(base: RuleBase, entry: Claims, case: Case) -> str:
    """Why the case's claim is false; "" where it is true."""
    parametrization = entry.name if isinstance(entry, Parametrization) else case.parametrization
    optimizer = entry.name if isinstance(entry, Optimizer) else case.optimizer
    if parametrization is None or optimizer is None:
        raise MupcError(f"a case of {entry.name} names no {'optimizer' if parametrization else 'parametrization'}")
    decay = entry.name if isinstance(entry, WeightDecay) else None
    applied = base.apply(parametrization, optimizer, _subject(case), decay)
    if applied.decays != case.decays:
        return f"it is {'' if applied.decays else 'not '}decayed"
    found: dict[str, Any] = {key: getattr(applied.setting, key, None) for key in case.expect}
    wrong = [f"{k}: {found[k]}, not {v}" for k, v in case.expect.items() if found[k] != Monomial.parse(v)]
    return "; ".join(wrong)


def _subject(case: Case) -> Subject:
    return Subject(
        role=case.role,
        fan_in=tuple(_dims(axis) for axis in case.inward),
        fan_out=_dims(case.outward),
        batch=_dims(case.batch),
        sub_role=case.sub_role,
        residual_branch=case.residual_branch,
        ends_branch=case.ends_branch,
        tied=case.tied,
        depth=case.depth,
        dims={dim: (kind, True) for dim, kind in case.kinds.items()},
    )


def _dims(text: str) -> tuple[str, ...]:
    return tuple(dim for dim, power in Monomial.parse(text).factors for _ in range(int(power)))


def matches(rule: Rule, subject: Subject) -> bool:
    """Does every condition hold?"""
    kinds = {kind for kind, _ in subject.dims.values()}
    growing = {kind for kind, grows in subject.dims.values() if grows}
    return (
        (rule.roles is None or subject.role in rule.roles)
        and (rule.sub_roles is None or subject.sub_role in rule.sub_roles)
        and (rule.ops is None or not subject.ops.isdisjoint(rule.ops))
        and (rule.kinds is None or not kinds.isdisjoint(rule.kinds))
        and (rule.growing_kinds is None or not growing.isdisjoint(rule.growing_kinds))
        and rule.residual_branch in (None, subject.residual_branch)
        and rule.ends_branch in (None, subject.ends_branch)
        and rule.tied in (None, subject.tied)
    )


def _said(rules: tuple[Rule, ...], optim: Optimizer) -> dict[str, str]:
    """Quantity -> law, later rules over earlier ones, and within one the most particular key."""
    form = optim.weight_decay.form if optim.weight_decay else "none"
    out: dict[str, str] = {}
    for rule in rules:
        for place, law in rule.laws().items():
            if len(place) == 1:
                out[place[0]] = law
        for key, table in (("lr", rule.lr), ("eps", rule.eps), ("decay", rule.decay)):
            wide = form if key == "decay" else optim.family
            law = table.get(optim.name) or table.get(wide) or table.get("any") or ""
            if law:
                out[key] = law
    return out


def _own_symbols(chosen: Parametrization, subject: Subject) -> dict[str, Monomial]:
    out = {}
    for symbol, means in chosen.symbols.items():
        of_kind = [dim for dim, (kind, _) in subject.dims.items() if means.kind == kind]
        named = [means.name] if means.name and (not means.optional or means.name in subject.dims) else []
        out[symbol] = Monomial.product(named or of_kind)
    return out


def _find(kind: str, table: Mapping[str, E], name: str) -> E:
    if name not in table:
        raise MupcError(f"no {kind} is called {name!r}; {_near(name, sorted(table))}")
    return table[name]


def _near(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
