"""Flow's verdicts in words: what grows, what freezes, at which line; the regime; what is a mistake and what is news."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

import networkx as nx
from torch import fx

from mupc.analysis import Analysis
from mupc.dims.facts import primary
from mupc.exponents import Law, Monomial
from mupc.flow import Flow, Ray, Setup, flow
from mupc.flow.depth import Stream
from mupc.flow.numbers import Numbers
from mupc.flow.powers import Power, most
from mupc.flow.standing import Standing
from mupc.flow.verdicts import Judged, Moved, judge
from mupc.ops import tensor_nodes
from mupc.ops.table import printed
from mupc.plan.document import Activation, Finding, Movement, Plan
from mupc.plan.document import Standing as Document

Regime = str


@dataclass(frozen=True, slots=True)
class Told:
    """Everything said of one set-up; of one that could not be read (`standing` is None), `why` it could not."""

    standing: Document | None
    activations: tuple[Activation, ...] = ()
    findings: tuple[Finding, ...] = ()
    literals: Mapping[str, int] = field(default_factory=dict)
    why: str = ""

    def on(self, plan: Plan) -> Plan:
        """The plan with what was told."""
        cover = plan.coverage.model_copy(update={"literals": dict(self.literals)})
        if self.why:
            said = f"not judged as it stands: {self.why}"
            cover = cover.model_copy(update={"assumed_ops": (*cover.assumed_ops, said)})
        found = {"coverage": cover, "activations": self.activations, "findings": (*plan.findings, *self.findings)}
        return plan.model_copy(update=found)


def tell(
    analysis: Analysis, standing: Standing, numbers: Numbers, *, declared: bool, notes: Sequence[str] = (),
    streams: Sequence[Stream] = (),
) -> Told:  # fmt: skip
    """Judge a set-up along the width. Its faults are findings where a parametrization is declared, or shown by rates
    that go with width; in a plain set-up they are what will happen, and no mistake."""
    found = flow(analysis, standing.setup, Ray())
    values, moved = judge(analysis, found)
    names, causes = names_of(values), _causes(values)
    rate, frozen = _slowed(analysis, standing.setup, values, moved)
    document = Document(
        init=standing.how, optimizer=standing.optimizer, shown=standing.grouped,
        regime=regime(analysis, found, values, moved), rate=rate, causes=tuple(names[j.node] for j in causes),
        moved=tuple(_movement(m) for m in moved), frozen=tuple(_movement(m) for m in frozen),
        depth=tuple(_stream(s) for s in streams),
        notes=(*notes, *_unsure(standing, numbers, values)),
    )  # fmt: skip
    faults = (*_faults(analysis, standing, found, causes, moved), *_deep(streams))
    if not (declared or standing.grouped):
        faults = tuple(f.model_copy(update={"severity": "info", "fix": None}) for f in faults)
    head = f"as it stands (init {document.init}; {document.optimizer}): {document.regime}"
    told = Finding(code="MUP200", severity="info", message=head)
    return Told(document, tuple(_activation(j, names[j.node]) for j in values), (told, *faults), numbers.told)


def _slowed(
    analysis: Analysis, setup: Setup, values: Sequence[Judged], moved: Sequence[Moved]
) -> tuple[str, list[Moved]]:
    """The power of the largest rate that keeps all stable, and what stops learning at it; none where the init grows."""
    known = [j.value for j in values if j.verdict != "unknown"]
    if any(value.init is not None and value.init > 0 for value in known):
        return "", []
    powers = [value.delta1 for value in known if value.delta1 is not None]
    top = max((*powers, *(m.power for m in moved if m.verdict != "unknown"), Fraction(0)))
    if not top:
        return "0", []
    slower = {n: replace(w, lr=None if w.lr is None else w.lr - top) for n, w in setup.weights.items()}
    later = flow(analysis, replace(setup, weights=slower), Ray())
    return str(-top), [m for m in judge(analysis, later)[1] if m.verdict == "lazy"]


def _unsure(standing: Standing, numbers: Numbers, values: Sequence[Judged]) -> Iterator[str]:
    """What is not known, and how much that leaves unjudged."""
    yield from (f"init not known: {line}" for line in standing.unread)
    yield from (f"a number that may go with width: {place}" for place in dict.fromkeys(numbers.unknown.values()))
    left = sum(j.verdict == "unknown" for j in values)
    if left:
        yield f"{left} of {len(values)} values are not judged: something before them is not known"


def regime(analysis: Analysis, found: Flow, values: Sequence[Judged], moved: Sequence[Moved]) -> Regime:
    """Of the whole set-up, after the dynamical dichotomy (TP4, arXiv:2011.14522, Theorem 3.4)."""
    verdicts = {*(one.verdict for one in values), *(one.verdict for one in moved)}
    if "explodes" in verdicts:
        return "unstable"
    trace = analysis.dims_stage.facts.trace
    end = primary(trace)
    output = next((j for j in values if end is not None and j.node is trace.outputs[end]), None)
    if output is None or not output.value.known:
        return "unknown"
    if output.value.delta1 is None or output.value.delta1 < 0:
        return "trivial"
    features = list(_read_out(analysis, found))
    if features and all(power is None or power < 0 for power in features):
        return "kernel"
    return "feature learning"


def _read_out(analysis: Analysis, found: Flow) -> Iterator[Power]:
    """How far the features that readouts read move."""
    nodes = {node.name: node for node in found.values}
    weights = set(analysis.dims_stage.facts.trace.parameters.values())
    for p in analysis.roles.parameters.values():
        for use in p.uses:
            if use.role == "output" and use.node in nodes:
                for source in tensor_nodes(nodes[use.node]):
                    if source not in weights and source.op == "call_function":
                        yield found.values[source].delta1


def names_of(values: Sequence[Judged]) -> dict[fx.Node, str]:
    """Module and op; a number where a module has several of one kind."""
    seen: dict[str, int] = {}
    out = {}
    for one in values:
        op = printed(one.node.target).removeprefix("aten.").partition(".")[0]
        name = f"{one.node.meta.get('module') or '(model)'} {op}"
        seen[name] = seen.get(name, 0) + 1
        out[one.node] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return out


def _activation(one: Judged, name: str) -> Activation:
    value = one.value
    return Activation(
        name=name, source=place_of(one.node), init=_text(value.init), delta1=_text(value.delta1),
        delta=_text(value.delta), grad=_text(one.grad), verdict=one.verdict,
    )  # fmt: skip


def _stream(one: Stream) -> Movement:
    power = most((one.init, one.delta1))
    name = f"{one.add.meta.get('module') or '(model)'} add"
    return Movement(name=name, source=place_of(one.add), verdict=one.verdict, power=str(power or 0),
                    init=_text(one.init), delta1=_text(one.delta1))  # fmt: skip


def _deep(streams: Sequence[Stream]) -> Iterator[Finding]:
    """Blocks that are met again and again add up as L; others as they are known to, which is no mistake."""
    for one in streams:
        if one.tied and one.verdict in ("explodes", "geometric"):
            message = (
                f"one block is met L times: the stream starts at L^{one.init or 0} and moves by L^{one.delta1 or 0}"
            )
            yield _fault("MUP207", "error", message, place_of(one.add), None, "multiply the branch by 1/L")


def _movement(one: Moved) -> Movement:
    source = None if one.node is None else place_of(one.node)
    return Movement(name=one.name, source=source, verdict=one.verdict, power=str(one.power))


def _text(power: Power) -> str | None:
    return None if power is None else str(power)


def place_of(node: fx.Node) -> str | None:
    """The user's line; in a library, its own where the user has none."""
    place = node.meta.get("user_source") or node.meta.get("source")
    return None if place is None else str(place)


