"""What is judged, and how it is judged: values where their size matters, and every parameter at its own use.

Size matters where values of different size meet or where a function has a scale: operands of adds, inputs of functions
that are not homogeneous, outputs. The inside of a homogeneous chain is not judged: a product before the 1/width that
stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from torch import fx

from mupc.dims.facts import primary
from mupc.dims.records import DATA
from mupc.flow.powers import Power, most
from mupc.flow.value import Value
from mupc.ops import signature_of, tensor_nodes
from mupc.ops.table import printed, shapes
from mupc.signature import Signature

if TYPE_CHECKING:
    from mupc.analysis import Analysis
    from mupc.flow import Flow

ZERO = Fraction(0)
Verdict = Literal["ok", "explodes", "vanishes", "lazy", "unknown"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One value: its exponents, and what they come to. `scale`: with which power a change of it matters."""

    node: fx.Node
    value: Value
    grad: Power
    verdict: Verdict
    power: Fraction = ZERO
    why: str = ""


@dataclass(frozen=True, slots=True)
class Moved:
    """One parameter at its leading use: by which power its own update moves what it makes, and the verdict."""

    name: str
    node: fx.Node | None
    verdict: Verdict
    power: Fraction = ZERO
    why: str = ""


def judged_nodes(analysis: Analysis) -> dict[fx.Node, str]:
    """The values that are judged, in the graph's order, with what makes them matter: `add`, `function`, `output`."""
    facts = analysis.dims_stage.facts
    folded, trace = facts.folded, facts.trace
    found: dict[fx.Node, str] = {}
    for node in trace.graph.nodes:
        if node.op != "call_function" or node not in facts.live or not shapes(node.meta.get("val")):
            continue
        sources = [s for s in tensor_nodes(node) if s.op == "call_function"]
        if not sources:
            continue
        for source in matter(node, sources):
            if folded.status.get(source) == DATA:
                found.setdefault(source, _word(node))
    end = primary(trace)
    if end is not None:
        found[trace.outputs[end]] = "output"
    order = {node: at for at, node in enumerate(trace.graph.nodes)}
    return dict(sorted(found.items(), key=lambda item: order[item[0]]))


def matter(node: fx.Node, sources: list[fx.Node]) -> Iterator[fx.Node]:
    """The operands whose size matters to this op."""
    signature = signature_of(node)
    name = printed(node.target)
    if signature.kind == "additive" and len(set(tensor_nodes(node))) > 1:
        yield from sources
    elif (
        signature.kind == "recurrent"
        or (signature.kind == "pointwise" and _has_scale(signature))
        or "softmax" in name
        or "sigmoid" in name
    ):
        yield sources[0]


def _has_scale(signature: Signature) -> bool:
    """Not homogeneous, or bent at zero as relu is, where what goes in is what a layer made."""
    return signature.degree is None or (signature.degree == 1 and signature.parity is None)


def _word(node: fx.Node) -> str:
    return "add" if signature_of(node).kind == "additive" else "function"


def judge(analysis: Analysis, flow: Flow) -> tuple[list[Judged], list[Moved]]:
    """Every judged value and every parameter, under what flow found."""
    trace = analysis.dims_stage.facts.trace
    values = [_value(node, flow.values[node], flow.grads.get(node)) for node in judged_nodes(analysis)]
    values += [_scores(node, value, flow.grads.get(node)) for node, value in flow.scores.items()]
    order = {node: at for at, node in enumerate(trace.graph.nodes)}
    values.sort(key=lambda one: order[one.node])
    levels, nodes = _levels(analysis, flow), {node.name: node for node in order}
    moved = [_parameter(name, analysis, flow, levels, nodes) for name in trace.parameters]
    return values, [one for one in moved if one is not None]


