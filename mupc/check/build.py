"""A target at several widths and seeds, each measured and held against flow: what `mupc check` does. Runs user code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mupc.analysis import Analysis, analyze
from mupc.audit.compare import counterparts, moved_dims, rule_named
from mupc.blame import blame
from mupc.check.document import Check
from mupc.check.judge import Settings, checked
from mupc.check.measure import Measured, measure
from mupc.check.remember import fingerprint, place, remember, remembered
from mupc.check.scene import Knobs, Loss, Scene, materialized, multiplied, of_optimizer, planned, shared
from mupc.check.widths import alike, points_of, ratio_of, width_of
from mupc.errors import MupcError, TargetError
from mupc.flow import Flow, Ray, flow, from_plan
from mupc.flow.numbers import probed
from mupc.flow.powers import Power
from mupc.flow.standing import Standing, from_twins
from mupc.groups import groups
from mupc.initializers import reset
from mupc.inputs import Inputs, find_inputs, from_example
from mupc.instance import Draws, Instance, Maker
from mupc.plan import Plan, make_plan
from mupc.rulebase import RuleBase, load_rules
from mupc.rulebase.schema import Optimizer
from mupc.structure import unwrapped
from mupc.target.load import Built, build_target
from mupc.target.python import function_at

if TYPE_CHECKING:
    from mupc.child import Job


@dataclass(frozen=True, slots=True)
class Options:
    """What `mupc check` was asked for. `widths` maps settings to as many values each; empty: chosen here."""

    widths: Mapping[str, Sequence[int]]
    regime: str
    steps: int
    seeds: int
    lr: float
    optimizer: str
    parametrization: str | None
    optimizer_config: str | None = None
    loss: str | None = None
    data: str | None = None
    fresh: bool = False


def check_target(job: Job) -> tuple[Check, str]:
    """The check, and how the inputs were found. Raises `MupcError` for whatever goes wrong."""
    options = dict(job.options)
    rules = load_rules(tuple(options.pop("rules", ())))
    asked = Options(**options)
    built = build_target(job.target, job.settings)
    model = unwrapped(built.model)
    loss, inputs, targets = _loss_and_data(asked, built, model, job)
    return check_built(job, asked, built, rules, inputs, _with(loss, targets)), inputs.how


def check_built(
    job: Job, asked: Options, built: Built, rules: RuleBase, inputs: Inputs, loss: Loss | None = None
) -> Check:
    """The check of a target that is built already; `job` names it and the dims that are held or let grow."""
    configure = function_at(asked.optimizer_config, "--optimizer-config") if asked.optimizer_config else None
    maker = Maker(built, lambda model: inputs, job.target, job.fixed, job.scaling, configure)
    base = analyze(
        unwrapped(built.model), inputs.args, inputs.kwargs, fixed=job.fixed, scaling=job.scaling, sizes=built.sizes,
        target=job.target,
    )  # fmt: skip
    at, said = points_of(built, base, asked.widths)
    return _Checker(job, asked, maker, rules, inputs, loss).run(at, said)


def _with(loss: Callable[..., Any] | None, targets: Any) -> Loss | None:
    if loss is None:
        return None
    return loss if targets is None else lambda output: loss(output, targets)


def _loss_and_data(
    asked: Options, built: Built, model: nn.Module, job: Job
) -> tuple[Callable[..., Any] | None, Inputs, Any]:
    """`--data` returns the forward's inputs, or those and the targets that `--loss` takes beside the output."""
    loss = function_at(asked.loss, "--loss") if asked.loss else None
    if asked.data is None:
        return loss, find_inputs(model, job.inputs, built.example_inputs, built.own), None
    make = function_at(asked.data, "--data")
    try:
        made = make()
    except (Exception, SystemExit) as error:
        raise TargetError(blame(error)) from error
    targets = None
    if isinstance(made, tuple) and len(made) == 2 and loss is not None and not isinstance(made[1], dict):
        made, targets = made
    return loss, from_example(made, "given by --data"), targets