# Faults.


def _faults(
    analysis: Analysis, standing: Standing, found: Flow, causes: Sequence[Judged], moved: Sequence[Moved]
) -> Iterator[Finding]:
    """Parameters at their own use first, then values that no parameter at hand explains, then eps and decay."""
    told: set[fx.Node] = set()
    for one in moved:
        if one.verdict in ("explodes", "lazy") and one.node is not None:
            told.add(one.node)
            fix = f"its rate is off by n^{one.power}: multiply it by n^{-one.power}"
            code = "MUP202" if one.verdict == "explodes" else "MUP203"
            yield _fault(code, "error", one.why, place_of(one.node), one.name, fix)
    for judged in causes:
        at_init = judged.value.init is not None and judged.value.init > 0
        where = judged.node.meta.get("module") or "the model"
        if judged.verdict == "explodes" and (at_init or judged.node not in told):
            code = "MUP201" if at_init else "MUP202"
            yield _fault(code, "error", f"{where}: {judged.why}", place_of(judged.node))
        elif judged.verdict == "vanishes" and judged.node not in told:
            message = f"{where}: {judged.why}, beside values of size one"
            yield _fault("MUP204", "warning", message, place_of(judged.node))
    yield from _settings(analysis, standing, found)


def _causes(values: Sequence[Judged]) -> list[Judged]:
    """Those that are off by more than what they are made from."""
    made = _made_of({judged.node for judged in values})
    before: dict[fx.Node, Fraction] = {}
    out = []
    for judged in values:
        inherited = max((before[node] for node in nx.ancestors(made, ("into", judged.node)) if node in before),
                        default=Fraction(0))  # fmt: skip
        before[judged.node] = max(inherited, judged.power) if judged.verdict == "explodes" else Fraction(0)
        if judged.verdict not in ("ok", "unknown") and (judged.verdict != "explodes" or judged.power > inherited):
            out.append(judged)
    return out


