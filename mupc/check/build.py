"""A target at several widths and seeds, each measured and held against flow: what `mupc check` does. Runs user code."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mupc.analysis import Analysis, analyze
from mupc.audit.build import configured
from mupc.audit.compare import Setup as Live
from mupc.audit.compare import counterparts, moved_dims, rule_named
from mupc.audit.state import optimizers
from mupc.blame import blame
from mupc.check.document import Check
from mupc.check.judge import checked
from mupc.check.measure import Measured, Sample, Weighed, measure
from mupc.check.scene import Knobs, Loss, Scene, materialized, multiplied, of_optimizer, planned, shared
from mupc.errors import MupcError, TargetError
from mupc.flow import Flow, Ray, flow, from_plan
from mupc.flow.numbers import probed
from mupc.flow.standing import from_twins
from mupc.initializers import reset
from mupc.inputs import Inputs, find_inputs, from_example
from mupc.plan import Plan, make_plan
from mupc.rulebase import RuleBase, load_rules
from mupc.structure import unwrapped
from mupc.target.build import real
from mupc.target.load import Built, build_target
from mupc.target.sizes import Widths, find_widths
from mupc.target.twins import elements

if TYPE_CHECKING:
    from mupc.child import Job

COUNTS = (4, 3)  # widths, where none are given
NARROW = (64, 32)  # of the narrowest growing dim at the smallest width
MOST = 60_000_000  # elements of the largest model, where widths are chosen here


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
    base = _analyzed(unwrapped(built.model), inputs, job, built.sizes)
    points, said = _points(built, base, asked.widths)
    return _Checker(job, asked, built, rules, inputs, loss).run(points, said)


def _with(loss: Callable[..., Any] | None, targets: Any) -> Loss | None:
    if loss is None:
        return None
    return loss if targets is None else lambda output: loss(output, targets)


def _loss_and_data(
    asked: Options, built: Built, model: nn.Module, job: Job
) -> tuple[Callable[..., Any] | None, Inputs, Any]:
    """`--data` returns the forward's inputs, or those and the targets that `--loss` takes beside the output."""
    loss = configured(asked.loss, "--loss") if asked.loss else None
    if asked.data is None:
        return loss, find_inputs(model, job.inputs, built.example_inputs, built.own), None
    make = configured(asked.data, "--data")
    try:
        made = make()
    except (Exception, SystemExit) as error:
        raise TargetError(blame(error)) from error
    targets = None
    if isinstance(made, tuple) and len(made) == 2 and loss is not None and not isinstance(made[1], dict):
        made, targets = made
    return loss, from_example(made, "given by --data"), targets


def _analyzed(model: nn.Module, inputs: Inputs, job: Job, sizes: Mapping[str, int]) -> Analysis:
    return analyze(
        model, inputs.args, inputs.kwargs, fixed=job.fixed, scaling=job.scaling, sizes=sizes, target=job.target
    )


# Widths.


def _points(built: Built, analysis: Analysis, widths: Mapping[str, Sequence[int]]) -> tuple[list[dict[str, Any]], str]:
    """The settings of each width, smallest first."""
    found = None
    for factor in (Fraction(2), Fraction(1, 2), Fraction(4)):
        found = found or find_widths(built.make, built.fields, analysis.roles.parameters, analysis.roles.dims, factor)
    if widths:
        points = [dict(zip(widths, values, strict=True)) for values in zip(*widths.values(), strict=True)]
        if found is not None:
            points = [{**_beside(found, point), **point} for point in points]
    elif found is None:
        raise MupcError("no setting of the target scales its widths alone: name one, --widths n_embd=64,128,256,512")
    else:
        points = _chosen(found, analysis)
    said = ", ".join(f"{name}={','.join(_said(point[name]) for point in points)}" for name in points[0])
    return points, said


def _said(value: Any) -> str:
    return "(" + " ".join(map(str, value)) + ")" if isinstance(value, (list, tuple)) else str(value)


def _beside(found: Widths, point: Mapping[str, int]) -> dict[str, Any]:
    """The other settings that have to go with the one given, where it is one of them."""
    for name, value in point.items():
        size = found.settings.get(name)
        if isinstance(size, int):
            return found.at(Fraction(value, size))
    return {}


