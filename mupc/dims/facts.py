"""What the fold's records say about each unsplit atom: who makes it, who consumes it, what is special about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import permutations

from torch import fx

from mupc.dims.atoms import Atom, Axis
from mupc.dims.records import DATA, Folded, RawUse
from mupc.structure import Residual, additions, merges, reaching, residuals
from mupc.trace import Trace


@dataclass(slots=True)
class Fact:
    """Everything seen of one atom. Nodes are evidence; the first of each is quoted in a `why`."""

    produced: list[RawUse] = field(default_factory=list)  # an `out` axis of a contraction or look-up
    consumed: list[RawUse] = field(default_factory=list)  # contracted with data
    carried: list[RawUse] = field(default_factory=list)  # in both: gains, depthwise, experts
    contracted: list[fx.Node] = field(default_factory=list)  # between activations
    marks: set[str] = field(default_factory=set)

    @property
    def scales(self) -> bool:
        """A parameter makes it and a parameter consumes it."""
        return bool(self.produced and self.consumed)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts by atom, the parts of sums, and every product of atoms that stands on an axis of a parameter."""

    folded: Folded
    trace: Trace
    of: dict[Atom, Fact]
    parts: dict[Atom, tuple[Atom, ...]]  # atom -> atoms of its parts, for sums
    products: tuple[Axis, ...]  # but for written matrices between widths of the network itself
    spread: tuple[Axis, ...]  # the same, laid over several axes of one weight: (d, h, hd) makes h x hd
    batched: tuple[Axis, ...]  # the same, where one axis is batched over: (h, hd, rank) makes h x rank of h x hd
    alone: frozenset[Atom]  # atoms that are a whole axis of some parameter
    live: frozenset[fx.Node]  # nodes that an output depends on
    residuals: tuple[Residual, ...]
    streams: frozenset[Atom]  # dims along which a branch is added to its stream, or two layers' values to each other

    def evidence(self, atom: Atom) -> list[fx.Node]:
        """Where activations contract it, or a part of it."""
        return self.of[atom].contracted or [n for p in self.parts.get(atom, ()) for n in self.of[p].contracted]


def gather(trace: Trace, folded: Folded) -> Facts:
    """Expand every record to unsplit atoms; what is said of a sum is said of its parts."""
    of: dict[Atom, Fact] = defaultdict(Fact)
    parts: dict[Atom, tuple[Atom, ...]] = {}
    below = _Below(folded, parts)
    live = _live(trace, folded)
    for use in folded.uses:
        if use.node not in live:
            continue
        for entries in use.axes:
            for word, axis in entries:
                for atom in below(axis):
                    _note(of[atom], word, use)
    for mark, axes in folded.marks.items():
        for axis in axes:
            for atom in below(axis):
                of[atom].marks.add(mark)
    modulated = _modulated(folded, below)
    for axis, node in folded.contracted:
        for atom in below(axis):
            if (node, atom) not in modulated:
                of[atom].contracted.append(node)
    products: dict[Axis, None] = {}
    alone: set[Atom] = set()
    _carry_over(folded, of, below, products)
    for node in trace.parameters.values():
        for axis in folded.tensors[node][0]:
            below(axis)
            _products(folded, folded.atoms.expand(axis), products, alone)
    written = _written(folded, below, products)
    _generated(written, of)
    _ends(trace, folded, of, below)
    residual, merged = _adds(trace, folded)
    adds = [r.add for r in residual] + list(merged)
    streams = {a for add in adds for tensor in folded.tensors[add] for axis in tensor for a in below(axis)}
    one = [{*below(whole[0]), *below(other)} for whole, other in folded.atoms.broken if len(whole) == 1]
    for pair in (*one, *reversed(one)):  # a stream under another size (its frequencies) is one
        if not streams.isdisjoint(pair):
            streams |= pair
    spread = _spread(folded)
    mixed = {pair for pair in written if pair[0] in alone and all(of[a].scales for a in pair)}
    return Facts(
        folded,
        trace,
        of,
        parts,
        tuple(p for p in products if mixed.isdisjoint(permutations(p, 2))),
        tuple(spread),
        tuple(_spread(folded, ("batch",))),
        frozenset(alone),
        live,
        residual,
        frozenset(streams),
    )


