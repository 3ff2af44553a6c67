"""Is a value weight or data, and what does an op do with the weights among its operands?"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import cast

from torch import fx

from mupc.dims.atoms import Axis
from mupc.dims.modulated import follow
from mupc.dims.records import DATA, NEUTRAL, POSITIONAL, WEIGHT, Folded, RawUse, Trail, Weight
from mupc.ops import signature_of
from mupc.ops.table import called
from mupc.signature import Signature

MATRIX = {"in", "kernel", "lookup"}


def track(state: Folded, node: fx.Node, signature: Signature, sources: list[fx.Node], env: dict[str, Axis]) -> None:
    """Decide what the result is (weight, data, neutral) and note the uses of the weights among the operands."""
    op = called(node.target)
    if op in POSITIONAL:
        state.status[node] = DATA
        return
    if signature.kind == "factory":
        state.status[node] = NEUTRAL
        state.constant.add(node)
        return
    valued = _valued(op, sources)
    if state.constant.issuperset(valued):
        state.constant.add(node)
    status = [state.status[source] for source in valued]
    made = [source for source, its in zip(valued, status, strict=True) if its != NEUTRAL]
    if made and state.given.issuperset(made):
        state.given.add(node)
    weights = [i for i, its in enumerate(status) if its == WEIGHT]
    if not weights:
        state.status[node] = NEUTRAL if _number(state, node) else max(status, default=NEUTRAL)
        _activations(state, node, signature, sources, env)
        follow(state, node, signature, sources, env)
        return
    if _stays_weight(signature, op, status, weights) or _moved(state, signature, sources, weights):
        state.status[node] = WEIGHT
        _derive(state, node, signature, sources, weights, env)
        return
    state.status[node] = DATA
    if _number(state, node):
        state.status[node] = NEUTRAL
        return
    for i in weights:
        _use(state, node, op, signature, sources, i, env)
    _activations(state, node, signature, sources, env)
    follow(state, node, signature, sources, env)


def _valued(op: str, sources: list[fx.Node]) -> list[fx.Node]:
    """The operands whose values are read; of the second one of `view_as` and its like only the shape is."""
    return sources[:1] if op.endswith("_as") else sources


def _number(state: Folded, node: fx.Node) -> bool:
    """No axis is left, and no inputs nor positions went in: a weight's norm, buffers being its singular vectors."""
    if node not in state.constant or any(axis for tensor in state.tensors[node] for axis in tensor):
        return False
    state.numbers.add(node)
    return True


def _stays_weight(signature: Signature, op: str, status: list[int], weights: list[int]) -> bool:
    """Only parameters went in, or neutral values along axes the weight already has."""
    if signature.kind == "recurrent" or DATA in status:
        return _picks_matrix(signature, weights)
    if signature.kind == "index" and len(signature.operands) > 1 and signature.marks:
        return _picks_matrix(signature, weights)
    if signature.words or _takes_input(op):
        return False
    if len(weights) == len(status):
        return True
    if signature.kind in ("normalise",):
        return False
    held = frozenset[str]().union(*(signature.held[i] for i in weights))
    neutral = frozenset[str]().union(*(labels for i, labels in enumerate(signature.held) if i not in weights))
    contracted = held & neutral - signature.out
    return not contracted and not (neutral & signature.out - held)


def _moved(state: Folded, signature: Signature, sources: list[fx.Node], weights: list[int]) -> bool:
    """A weight plus an update of its own shape that no input went into (theta_0 + P theta') is that weight."""
    if signature.kind != "additive" or len(weights) == len(sources):
        return False
    ranks = {len(axes) for axes in (*signature.operands, *signature.results)}
    others = [source for i, source in enumerate(sources) if i not in weights]
    return len(ranks) == 1 and all(state.status[o] == DATA and o in state.constant for o in others)


def _takes_input(op: str) -> bool:
    """Ops whose first operand is an activation by convention, even where it is a parameter."""
    return op in ("linear", "scaled_dot_product_attention", "lstm", "gru") or op.startswith("conv")


def _picks_matrix(signature: Signature, weights: list[int]) -> bool:
    """A look-up that leaves a vector is an activation; one that leaves a matrix picks a weight (experts)."""
    if signature.kind != "index" or weights != [0] or "lookup" not in signature.marks.values():
        return False
    left = [axis for axis in signature.flat[0] if axis and not any(signature.marks.get(x) == "lookup" for x in axis)]
    return len(left) >= 2


