"""Two live models, one analysis each -> an Audit: which dims moved, which tensors correspond, what is off."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

from mupc.analysis import Analysis
from mupc.audit.dichotomy import implied
from mupc.audit.document import Audit, Held, Match, Moved, Row
from mupc.audit.hold import Holder
from mupc.audit.multipliers import Multipliers, Scores, multipliers
from mupc.audit.state import Live, read
from mupc.errors import MupcError
from mupc.exponents import Law, Monomial
from mupc.groups import Group, groups
from mupc.instance import Instance
from mupc.plan import Plan, make_plan
from mupc.rulebase import RuleBase, load_rules


def audit(
    small: Instance,
    large: Instance,
    *,
    parametrization: str = "mup",
    optimizer: str | None = None,
    rulebase: RuleBase | None = None,
) -> Audit:
    """Hold the way a set-up changes from one size to another against a parametrization.

    `optimizer` names the rule to judge by; by default it is that of the class that steps the model. Raises `MupcError`
    where the two models are of one size, or not of one kind.
    """
    rules = rulebase or load_rules()
    pairs = counterparts(list(large.analysis.roles.parameters), set(small.analysis.roles.parameters))
    dims = moved_dims(small.analysis, large.analysis, pairs)
    growing = {dim.name: dim.base for dim in dims if dim.grows}
    if all(dim.base == dim.size for dim in dims):
        raise MupcError("both models have the same sizes: an audit needs a base that differs")
    rule_of = {name: rule_named(name, rules) for name in _classes(large.optimizer)}
    chosen = optimizer or _main_rule(rule_of.values(), rules) or "adamw"

    def planned(name: str) -> Plan:
        plan = make_plan(large.analysis, parametrization=name, optimizer=chosen, rulebase=rules)
        depths = {d.name: small.analysis.depth for d in plan.dims if d.kind == "depth" and d.grows}
        base = growing | {name: size for name, size in depths.items() if size}
        return make_plan(large.analysis, base=base, parametrization=name, optimizer=chosen, rulebase=rules)

    plan = planned(parametrization)
    law = rules.parametrization(parametrization).attention
    found = _told_apart(
        (multipliers(small.analysis, small.model), multipliers(large.analysis, large.model)),
        law.scale if law else None,
    )  # fmt: skip
    live = [read(one.model, one.optimizer, plan, m.parameters) for one, m in zip((small, large), found, strict=True)]
    live[0] = _parts_of(small, plan, live[0], pairs)

    def held(one: Plan) -> list[Row]:
        return Holder(one, rules, live[0], live[1], pairs, rule_of).rows()

    limit = implied(plan, live[0], live[1], pairs) if rules.optimizer(chosen).family == "sgd" and rule_of else None
    rows = [*held(plan), *_uses(plan, found, pairs), *_attention(plan, rules, found)]
    return Audit(
        target=large.analysis.target,
        parametrization=parametrization,
        optimizer=chosen if rule_of else None,
        dims=tuple(dim for dim in dims if dim.base != dim.size or dim.grows),
        rows=tuple(rows),
        matches=tuple(_matches(rules, planned, held, parametrization)),
        regime=None if limit is None else f"{limit[1].name}, r = {limit[1].r}: {limit[1].why[0]}",
        notes=tuple(_notes(dims, large, small, rule_of, live[1])),
    )


# Which tensor and which dim is which.


def counterparts(names: Sequence[str], others: set[str]) -> dict[str, str]:
    """Each name's in the other model: the same, or, where blocks were added, that of the nearest block before it."""
    found = {}
    for name in names:
        if name in others:
            found[name] = name
            continue
        alike = [other for other in others if _mask(other) == _mask(name)]
        before = sorted((other for other in alike if _numbers(other) <= _numbers(name)), key=_numbers)
        if before:
            found[name] = before[-1]
    return found


def _mask(name: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "#", name)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(word) for word in name.split(".") if word.isdigit())