@dataclass
class _Checker:
    """Builds, measures, remembers."""

    job: Job
    asked: Options
    maker: Maker
    rules: RuleBase
    inputs: Inputs
    loss: Loss | None

    def run(self, points: Sequence[dict[str, Any]], said: str) -> Check:
        asked = self.asked
        steps = None if asked.regime == "linear" else asked.steps
        runs: dict[int, list[Measured]] = {}
        code = fingerprint()
        small = self.maker.instance(points[0])
        large = self.maker.instance(points[1])
        ratio = ratio_of(small, large)
        alike(small, large, points[:2])
        for at, point in enumerate(points):
            width = width_of(point, at)
            known = (small, large)[at] if at < 2 else None  # one analysis for all seeds
            for seed in range(asked.seeds):
                key = place(code, self.question(point, seed))
                found = None if asked.fresh else remembered(key)
                if found is None:
                    _say(f"width {width}, seed {seed}: building and measuring")
                    known = known or self.maker.instance(point)
                    found = measure(self.scene(point, seed, small, known), steps=steps, lr=asked.lr, seed=seed)
                    remember(key, found)
                runs.setdefault(width, []).append(found)
        draws = Draws.of(self.maker, small, large, (points[0], points[1]))
        predicted, setup, notes, settings = self.predicted(small, large, ratio, draws)
        return checked(
            large.analysis, predicted, runs, target=self.job.target, setup=setup, steps=0 if steps is None else steps,
            how=said, notes=notes, settings=settings,
        )  # fmt: skip

    def scene(self, point: Mapping[str, Any], seed: int, base: Instance, known: Instance) -> Scene:
        model, optimizer = self.maker.model(point, seed)
        live = Instance(model, optimizer, known.analysis)
        args, kwargs = materialized(self.inputs.args, self.inputs.kwargs, seed)
        named = _named_inputs(live.analysis, args, kwargs)
        scales: Mapping[str, float] = {}
        multipliers: Mapping[str, float] = {}
        if self.asked.parametrization is not None:
            plan = self.plan(base, live)
            reset(live.model, plan)
            _clear_biases(live.model, plan)
            knobs: dict[str, Knobs] = planned(live.analysis, plan, self.rules)
            scales, multipliers = multiplied(live.analysis, plan)
        elif live.optimizer is not None:
            said = groups(live.optimizer)
            rule_of = {group.optimizer: rule_named(group.optimizer, self.rules) for group in said.values()}
            knobs = of_optimizer(live.analysis, live.model, said, rule_of, self.rules, _unit(base.optimizer))
            if not knobs:
                raise MupcError(f"no rule for {', '.join(rule_of)}: name one, --optimizer adamw, or add a rules file")
        else:
            knobs = shared(live.analysis, self.asked.optimizer, self.rules)
        return Scene(live.model, live.analysis, named, knobs, self.loss, scales, multipliers)

    def plan(self, base: Instance, live: Instance) -> Plan:
        """The parametrization's, with the smallest width as its base."""
        pairs = counterparts(list(live.analysis.roles.parameters), set(base.analysis.roles.parameters))
        dims = moved_dims(base.analysis, live.analysis, pairs)
        return make_plan(
            live.analysis, base={d.name: d.base for d in dims if d.grows}, optimizer=self.asked.optimizer,
            parametrization=self.asked.parametrization or "mup", rulebase=self.rules,
        )  # fmt: skip

    def predicted(
        self, small: Instance, large: Instance, ratio: Fraction, draws: Draws
    ) -> tuple[Flow, str, list[str], dict[str, Settings]]:
        """What flow says of the same set-up, and how its settings go with width."""
        numbers = probed(small, large, ratio)
        notes = [f"a number that may go with width: {place}" for place in dict.fromkeys(numbers.unknown.values())]
        asked = self.asked
        if asked.parametrization is not None:
            plan = self.plan(large, large)
            ray = Ray(depths=frozenset(d.name for d in plan.dims if d.kind == "depth"))
            setup = from_plan(plan, large.analysis.roles, self.rules, ray, numbers)
            notes.append("init drawn by the plan's formula, biases zero; the smallest width is the base")
            found = flow(large.analysis, setup, ray)
            return found, f"{asked.parametrization}, {asked.optimizer}", notes, _planned(plan, ray, self.rules)
        standing = from_twins(small, large, ratio, self.rules, asked.optimizer, numbers, draws)
        notes += [f"init not known: {line}" for line in standing.unread]
        kind = "as it stands, rates of its own" if small.optimizer is not None else "as it stands, one rate for all"
        found = flow(large.analysis, standing.setup, Ray())
        return found, f"{kind}, {standing.optimizer}", notes, _standing(standing, grouped=small.optimizer is not None)

    def question(self, point: Mapping[str, Any], seed: int) -> list[Any]:
        """What a measurement depends on beside code."""
        job, asked = self.job, {k: v for k, v in asdict(self.asked).items() if k not in ("widths", "seeds", "fresh")}
        return [job.target, job.settings, job.inputs, job.fixed, job.scaling, asked, point, seed]


def _settings(rule: Optimizer, lr: Power, decay: Power, eps: Power) -> Settings:
    """Of these an optimizer has what its rule says."""
    decoupled = rule.weight_decay is not None and rule.weight_decay.form == "decoupled"
    return Settings(lr, decay if decoupled else None, eps if rule.family == "adam" and rule.eps is not None else None)


def _planned(plan: Plan, ray: Ray, rules: RuleBase) -> dict[str, Settings]:
    found = {}
    for p in plan.parameters:
        if p.optimizer is not None and p.lr is not None:
            decay = p.weight_decay if p.weight_decay is not None and p.weight_decay.scale else None
            powers = [None if scale is None else ray.of(scale.monomial) for scale in (p.lr, decay, p.eps)]
            found[p.name] = _settings(rules.optimizer(p.optimizer), *powers)
    return found


def _standing(standing: Standing, *, grouped: bool) -> dict[str, Settings]:
    """One rate, decay and eps for all, where the set-up has no groups of its own."""
    same = None if grouped else Fraction(0)
    return {
        name: _settings(w.rule, w.lr, standing.decay.get(name, same), standing.eps.get(name, same))
        for name, w in standing.setup.weights.items()
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a child's progress


def _unit(optimizer: object | None) -> float:
    """The largest rate at the smallest width."""
    return max((group.lr for group in groups(optimizer).values()), default=1.0) or 1.0


def _named_inputs(analysis: Analysis, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that the trace gives its inputs: leaves of the arguments, in order."""
    leaves = [leaf for value in (*args, *kwargs.values()) for leaf in _leaves(value)]
    names = list(analysis.trace.inputs)
    if len(leaves) != len(names):
        raise MupcError(f"the forward reads {len(names)} tensors of {len(leaves)} that it is given")
    return dict(zip(names, leaves, strict=True))


def _leaves(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _leaves(one)


def _clear_biases(model: nn.Module, plan: Plan) -> None:
    with torch.no_grad():
        tensors = dict(model.named_parameters())
        for p in plan.parameters:
            if p.sub_role == "bias" and p.name in tensors:
                tensors[p.name].zero_()