def _made_of(judged: Set[fx.Node]) -> nx.DiGraph:
    """From operands to results. What goes into a judged value ends there: behind it the value itself begins."""
    made = nx.DiGraph()
    made.add_nodes_from(("into", node) for node in judged)
    for node in next(iter(judged)).graph.nodes if judged else ():
        if node.op == "call_function":
            end = ("into", node) if node in judged else node
            made.add_edges_from((source, end) for source in tensor_nodes(node))
    return made


def _settings(analysis: Analysis, standing: Standing, found: Flow) -> Iterator[Finding]:
    """eps against the gradient, decay against the rule's law."""
    nodes = analysis.dims_stage.facts.trace.parameters
    for name, weight in standing.setup.weights.items():
        node = nodes.get(name)
        grad = most((found.grads.get(node), found.later.get(node))) if node is not None else None
        source, rule = analysis.roles.parameters[name].source, weight.rule
        eps, decay = standing.eps.get(name), standing.decay.get(name)
        if rule.eps is not None and rule.family == "adam" and eps is not None and grad is not None and eps > grad:
            message = f"its gradient goes as n^{grad}, {rule.name}'s eps as n^{eps}: eps overtakes it"
            yield _fault("MUP205", "warning", message, source, name, f"scale eps as n^{grad}")
        if rule.weight_decay is None or decay is None or weight.lr is None:
            continue
        law = Law.parse(rule.weight_decay.law)
        sizes = {"lr": weight.lr, "grad": grad or Fraction(0), "std": weight.init or Fraction(0)}
        if not set(law.symbols) <= set(sizes):
            continue
        wanted = law.at({s: Monomial.of({s: 1}) for s in law.symbols}, sizes).degree(sizes)
        if decay != wanted:
            message = f"its decay goes as n^{decay}; at this rate {rule.name}'s keeps its strength as n^{wanted}"
            yield _fault("MUP206", "warning", message, source, name, f"scale weight_decay as n^{wanted}")


def _fault(
    code: str, severity: Literal["error", "warning"], message: str, source: str | None, parameter: str | None = None,
    fix: str | None = None,
) -> Finding:  # fmt: skip
    return Finding(code=code, severity=severity, message=message, source=source, parameter=parameter, fix=fix)