def _live(trace: Trace, folded: Folded) -> frozenset[fx.Node]:
    """What outputs depend on other than through numbers; through numbers too where a parameter has no other use."""
    everything = reaching(trace)
    if not folded.numbers:
        return everything
    live = reaching(trace, folded.numbers)
    used = {use.parameter for use in folded.uses if use.node in live}
    return live if used >= {use.parameter for use in folded.uses if use.node in everything} else everything


def _adds(trace: Trace, folded: Folded) -> tuple[tuple[Residual, ...], tuple[fx.Node, ...]]:
    """Residual adds whose branch holds a layer (x + 0.04 x^3 is none), and adds of two layers' values."""

    def is_data(node: fx.Node) -> bool:
        return folded.status.get(node) == DATA

    layers = {use.node for use in folded.uses if use.contracts}
    looked = {use.node for use in folded.uses if any(w == "lookup" for entries in use.axes for w, _ in entries)}
    adds = list(additions(folded.sources, is_data))
    found = residuals(trace.graph, adds, is_data)
    branches = tuple(r for r in found if not layers.isdisjoint(r.branch))
    return branches, merges(adds, is_data, layers - looked)


def _modulated(folded: Folded, below: _Below) -> set[tuple[fx.Node, Atom]]:
    """Contractions with a weight that data had scaled along that very axis: the weight's use, not two activations'."""
    first = {(use.parameter, use.node): use for use in folded.uses}

    def spoken(use: RawUse, word: str) -> set[Atom]:
        return {a for entries in use.axes for said, axis in entries if said == word for a in below(axis)}

    found = set()
    for key, use in folded.then.items():
        if key in first:
            found |= {(use.node, atom) for atom in spoken(first[key], "batch") & spoken(use, "in")}
    return found


def _carry_over(folded: Folded, of: dict[Atom, Fact], below: _Below, products: dict[Axis, None]) -> None:
    """A regrouping that does not line up loses which place is which, not who makes and who consumes the whole."""
    lost = [(below(axis), [folded.atoms.expand(p) for p in pieces]) for axis, pieces in folded.atoms.lost]
    for old, pieces in lost:
        finite = [atom for atom in old if of[atom].marks & {"data", "kernel", "lookup"}]
        made = any(of[atom].produced for atom in old if atom not in finite)  # which piece has it is not known
        for atom in (a for piece in pieces for a in piece):
            if finite:
                of[atom].marks.add("opaque" if made else "data")
            for before in old:
                of[atom].produced += [use for use in of[before].produced if use not in of[atom].produced]
    for old, pieces in reversed(lost):
        for atom in (a for piece in pieces for a in piece):
            for before in old:
                of[before].consumed += [use for use in of[atom].consumed if use not in of[before].consumed]
        products[tuple(a for piece in pieces for a in piece)] = None
    for parts, factors in (*folded.atoms.broken, *reversed(folded.atoms.broken)):
        _share(of, dict.fromkeys(a for axis in (*parts, factors) for a in below(axis)))


def _written(folded: Folded, below: _Below, products: Iterable[Axis]) -> list[tuple[Atom, Atom]]:
    """Pairs of factors of one axis that are a matrix which a network wrote: contracted with the first, a value gets the
    second (a generated network's weights, a bank of convolutions mixed for each sample)."""
    beside = {pair for product in products for pair in permutations(product, 2)}
    matrices = [(inner, free) for inner, free in folded.matrices if len(folded.atoms.expand(free)) == 1]
    pairs = dict.fromkeys((a, b) for inner, free in matrices for a in below(inner) for b in below(free))
    return [pair for pair in pairs if pair in beside]


def _generated(written: Iterable[tuple[Atom, Atom]], of: dict[Atom, Fact]) -> None:
    """Mark the widths of a network whose weights another network writes.

    Such a dim is made from the inputs or from one that is marked, by a written matrix, and is contracted by the next;
    no weight reads it.
    """
    pairs = [(a, b) for a, b in written if of[b].contracted and not of[b].consumed]
    found: set[Atom] = set()
    while more := {b for a, b in pairs if a == b or a in found or "data" in of[a].marks} - found:
        found |= more
    for atom in found:
        of[atom].marks.add("generated")