def moved_dims(small: Analysis, large: Analysis, pairs: Mapping[str, str]) -> list[Moved]:
    """Every dim at both sizes: as the smaller model's analysis has it, where both cut their axes alike; else from axes
    that have it alone, then from axes where it is the only one not known.

    Raises `MupcError` where one dim would have two sizes.
    """
    sizes = _alike(small, large, pairs)
    axes = []
    for name, p in large.roles.parameters.items():
        then = small.roles.parameters.get(pairs.get(name, ""))
        if then is not None and len(then.shape) == len(p.shape):
            axes += [(dims, size, name) for dims, size in zip(p.axes, then.shape, strict=True) if dims]
    known = {dim.name: dim for dim in large.roles.dims}
    for _ in range(4):
        for dims, size, name in axes:
            open_dims = [d for d in dims if d not in sizes]
            rest = prod(sizes[d] for d in dims if d in sizes)
            if len(open_dims) == 1 and size % rest == 0:
                sizes[open_dims[0]] = size // rest
            elif not open_dims and rest != size:
                raise MupcError(f"{name}: {' x '.join(dims)} is {size} in the smaller model, not {rest}: not one kind")
        for dims, _, _ in axes:  # several open: those that the policy holds fixed keep their size
            open_dims = [d for d in dims if d not in sizes]
            if len(open_dims) > 1:
                sizes |= {d: known[d].size for d in open_dims if d in known and known[d].grows is False}
    found = [Moved(name=d.name, base=sizes.get(d.name, d.size), size=d.size, grows=d.grows) for d in large.roles.dims]
    if large.depth is not None and small.depth is not None:
        name = next(n for n in ("depth", "n_blocks", "depth_of_blocks") if n not in known)
        found.append(Moved(name=name, base=small.depth, size=large.depth, grows=None))
    return found


def _alike(small: Analysis, large: Analysis, pairs: Mapping[str, str]) -> dict[str, int]:
    """What dims of the larger model measure in the smaller one, by their place on axes of as many factors."""
    then = {dim.name: dim.size for dim in small.roles.dims}
    met: dict[str, set[int]] = {}
    for name, p in large.roles.parameters.items():
        other = small.roles.parameters.get(pairs.get(name, ""))
        for dims, others in zip(p.axes, other.axes, strict=False) if other else ():
            for dim, its in zip(dims, others, strict=True) if len(dims) == len(others) else ():
                met.setdefault(dim, set()).add(then[its])
    return {dim: found.pop() for dim, found in met.items() if len(found) == 1}


def _parts_of(small: Instance, plan: Plan, live: Mapping[str, Live], pairs: Mapping[str, str]) -> dict[str, Live]:
    """The smaller model's parts, cut where the larger's are, in proportion."""
    tensors = dict(small.model.named_parameters())
    out = dict(live)
    back = {then: now for now, then in reversed(list(pairs.items()))}
    for name, one in live.items():
        p = next((p for p in plan.parameters if p.name == back.get(name, "")), None)
        if p is None or not p.parts or name not in tensors:
            continue
        parts = {}
        for q in p.parts:
            total = p.shape[q.axis]
            start, stop = (round(edge * one.shape[q.axis] / total) for edge in q.range)
            values = tensors[name].narrow(q.axis, start, stop - start).detach().double()
            if not values.is_meta and values.numel():
                parts[q.axis, start, stop] = (values.pow(2).mean().sqrt().item(), values.numel())
        out[name] = replace(one, parts=parts)
    return out


# Optimizers by their class.


def rule_named(name: str, rules: RuleBase) -> str | None:
    """The rule for an optimizer class: the one of its name, letters alone (`MuAdamW` has AdamW's)."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = {re.sub(r"[^a-z0-9]", "", rule): rule for rule in rules.optimizers}
    for word in (plain, plain.removeprefix("mu"), plain.removeprefix("fused"), plain.removesuffix("8bit")):
        if word in known:
            return known[word]
    return None


def _classes(optimizer: object | None) -> list[str]:
    return list(dict.fromkeys(group.optimizer for group in groups(optimizer).values()))


def _main_rule(found: Iterable[str | None], rules: RuleBase) -> str | None:
    """The rule that the others are fallbacks of."""
    names = [name for name in found if name is not None]
    return next((n for n in names if rules.optimizer(n).fallback in names), names[0] if names else None)


# What is not one tensor's own.


def _uses(plan: Plan, found: Sequence[Multipliers], pairs: Mapping[str, str]) -> Iterable[Row]:
    """A tied tensor's further uses: their multipliers beside that of the leading one."""
    for p in plan.parameters:
        for use in p.uses:
            if use.multiplier is None:
                continue
            ratios = []
            for one, name in ((found[0], pairs.get(p.name, "")), (found[1], p.name)):
                values = [v for (owner, _), v in one.uses.items() if owner == name]
                ratios.append(values)
            if any(len(values) < 2 for values in ratios):
                continue
            at = next(i for i, u in enumerate(p.uses) if u is use)
            main = next(i for i, u in enumerate(p.uses) if u.role == p.role)
            base, size = (values[at] / values[main] for values in ratios)
            law = use.multiplier.monomial
            wanted = base * law.evaluate({d.name: d.size / d.base for d in plan.dims})
            held = Held(
                what="multiplier", base=base, size=size, wanted=wanted, factor=size / wanted, law=str(law),
                verdict="ok" if abs(size / wanted - 1) < 1e-4 else "off", note=f"of its use as {use.role}",
            )  # fmt: skip
            yield Row(name=p.name, role=use.role, source=use.source, held=(held,))