def _value(node: fx.Node, value: Value, grad: Power) -> Judged:
    if not value.known:
        return Judged(node, value, grad, "unknown", why="an init, an op or a number before it is not known")
    if value.init is not None and value.init > 0:
        return Judged(node, value, grad, "explodes", value.init, f"starts at n^{value.init}")
    if value.delta1 is not None and value.delta1 > 0:
        part = "its weight's own update" if value.effective == value.delta1 else "updates before it"
        return Judged(node, value, grad, "explodes", value.delta1, f"moves by n^{value.delta1} a step, by {part}")
    size = most((value.init, value.delta1))
    if size is None:
        return Judged(node, value, grad, "ok", ZERO, "stays zero at first")
    if size < 0:
        return Judged(node, value, grad, "vanishes", size, f"starts and moves at n^{size}")
    if value.delta1 is not None and value.delta1 < 0:
        return Judged(node, value, grad, "lazy", value.delta1, f"moves by n^{value.delta1} a step")
    return Judged(node, value, grad, "ok")


def _scores(node: fx.Node, value: Value, grad: Power) -> Judged:
    """The logits inside a whole attention op: they may vanish at init, not grow."""
    if not value.known:
        return Judged(node, value, grad, "unknown", why="an init, an op or a number before it is not known")
    for power, what in ((value.init, "start"), (value.delta1, "move")):
        if power is not None and power > 0:
            return Judged(node, value, grad, "explodes", power, f"attention logits {what} at n^{power}")
    if value.delta1 is not None and value.delta1 < 0:
        gone = value.init is None or value.init < 0
        words = f"attention logits move by n^{value.delta1} a step"
        return Judged(node, value, grad, "vanishes" if gone else "lazy", value.delta1, words)
    return Judged(node, value, grad, "ok")


def _levels(analysis: Analysis, flow: Flow) -> dict[fx.Node, Fraction]:
    """With which power a value's entries may be, for what is judged behind it to be of size one.

    Numbers and layout lie between a value and where it is judged; anything else ends the chain, at size one.
    """
    trace = analysis.dims_stage.facts.trace
    levels: dict[fx.Node, Fraction] = {}
    for node in reversed(list(trace.graph.nodes)):
        if node.op != "call_function":
            continue
        readers = [user for user in node.users if user.op == "call_function"]
        found = []
        for user in readers:
            signature = signature_of(user) if shapes(user.meta.get("val")) else None
            by = flow.numbers.get(user.name, ZERO)
            alone = signature is not None and len(set(tensor_nodes(user))) == 1
            passes = signature is not None and alone and (
                signature.kind == "layout" or (signature.kind in ("multilinear", "pointwise") and not signature.over
                                               and signature.degree == 1 and not signature.bounded)
            )  # fmt: skip
            found.append(levels.get(user, ZERO) - by if passes else ZERO)
        levels[node] = max(found, default=ZERO)
    return levels


def _parameter(
    name: str, analysis: Analysis, flow: Flow, levels: Mapping[fx.Node, Fraction], nodes: Mapping[str, fx.Node]
) -> Moved | None:
    """Its own update's share of what it makes: the effective part, where no other use of it is larger."""
    p = analysis.roles.parameters.get(name)
    if p is None or p.role in ("unused", "unknown") or name not in flow.steps:
        return None
    first: tuple[Fraction, fx.Node] | None = None
    later: tuple[Fraction, fx.Node] | None = None
    for use in p.uses:
        node = nodes.get(use.node)
        key = name, use.node
        if node is None or flow.effects_later.get(key) is None:
            continue
        level = levels.get(node, ZERO)
        now, then = flow.effects.get(key), flow.effects_later[key]
        if now is not None and (first is None or now - level > first[0]):
            first = now - level, node
        if then is not None and (later is None or then - level > later[0]):
            later = then - level, node
    if later is None:
        return Moved(name, None, "unknown" if flow.steps[name] is None else "ok")
    if not all(flow.values[node].known for node in (first[1] if first else later[1], later[1])):
        return Moved(name, later[1], "unknown", why="what it meets is not known")
    if first is not None and first[0] > 0:
        return Moved(name, first[1], "explodes", first[0], f"its update moves what it makes by n^{first[0]} a step")
    if later[0] < 0:
        return Moved(name, later[1], "lazy", later[0], f"its update moves what it makes by n^{later[0]} a step")
    return Moved(name, later[1], "ok")