def _trails(weight: Weight, axes: tuple[tuple[str, ...], ...]) -> dict[str, Trail]:
    """Where each label of a weight operand came from."""
    out: dict[str, Trail] = {}
    for axis, trail in zip(axes, weight.trails, strict=False):
        for label in axis:
            out[label] = out[label] | trail if label in out else trail
    return out


def _derive(
    state: Folded, node: fx.Node, signature: Signature, sources: list[fx.Node], weights: list[int], env: dict[str, Axis]
) -> None:
    held: dict[str, Trail] = defaultdict(frozenset)
    parameters: frozenset[str] = frozenset()
    for i in weights:
        weight = state.weights.get(sources[i])
        if weight is None:
            continue
        parameters |= weight.parameters
        for label, trail in _trails(weight, signature.flat[i]).items():
            held[label] |= trail
    for before, after in signature.regroups:
        trail = frozenset[tuple[str, int]]().union(*(held[label] for label in before))
        held.update(dict.fromkeys(after, trail))
    if signature.kind == "multilinear" and len(weights) > 1:
        state.factors |= {place for label, trail in held.items() if label not in signature.out for place in trail}
    axes = signature.made[0] if signature.made else ()
    trails = tuple(frozenset().union(*(held.get(label, frozenset()) for label in axis)) for axis in axes)
    state.weights[node] = Weight(parameters, trails)
    if signature.kind == "index":
        for i in weights:
            for label in _trails(state.weights[sources[i]], signature.flat[i]):
                if signature.marks.get(label) == "lookup":
                    state.marks["experts"].append(env[label])


def _use(
    state: Folded, node: fx.Node, op: str, signature: Signature, sources: list[fx.Node], i: int, env: dict[str, Axis]
) -> None:
    """One word per label of a weight operand: contracted with the others (`in`), new (`out`), in both (`batch`)."""
    weight = state.weights.get(sources[i])
    if weight is None:
        return
    spoken, contracts = _spoken(signature, i, op)
    words: dict[str, dict[int, tuple[tuple[str, Axis], ...]]] = {p: {} for p in sorted(weight.parameters)}
    for labels, trail in zip(spoken, weight.trails, strict=False):
        entries = tuple([(word, env[label]) for label, word in labels])
        for parameter, at in trail if entries else ():
            words[parameter][at] = words[parameter].get(at, ()) + entries
    own = {p: {word for entries in axes.values() for word, _ in entries} for p, axes in words.items()}
    matrix = not all(map(MATRIX.isdisjoint, own.values()))
    for parameter, found in words.items():
        axes = tuple([found.get(at, ()) for at in range(max(found, default=-1) + 1)])
        acts = not MATRIX.isdisjoint(own[parameter]) or (
            "out" in own[parameter] and not matrix
        )  # else a norm's scale within a matrix
        state.uses.append(RawUse(parameter, node, op, axes, contracts and acts))


_Spoken = tuple[tuple[tuple[tuple[str, str], ...], ...], bool]


def _spoken(signature: Signature, i: int, op: str) -> _Spoken:
    """Per axis of an operand, its labels with their words; and does the op contract or look up with it?

    A parameter fed to a layer as its input (a learned query) is what an input layer makes.
    """
    found = signature.known.get(i)
    if found is None:
        fed = i == 0 and _takes_input(op)
        term = next((t for t in signature.terms if i in t), (i,))
        others = term if signature.kind == "multilinear" else range(len(signature.operands))
        beside = frozenset[str]().union(*(signature.held[j] for j in others if j != i))
        spoken = tuple(
            tuple((label, "out" if fed else _word(label, at, i, signature, beside)) for label in axis)
            for at, axis in enumerate(signature.flat[i])
        )
        looked = any(word == "lookup" for entries in spoken for _, word in entries)
        contracts = fed or looked or (signature.kind == "multilinear" and len(term) > 1) or i in signature.words
        found = signature.known[i] = (spoken, contracts)
    return cast(_Spoken, found)


def _rank(state: Folded, parameter: str, words: dict[tuple[str, int], list[tuple[str, Axis]]]) -> int:
    return max((k for name, k in words if name == parameter), default=-1) + 1