def _attention(plan: Plan, rules: RuleBase, found: Sequence[Multipliers]) -> Iterable[Row]:
    """Attention's scale, where what its products sum over is longer in one model."""
    law = rules.parametrization(plan.parametrization).attention
    for module, size in found[1].attention.items() if law else ():
        base = found[0].attention.get(module)
        if law is None or base is None or base.contracted == size.contracted:
            continue
        wanted = base.factor * _grown(law.scale, base, size)
        factor = size.factor / wanted
        held = Held(
            what="multiplier", base=base.factor, size=size.factor, wanted=wanted, factor=factor, law=law.scale,
            verdict="ok" if abs(factor - 1) < 1e-4 else "off", note="scale of attention's scores",
        )  # fmt: skip
        yield Row(name=module or "(model)", role="attention", held=(held,))


def _grown(law: str, base: Scores, size: Scores) -> float:
    """By how much the scale should move."""
    return Law.parse(law).at({"contracted": Monomial.product(["d"])}).evaluate({"d": size.contracted / base.contracted})


def _told_apart(found: tuple[Multipliers, Multipliers], law: str | None) -> tuple[Multipliers, Multipliers]:
    """A number between a query's weight and the scores is the weight's or the scale's, not both's.

    It is the scale's, where it moves, unless the scale is right without it.
    """
    small, large = found
    parameters = [dict(one.parameters) for one in found]
    attention = [dict(one.attention) for one in found]
    for module, size in large.attention.items() if law else ():
        base = small.attention.get(module)
        if law is None or base is None or not (base.paths or size.paths):
            continue
        if abs(size.factor / base.factor / _grown(law, base, size) - 1) < 1e-4:
            continue
        for at, one in enumerate((base, size)):
            attention[at][module] = replace(one, factor=one.whole(), paths={})
            for name, number in one.paths.items():
                parameters[at][name] /= number
    return replace(small, parameters=parameters[0], attention=attention[0]), replace(
        large, parameters=parameters[1], attention=attention[1]
    )


def _matches(
    rules: RuleBase, planned: Callable[[str], Plan], held: Callable[[Plan], Sequence[Row]], first: str
) -> list[Match]:
    """Every parametrization by how many rows agree with it in init and rate, the best first, of equals `first`."""
    out = []
    for name in sorted(rules.parametrizations):
        try:
            rows = held(planned(name))
        except MupcError:  # known for other optimizers only
            continue
        verdicts = [v for row in rows if (v := row.agrees("init", "lr", "optimizer")) is not None]
        if verdicts:
            out.append(Match(parametrization=name, agree=sum(verdicts), of=len(verdicts)))
    return sorted(out, key=lambda m: (-m.agree / m.of, m.parametrization != first, m.parametrization))


def _notes(
    dims: Sequence[Moved], large: Instance, small: Instance, rule_of: Mapping[str, str | None], live: Mapping[str, Live]
) -> Iterable[str]:
    for dim in dims:
        if dim.grows is False and dim.base != dim.size:
            yield f"{dim.name} is held fixed, yet {dim.base} -> {dim.size}: give --scaling {dim.name} if that is meant"
        if dim.grows and dim.base == dim.size:
            yield f"{dim.name} grows with width, yet is {dim.size} in both models"
    if not rule_of:
        yield "no optimizer: rates, eps and decay are not audited (a factory may return (model, optimizer))"
    for name, rule in rule_of.items():
        if rule is None:
            yield f"there is no rule for {name}: its rates are not judged"
    idle = [name for name, one in live.items() if rule_of and one.group is None]
    if idle:
        yield f"in no optimizer group: {', '.join(idle[:4])}" + (f" and {len(idle) - 4} more" if len(idle) > 4 else "")


__all__ = ["Group", "Instance", "audit", "counterparts", "moved_dims", "rule_named"]