def _chosen(found: Widths, analysis: Analysis) -> list[dict[str, Any]]:
    """Four widths, doubling, the narrowest growing dim of the first being some dozens wide; three where four cannot."""
    narrow = min((d.size for d in analysis.roles.dims if d.grows and d.kind != "heads"), default=NARROW[0])
    for count, least, power in itertools.product(COUNTS, NARROW, range(-12, 6)):
        factors = [Fraction(2) ** (power + k) for k in range(count)]
        if narrow * factors[0] < least or elements(analysis.roles.parameters, factors[-1]) > MOST:
            continue
        with contextlib.suppress(MupcError):  # no whole numbers
            points = [found.at(factor) for factor in factors]
            if found.keeps(points[0]):
                return points
    name, p = max(analysis.roles.parameters.items(), key=lambda item: prod(item[1].shape))
    raise MupcError(
        f"no three widths of the target are small enough to train ({name} alone is {' x '.join(map(str, p.shape))}): "
        "make other sizes smaller, vocab_size=512, or give widths, --widths n_embd=64,128,256"
    )


# Runs.


@dataclass
class _Checker:
    """Builds, measures, remembers."""

    job: Job
    asked: Options
    built: Built
    rules: RuleBase
    inputs: Inputs
    loss: Loss | None

    def run(self, points: Sequence[dict[str, Any]], said: str) -> Check:
        asked = self.asked
        steps = None if asked.regime == "linear" else asked.steps
        runs: dict[int, list[Measured]] = {}
        small = self.live(points[0], 0)
        large = self.live(points[1], 0)
        ratio = _ratio(small, large)
        _alike(small, large, points[:2])
        for at, point in enumerate(points):
            width = _width(point, at)
            for seed in range(asked.seeds):
                key = self.key(point, seed)
                found = None if asked.fresh else _remembered(key)
                if found is None:
                    _say(f"width {width}, seed {seed}: building and measuring")
                    found = measure(self.scene(point, seed, small), steps=steps, lr=asked.lr, seed=seed)
                    _remember(key, found)
                runs.setdefault(width, []).append(found)
        predicted, setup, notes = self.predicted(small, large, ratio)
        return checked(
            large.analysis, predicted, runs, target=self.job.target, setup=setup, steps=0 if steps is None else steps,
            how=said, notes=notes,
        )  # fmt: skip

    def live(self, point: Mapping[str, Any], seed: int) -> Live:
        """The target at one width, with values and its optimizer."""
        torch.manual_seed(seed)
        with real():
            model, optimizer = self.built.remake(point)
        model = unwrapped(model)
        if self.asked.optimizer_config is not None:
            try:
                optimizer = configured(self.asked.optimizer_config)(model)
            except (Exception, SystemExit) as error:
                raise TargetError(blame(error)) from error
        return Live(model, optimizer, _analyzed(model, self.inputs, self.job, self.built.sizes))

    def scene(self, point: Mapping[str, Any], seed: int, base: Live) -> Scene:
        live = self.live(point, seed)
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
            rule_of = {type(o).__name__: rule_named(type(o).__name__, self.rules) for o in optimizers(live.optimizer)}
            knobs = of_optimizer(live.analysis, live.model, live.optimizer, rule_of, self.rules, _unit(base.optimizer))
            if not knobs:
                raise MupcError(f"no rule for {', '.join(rule_of)}: name one, --optimizer adamw, or add a rules file")
        else:
            knobs = shared(live.analysis, self.rules.optimizer(self.asked.optimizer), self.rules)
        return Scene(live.model, live.analysis, named, knobs, self.loss, scales, multipliers)

    def plan(self, base: Live, live: Live) -> Plan:
        """The parametrization's, with the smallest width as its base."""
        pairs = counterparts(list(live.analysis.roles.parameters), set(base.analysis.roles.parameters))
        dims = moved_dims(base.analysis, live.analysis, pairs)
        return make_plan(
            live.analysis, base={d.name: d.base for d in dims if d.grows}, optimizer=self.asked.optimizer,
            parametrization=self.asked.parametrization or "mup", rulebase=self.rules,
        )  # fmt: skip

    def predicted(self, small: Live, large: Live, ratio: Fraction) -> tuple[Flow, str, list[str]]:
        """What flow says of the same set-up."""
        numbers = probed(small.analysis, large.analysis, ratio)
        notes = [f"a number that may go with width, taken as none: {place}" for place in numbers.unknown]
        asked = self.asked
        if asked.parametrization is not None:
            plan = self.plan(large, large)
            ray = Ray(depths=frozenset(d.name for d in plan.dims if d.kind == "depth"))
            setup = from_plan(plan, large.analysis.roles, self.rules, ray, numbers.powers)
            notes.append("init drawn by the plan's formula, biases zero; the smallest width is the base")
            return flow(large.analysis, setup, ray), f"{asked.parametrization}, {asked.optimizer}", notes
        standing = from_twins(small, large, ratio, self.rules, asked.optimizer, numbers.powers)
        notes += [f"init not known: {line}" for line in standing.unread]
        kind = "as it stands, rates of its own" if small.optimizer is not None else "as it stands, one rate for all"
        return flow(large.analysis, standing.setup, Ray()), f"{kind}, {standing.optimizer}", notes

    def key(self, point: Mapping[str, Any], seed: int) -> Path:
        """Where one measurement is kept: under everything that it depends on."""
        import mupc

        place = self.job.target.partition(":")[0]
        sources = [place, *(p.partition(":")[0] for p in (self.asked.loss, self.asked.data,
                                                          self.asked.optimizer_config) if p)]  # fmt: skip
        code = [Path(p).read_text(encoding="utf-8") for p in sources if Path(p).is_file()]
        asked = {k: v for k, v in asdict(self.asked).items() if k not in ("widths", "seeds", "fresh")}
        what = json.dumps([self.job.target, self.job.settings, self.job.inputs, self.job.fixed, self.job.scaling, asked,
                           point, seed, code, torch.__version__, mupc.__version__], default=str)  # fmt: skip
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return root / "mupc" / "check" / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.json"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a child's progress