def _word(label: str, at: int, i: int, signature: Signature, beside: frozenset[str]) -> str:
    mark = signature.marks.get(label)
    if mark == "kernel":
        return "kernel"
    if mark == "lookup":
        return "lookup"
    if mark == "experts":
        return "batch"
    if i in signature.words:
        return "batch" if mark == "count" and signature.words[i][at] != "out" else signature.words[i][at]
    if label not in signature.out:
        return "in"
    if signature.kind in ("multilinear", "index", "additive"):
        return "batch" if label in beside else "out"
    return "batch"


def _activations(
    state: Folded, node: fx.Node, signature: Signature, sources: list[fx.Node], env: dict[str, Axis]
) -> None:
    """Note the dims contracted between two different activations, by a product or by a product and a later sum."""
    if signature.kind != "multilinear":
        return
    out, labels = signature.out, signature.held
    constant = state.marks["constant"]
    status = [state.status[source] for source in sources]
    for term in signature.terms:
        data = [i for i in term if status[i] == DATA]
        fixed = [i for i in term if status[i] == NEUTRAL]
        if not data or (len(data) == 1 and not fixed):
            continue
        held = frozenset[str]().union(*(labels[i] for i in term if status[i] == WEIGHT))
        for a in range(len(data)):
            for b in range(a + 1, len(data)):
                i, j = data[a], data[b]
                if sources[i] is sources[j]:
                    continue
                left, right = labels[i], labels[j]
                inner = sorted((left & right) - out - held)
                state.contracted += [(env[label], node) for label in inner]
                if not state.given.isdisjoint((sources[i], sources[j])):  # no parameter makes features of the inputs
                    state.marks["data"] += [env[label] for label in inner]
                for own, other in ((left, right), (right, left)):
                    free = (own - other) & out
                    state.matrices += [(env[label], env[one]) for label in inner for one in free if len(free) == 1]
        read = frozenset[str]().union(*(labels[i] for i in fixed)) - out - held
        constant += [env[label] for label in sorted(read)]
    if signature.over and len(sources) >= 1:
        _summed_product(state, node, signature, sources[0], env)


def _summed_product(state: Folded, node: fx.Node, signature: Signature, source: fx.Node, env: dict[str, Axis]) -> None:
    """`(x * y).sum(axis)` is a contraction: find the product behind the sum and note it as one."""
    hops = 0
    while source.op == "call_function" and source.target is not operator.getitem and hops < 4:
        inner = signature_of(source)
        if inner.kind == "multilinear" and len(inner.terms) == 1 and len(inner.terms[0]) > 1:
            break
        if inner.kind != "layout" or inner.operands[0] != inner.results[0] or len(inner.operands) != 1:
            return
        source = state.sources[source][0]
        hops += 1
    else:
        return
    reduced = [at for at, axis in enumerate(signature.flat[0]) if any(label in signature.over for label in axis)]
    gone = {label for at in reduced for label in inner.made[0][at]}
    factors = state.sources[source]
    if len(set(factors)) < 2:
        return
    having = [i for i, held in enumerate(inner.held) if not held.isdisjoint(gone)]
    if len(having) < 2:
        return
    axes_of = dict(zip((label for axis in inner.made[0] for label in axis), state.tensors[source][0], strict=False))
    data = [i for i in having if state.status[factors[i]] == DATA]
    if len(data) > 1:
        state.contracted += [(env[label], node) for at in reduced for label in signature.flat[0][at]]
    for i, factor in enumerate(factors):
        weight = state.weights.get(factor)
        if weight is None or i not in having or not data:
            continue
        words: dict[tuple[str, int], list[tuple[str, Axis]]] = defaultdict(list)
        beside = frozenset[str]().union(*(inner.held[j] for j in having if j != i))
        for axis, trail in zip(inner.flat[i], weight.trails, strict=False):
            for label in axis:
                word = "in" if label in gone else "batch" if label in beside else "out"
                for place in trail:
                    words[place].append((word, axes_of.get(label, ())))
        for parameter in sorted(weight.parameters):
            axes = tuple(tuple(words.get((parameter, k), ())) for k in range(_rank(state, parameter, words)))
            state.uses.append(RawUse(parameter, node, "mul+sum", axes, True))


def joined(state: Folded, sources: list[fx.Node]) -> int:
    return max((state.status.get(s, NEUTRAL) for s in sources), default=NEUTRAL)
