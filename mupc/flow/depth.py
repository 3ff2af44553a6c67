"""Along the depth: what residual branches add up to over L blocks, at init and by a step.

Branches of blocks with weights of their own add as L^1/2 at init, being independent; their own updates all follow the
gradient and add as L; what they pass on of changes before them adds as L^1/2 again. A block that is met L times adds
its branch as L at init too. Yang et al. 2023, Tensor Programs VI (arXiv:2310.02244); Dey et al. 2025, CompleteP
(arXiv:2505.01618). Where a branch passes its stream on at full size, without a norm, every block multiplies it: it is
geometric in depth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from torch import fx

from mupc.analysis import Analysis
from mupc.dims.records import WEIGHT
from mupc.flow.forward import Forward
from mupc.flow.powers import HALF, Power, most, times
from mupc.flow.setup import Ray, Setup
from mupc.flow.value import Value
from mupc.ops import tensor_nodes
from mupc.signature import Signature

ONE = Fraction(1)
DEPTH = Ray(width=Fraction(0), depth=ONE)


@dataclass(frozen=True, slots=True)
class Stream:
    """The residual stream behind a stack of blocks: powers of the depth L; `geometric`: every block multiplies it."""

    add: fx.Node
    tied: bool
    init: Power
    delta1: Power
    geometric: bool
    verdict: Literal["ok", "explodes", "vanishes", "geometric"]


def along_depth(analysis: Analysis, setup: Setup, steps: Mapping[str, Power]) -> list[Stream]:
    """Every stack's stream, under exponents of the depth. Empty where nothing is repeated."""
    adds = stacks(analysis)
    if not adds:
        return []
    own = _Deep(analysis, setup, steps, adds, alone=True)
    own.run()
    first = _Deep(analysis, setup, steps, adds, own=own.branches)
    first.run()
    again = _Deep(analysis, setup, steps, adds, own=own.branches, floor=first.ends())
    again.run()
    out = []
    for add in _lasts(adds):
        value, then = first.values[add], again.values[add]
        geometric = _more(then.init, value.init) or _more(then.delta1, value.delta1)
        size = most((value.init, value.delta1))
        verdict: Literal["ok", "explodes", "vanishes", "geometric"] = (
            "geometric" if geometric else "explodes" if size is not None and size > 0 else "ok"
        )
        out.append(Stream(add, adds[add].tied, value.init, value.delta1, geometric, verdict))
    return out


@dataclass(frozen=True, slots=True)
class _Add:
    stream: fx.Node
    branch: frozenset[fx.Node]
    tied: bool
    stack: str
    weights: frozenset[str]


def stacks(analysis: Analysis) -> dict[fx.Node, _Add]:
    """Residual adds inside repeated blocks, or around a block that is met again and again."""
    facts = analysis.dims_stage.facts
    members = {member: group[0] for group in analysis.blocks if len(group) > 1 for member in group}
    met: Counter[tuple[str, str]] = Counter()
    used: dict[fx.Node, frozenset[str]] = {}
    for residual in facts.residuals:
        names = {
            name for node in residual.branch for source in tensor_nodes(node)
            if facts.folded.status.get(source) == WEIGHT and source in facts.folded.weights
            for name in facts.folded.weights[source].parameters
        }  # fmt: skip
        used[residual.add] = frozenset(names)
        met.update((name, str(residual.add.meta.get("source"))) for name in names)
    found = {}
    for residual in facts.residuals:
        place = str(residual.add.meta.get("source"))
        tied = bool(used[residual.add]) and all(met[name, place] > 1 for name in used[residual.add])
        inside = [m for m in (_member(node, members) for node in (residual.add, *residual.branch)) if m is not None]
        if tied or inside:
            stack = place if tied else members[inside[0]]
            found[residual.add] = _Add(residual.stream, residual.branch, tied, stack, used[residual.add])
    return found


def _member(node: fx.Node, members: Mapping[str, str]) -> str | None:
    """The outermost repeated block that a node runs in."""
    words = str(node.meta.get("module") or "").split(".")
    paths = (".".join(words[:at]) for at in range(1, len(words) + 1))
    return next((path for path in paths if path in members), None)


def _lasts(adds: Mapping[fx.Node, _Add]) -> list[fx.Node]:
    """The last add of each stack."""
    last = {one.stack: node for node, one in adds.items()}
    return list(last.values())


def _more(now: Power, before: Power) -> bool:
    return now is not None and (before is None or now > before)


class _Deep(Forward):
    """A pass in which residual adds of a stack stand for L of them.

    `alone`: changes of the stream are left out, so that a branch holds its own weights' alone. `own` are those.
    `floor`: what the streams held at the end of an earlier pass, that they begin with here.
    """

    def __init__(
        self, analysis: Analysis, setup: Setup, steps: Mapping[str, Power], adds: Mapping[fx.Node, _Add], *,
        alone: bool = False, own: Mapping[fx.Node, Power] | None = None, floor: Mapping[str, Value] | None = None,
    ) -> None:  # fmt: skip
        inside = frozenset[str]().union(*(add.weights for add in adds.values()))
        moving = {name: step for name, step in steps.items() if name in inside} if alone else steps
        super().__init__(analysis.dims_stage, setup, DEPTH, moving)
        self.adds, self.alone, self.own, self.floor = adds, alone, own or {}, floor or {}
        self.branches: dict[fx.Node, Power] = {}

    def ends(self) -> dict[str, Value]:
        return {self.adds[node].stack: self.values[node] for node in _lasts(self.adds)}

    def additive(self, node: fx.Node, signature: Signature, sources: list[fx.Node], given: list[Value]) -> Value:
        """A residual add of a stack: one branch is L of them."""
        add = self.adds.get(node)
        pairs = list(zip(sources, given, strict=True)) if add is not None else []
        inside = [s is not add.stream if add.stream in sources else s in add.branch for s, _ in pairs] if add else []
        branches = [v for (_, v), within in zip(pairs, inside, strict=True) if within]
        streams = [v for (_, v), within in zip(pairs, inside, strict=True) if not within]
        if add is None or not branches or not streams:
            return super().additive(node, signature, sources, given)
        stream, branch = self.joined(streams), self.joined(branches)
        floor = self.floor.get(add.stack)
        if floor is not None:
            stream = replace(
                stream, init=most((stream.init, floor.init)), delta1=most((stream.delta1, floor.delta1)),
                delta=most((stream.delta, floor.delta)),
            )  # fmt: skip
        self.branches[node] = branch.delta1
        init = most((stream.init, times(branch.init, ONE if add.tied else HALF)))
        if self.alone:
            return Value(init, None, None)
        change = most((stream.delta1, times(self.own.get(node), ONE), times(branch.delta1, HALF)))
        return Value(init, change, change)