def _share(of: dict[Atom, Fact], atoms: Iterable[Atom]) -> None:
    """Factors cut across parts: what is made or consumed of one may be of any; where one is finite nothing is said."""
    shared = [of[atom] for atom in atoms]
    if any(fact.marks & {"data", "kernel", "lookup"} for fact in shared):
        return
    produced = list(dict.fromkeys(use for fact in shared for use in fact.produced))
    consumed = list(dict.fromkeys(use for fact in shared for use in fact.consumed))
    for fact in shared:
        fact.produced, fact.consumed = list(produced), list(consumed)


class _Below:
    """All atoms of an axis, and of the parts of its sums."""

    def __init__(self, folded: Folded, parts: dict[Atom, tuple[Atom, ...]]) -> None:
        self.atoms, self.parts, self.known = folded.atoms, parts, {}  # type: ignore[var-annotated]

    def __call__(self, axis: Axis) -> tuple[Atom, ...]:
        leaves = self.atoms.expand(axis)
        if len(leaves) == 1:
            return self.atom(leaves[0])
        return tuple(dict.fromkeys(a for leaf in leaves for a in self.atom(leaf)))

    def atom(self, atom: Atom) -> tuple[Atom, ...]:
        found = self.known.get(atom)
        if found is None:
            self.known[atom] = (atom,)  # a sum is never a part of itself
            inner: list[Atom] = []
            for way in self.atoms.sums[atom]:
                for part in way:
                    inner += self(part)
            if inner:
                self.parts[atom] = tuple(dict.fromkeys(inner))
            found = self.known[atom] = (atom, *dict.fromkeys(inner))
        return found


def _note(fact: Fact, word: str, use: RawUse) -> None:
    if word == "in":
        fact.consumed.append(use)
    elif word == "out" and use.contracts:
        fact.produced.append(use)
    elif word in ("batch", "out"):
        fact.carried.append(use)
    else:
        fact.marks.add(word)  # kernel, lookup


def _products(folded: Folded, axis: Axis, products: dict[Axis, None], alone: set[Atom]) -> None:
    if len(axis) > 1:
        products[axis] = None
    else:
        alone.update(axis)
    for atom in axis:
        for way in folded.atoms.sums[atom]:
            for part in way:
                inner = folded.atoms.expand(part)
                if len(inner) > 1 or folded.atoms.sums[inner[0]] if inner else False:
                    _products(folded, inner, products, alone)


def _spread(folded: Folded, also: tuple[str, ...] = ()) -> dict[Axis, None]:
    """Atoms that one side of a contraction has on several axes of its weight; `also` are words that count as a side."""
    out: dict[Axis, None] = {}
    for use in folded.uses:
        if not use.contracts or sum(map(len, use.axes)) < 3:
            continue
        sided = [(word, folded.atoms.expand(axis)) for entries in use.axes for word, axis in entries]
        if not {"in", "out", *also} <= {word for word, _ in sided} if also else False:
            continue
        for side in ("in", "out"):
            axes = [axis for word, axis in sided if word in (side, *also)]
            if len(axes) > 1:
                out[tuple(atom for axis in axes for atom in axis)] = None
    return out


HIDDEN = ("last_hidden_state", "hidden_states", "hidden_state")


def primary(trace: Trace) -> str | None:
    """The output that ends the network: the one named logits, else the first that is no loss."""
    names = list(trace.outputs)
    named = [n for n in names if n.split(".")[0].endswith("logits")]
    rest = [n for n in names if n.split(".")[0] != "loss"]
    return next(iter(named + rest), None)


def _ends(trace: Trace, folded: Folded, of: dict[Atom, Fact], below: _Below) -> None:
    """Mark the axes of outputs: the primary output's are `output`, the others' `returned`.

    What a model returns by the name of a hidden state is one: its features, the last axis or an image's second, are a
    `stream` (a backbone without a head).
    """
    first = primary(trace)
    for name, node in trace.outputs.items():
        if folded.status.get(node) != DATA:
            continue
        hidden = name == first and name.rpartition(".")[2] in HIDDEN
        for tensor in folded.tensors[node]:
            features = 1 if len(tensor) > 3 else len(tensor) - 1
            for at, axis in enumerate(tensor):
                mark = "stream" if hidden and at == features else "output" if name == first else "returned"
                for atom in below(axis):
                    of[atom].marks.add(mark)
