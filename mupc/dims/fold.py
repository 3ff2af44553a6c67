"""Fold the graph over its signatures once: every tensor's axes as atoms, and every use of every parameter.

A value is a *weight* while only parameters went into it (buffers and factory values are neutral), *data* once an input,
a position or a contraction with one did. A weight remembers which axis of which parameter each of its axes came from.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch import fx

from mupc.dims.atoms import Atoms, Axis
from mupc.dims.records import DATA, NEUTRAL, WEIGHT, Folded, Tensor, Trail, Weight
from mupc.dims.uses import joined, track
from mupc.ops import signature_of, tensor_nodes
from mupc.ops.table import shapes
from mupc.signature import Axes, Signature, Sum, axis_size
from mupc.signature import Axis as Pattern
from mupc.trace import Trace


def fold(trace: Trace) -> Folded:
    """Every node once, in order."""
    state = Folded()
    names = {node: name for name, node in trace.parameters.items()}
    for node in trace.graph.nodes:
        state.atoms.node = node.name
        if node.op == "placeholder":
            _enter(state, node, names.get(node))
        elif node.op == "call_function":
            _call(state, node)
    state.atoms.settle()
    return state


def _enter(state: Folded, node: fx.Node, parameter: str | None) -> None:
    tensors = tuple(tuple(state.atoms.new(n) for n in shape) for shape in shapes(node.meta.get("val")))
    state.tensors[node] = tensors
    if parameter is not None:
        state.status[node] = WEIGHT
        state.constant.add(node)
        trails = tuple(frozenset({(parameter, i)}) for i in range(len(tensors[0])))
        state.weights[node] = Weight(frozenset({parameter}), trails)
        return
    is_input = node.meta.get("kind") == "input"
    if not is_input:
        state.constant.add(node)
    state.status[node] = DATA if is_input else NEUTRAL
    if is_input:
        state.given.add(node)
        state.marks["data"] += [axis for tensor in tensors for axis in tensor]


def _call(state: Folded, node: fx.Node) -> None:
    sources = state.sources[node] = tensor_nodes(node)
    if node.target is operator.getitem:
        source, at = node.args
        if isinstance(source, fx.Node) and isinstance(at, int):
            state.tensors[node] = _item(state, source, at, node)
            state.constant |= {node} if source in state.constant else set()
            state.given |= {node} if source in state.given else set()
            state.status[node] = state.status.get(source, NEUTRAL)
            if source in state.weights:
                weight = state.weights[source]
                state.weights[node] = Weight(weight.parameters, _fit(weight.trails, state.tensors[node]))
        return
    operands = _operands(state, sources)
    if not shapes(node.meta.get("val")):
        state.tensors[node], state.status[node] = (), joined(state, sources)
        return
    signature = signature_of(node)
    if len(operands) != len(signature.operands):
        operands = _flat(state, node)
    if signature.assumed:
        state.assumed[str(node.target)] = state.assumed.get(str(node.target), 0) + 1
    env: dict[str, Axis] = {}
    state.labels[node] = env
    for pattern, tensor in zip(signature.operands, operands, strict=True):
        _bind(state.atoms, pattern, tensor, env, signature)
    state.tensors[node] = tuple(
        [tuple([_build(state.atoms, axis, env, signature) for axis in axes]) for axes in signature.results]
    )
    for before, after in signature.regroups:
        if len(before) == len(after) == 1:  # one dim under another size: frequencies
            state.atoms.broken.append(((env[before[0]],), env[after[0]]))
            continue
        state.atoms.lost.append((tuple(a for x in before for a in env[x]), tuple(env[x] for x in after)))
    _mark(state, node, signature, sources, env)
    track(state, node, signature, sources, env)


def _operands(state: Folded, sources: list[fx.Node]) -> list[Tensor]:
    """One entry per operand; a node holding several tensors stands in `sources` once per tensor."""
    out: list[Tensor] = []
    for at, source in enumerate(sources):
        tensors = state.tensors[source]
        one = len(tensors) == 1
        out.append(tensors[0] if one else tensors[sources[:at].count(source) % len(tensors)] if tensors else ())
    return out


def _flat(state: Folded, node: fx.Node) -> list[Tensor]:
    raise AssertionError(f"{node}: operands and signature disagree")


def _item(state: Folded, source: fx.Node, at: int, node: fx.Node) -> tuple[Tensor, ...]:
    value = source.meta.get("val")
    before = shapes(value[:at]) if isinstance(value, (tuple, list)) else ()
    here = shapes(node.meta.get("val"))
    return state.tensors[source][len(before) : len(before) + len(here)]


def _bind(atoms: Atoms, axes: Axes, tensor: Sequence[Axis], env: dict[str, Axis], signature: Signature) -> None:
    sizes = signature.sizes
    for pattern, axis in zip(axes, tensor, strict=True):
        if not pattern:
            continue
        cut = len(pattern) > 1
        pieces = atoms.split(axis, tuple(axis_size((term,), sizes) for term in pattern)) if cut else [axis]
        for term, piece in zip(pattern, pieces, strict=True):
            if isinstance(term, Sum):
                laid = atoms.parts(piece, tuple(axis_size(part, sizes) for part in term.parts))
                _bind(atoms, term.parts, laid, env, signature)
            elif (known := env.setdefault(term, piece)) != piece:
                atoms.unify(known, piece)


def _build(atoms: Atoms, pattern: Pattern, env: dict[str, Axis], signature: Signature) -> Axis:
    if len(pattern) != 1:
        return tuple([atom for term in pattern for atom in _build(atoms, (term,), env, signature)])
    (term,) = pattern
    if isinstance(term, Sum):
        return atoms.cat(tuple([_build(atoms, part, env, signature) for part in term.parts]))
    if term not in env:
        env[term] = atoms.new(signature.sizes[term])
    return env[term]


def _mark(state: Folded, node: fx.Node, signature: Signature, sources: list[fx.Node], env: dict[str, Axis]) -> None:
    """Note what is special about a label; a look-up marks an axis only where a weight is looked up."""
    for label, mark in signature.marks.items():
        if label not in env:
            continue
        weight = bool(sources) and state.status.get(sources[0]) == WEIGHT
        state.marks["gathered" if mark == "lookup" and not weight else mark].append(env[label])
    if signature.kind == "opaque":
        read = (axis for source in sources for tensor in state.tensors[source] for axis in tensor)
        made = (axis for tensor in state.tensors[node] for axis in tensor)
        state.marks["opaque"] += [*read, *made]  # what goes in may be consumed behind it


def _fit(trails: tuple[Trail, ...], tensors: tuple[Tensor, ...]) -> tuple[Trail, ...]:
    """Trails of one item of a split: axes are those of the whole, or one fewer (unbind)."""
    rank = len(tensors[0]) if tensors else 0
    return trails if len(trails) == rank else trails[len(trails) - rank :]