def _ratio(small: Live, large: Live) -> Fraction:
    """By how much the growing axes differ."""
    for name, p in large.analysis.roles.parameters.items():
        then = small.analysis.roles.parameters.get(name)
        for at, (size, grows) in enumerate(zip(p.shape, p.infinite, strict=False)):
            if grows and then is not None and then.shape[at] != size:
                return Fraction(size, then.shape[at])
    raise MupcError("both widths give one model: the setting does not scale it")


def _unit(optimizer: object | None) -> float:
    """The largest rate at the smallest width."""
    groups = [group for one in optimizers(optimizer) for group in one.param_groups]
    return max((float(group["lr"]) for group in groups), default=1.0) or 1.0


def _alike(small: Live, large: Live, points: Sequence[Mapping[str, Any]]) -> None:
    """At the smallest width an axis of size one is no dim: roles may be others there, and nothing could be compared."""
    for name, p in large.analysis.roles.parameters.items():
        then = small.analysis.roles.parameters.get(name)
        if then is not None and then.role != p.role:
            sizes = ", ".join(f"{k}={_said(v)}" for k, v in points[0].items())
            raise MupcError(f"{name} is {then.role} at {sizes} and {p.role} at the next width: start wider")


def _width(point: Mapping[str, Any], at: int) -> int:
    """What stands on the axis of a plot: the largest of the settings."""
    sizes = [v for v in point.values() if isinstance(v, int)] + [max(v) for v in point.values() if isinstance(v, list)]
    return max(sizes, default=at)


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


def _remembered(path: Path) -> Measured | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Measured(
            {n: Sample(*v) for n, v in kept["values"].items()},
            {n: Weighed(*v) for n, v in kept["weights"].items()},
            kept["loss"],
            kept["effects"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path, found: Measured) -> None:
    kept = {
        "values": {n: [s.init, s.change, s.effective, s.propagating, s.grad] for n, s in found.values.items()},
        "weights": {n: [w.size, w.step, w.grad] for n, w in found.weights.items()},
        "loss": found.loss,
        "effects": dict(found.effects),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(kept), encoding="utf-8")
        draft.replace(path)
    except OSError:
        return  # what is not remembered is measured again
