"""Finer names within a role: from attention's operands, the residual stream, and the axes' kinds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx

from mupc.dims import Dims
from mupc.dims.atoms import Atom
from mupc.dims.records import DATA, RawUse
from mupc.ops import signature_of
from mupc.ops.table import printed, shapes

REACH = 64  # nodes looked at between attention and the weights around it


@dataclass(frozen=True, slots=True)
class Attention:
    """Activations: `scores` are made of the first two, `out` of them and the third; one node in a whole op."""

    query: fx.Node
    key: fx.Node
    value: fx.Node
    scores: fx.Node
    out: fx.Node


class SubRoles:
    """Answers for one model; attention and streams are found once."""

    def __init__(self, dims: Dims) -> None:
        self.dims = dims
        facts = dims.facts
        self.inputs = set(facts.trace.inputs.values())
        self.makers: dict[fx.Node, set[str]] = defaultdict(set)
        for use in facts.folded.uses:
            if use.contracts and any(word == "in" for entries in use.axes for word, _ in entries):
                self.makers[use.node].add(use.parameter)
        self.attention: dict[str, set[str]] = defaultdict(set)
        for found in self.attentions():
            for word, node in (("query", found.query), ("key", found.key), ("value", found.value)):
                for parameter in self.makers_of(node):
                    self.attention[parameter].add(word)
            for parameter in self._after(found.out):
                self.attention[parameter].add("attn_out")
        self.stream = {
            atom
            for residual in facts.residuals
            for tensor in facts.folded.tensors[residual.add]
            for axis in tensor
            for atom in facts.folded.atoms.expand(axis)
        }

    def of(self, use: RawUse, role: str, rank: int, kinds: tuple[str, ...], branch: bool) -> str | None:
        """One of DESIGN.md section 5's sub-roles, or None where nothing says so."""
        words = {word for entries in use.axes for word, _ in entries}
        if role == "input" and "lookup" in words:
            return "positional" if self._by_position(use) else "embedding"
        if role == "input" and not use.contracts:
            return "positional"
        if role in ("vector", "scalar"):
            return self._vector(use, kinds, rank, words)
        if len(self.attention.get(use.parameter, ())) == 1:
            return next(iter(self.attention[use.parameter]))
        if "experts" in kinds and rank > 2:
            enters, leaves = self._within_stream(use, "in"), self._within_stream(use, "out", besides="experts")
            return "expert_in" if enters else "expert_out" if leaves else None
        if "experts" in kinds:
            return "router" if role in ("output", "hidden") else None
        if self._rank(use, "out"):
            return "lora_a"
        if self._rank(use, "in"):
            return "lora_b"
        if use.op.startswith("conv") and rank > 2:
            return "conv"
        if role == "hidden" and branch and not self.attention.get(use.parameter):
            enters, leaves = self._within_stream(use, "in"), self._within_stream(use, "out")
            return "mlp_in" if enters and not leaves else "mlp_out" if leaves and not enters else None
        return None

    def _by_position(self, use: RawUse) -> bool:
        """Are the rows picked by where they are needed (arange, a table of distances), and by nothing that is put in?

        An embedding's ids may be of no known origin (a buffer); then they are ids.
        """
        folded = self.dims.facts.folded
        todo = [s for s in folded.sources[use.node] if s not in folded.weights and folded.status.get(s) == DATA]
        if not todo:
            return not use.op.startswith("embedding")
        seen = set(todo)
        while todo:
            node = todo.pop()
            if node in self.inputs:
                return False
            new = [s for s in self._data(node) if s not in seen]
            seen.update(new)
            todo += new
        return True

    def _rank(self, use: RawUse, word: str) -> bool:
        """Is that side of the contraction one rank dim, not a part of a fused axis?"""
        atoms, kinds = self._atoms(use, word), self.dims.kinds
        alone = len(atoms) == 1 and atoms[0] not in self.dims.facts.parts and atoms[0] in kinds
        return alone and kinds[atoms[0]].kind == "rank"

    def _within_stream(self, use: RawUse, word: str, besides: str = "") -> bool:
        """Is that side of the contraction the residual stream, dims of the kind `besides` left aside?"""
        kinds = self.dims.kinds
        atoms = [a for a in self._atoms(use, word) if not (a in kinds and kinds[a].kind == besides)]
        return bool(atoms) and all(a in self.stream for a in atoms)

    def _atoms(self, use: RawUse, word: str) -> list[Atom]:
        expand = self.dims.facts.folded.atoms.expand
        return [a for entries in use.axes for w, axis in entries if w == word for a in expand(axis)]

    def _vector(self, use: RawUse, kinds: tuple[str, ...], rank: int, words: set[str]) -> str | None:
        if "inner" in kinds and rank > 1 and not {"in", "out"} <= words:  # a matrix of fixed dims is no state
            return "ssm_state"
        if use.contracts:
            return "conv" if use.op.startswith("conv") else None
        return "gain" if self._multiplies(use) else "bias"

    def _multiplies(self, use: RawUse) -> bool:
        """Does the parameter, or what was made of it (1 + w), multiply another operand?"""
        signature, folded = signature_of(use.node), self.dims.facts.folded
        weights = map(folded.weights.get, folded.sources[use.node])
        held = (i for i, weight in enumerate(weights) if weight and use.parameter in weight.parameters)
        return signature.kind != "recurrent" and any(
            len(term) > 1 and i in term for i in held for term in signature.terms
        )

    def attentions(self) -> Iterable[Attention]:
        """Whole ops, and products on both sides of a softmax."""
        for node in self.dims.facts.trace.graph.nodes:
            if node.op != "call_function":
                continue
            name = printed(node.target)
            if "scaled_dot_product" in name:
                query, key, value = self.dims.facts.folded.sources[node][:3]
                yield Attention(query, key, value, node, node)
            elif name.startswith(("aten.softmax", "aten._softmax", "aten._safe_softmax")):
                scores = self._back(node, lambda n: self._pair(n) is not None)
                mixed = self._forward(node, lambda n: self._pair(n) is not None)
                if scores is not None and mixed is not None:
                    query, key = self._pair(scores) or (scores, scores)
                    for value in self._pair(mixed[0]) or ():
                        if value is not mixed[1]:
                            yield Attention(query, key, value, scores, mixed[0])

    def _pair(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """The two activations that a product contracts."""
        if node.op != "call_function" or printed(node.target).startswith(("aten.mul", "aten.sum", "aten.mean")):
            return None
        if getattr(node.target, "_schema", None) is None or signature_of(node).kind != "multilinear":
            return None
        sources, status = self.dims.facts.folded.sources[node], self.dims.facts.folded.status
        for term in signature_of(node).terms:
            pair = [sources[i] for i in term if status.get(sources[i]) == DATA]
            if len(pair) == 2 and pair[0] is not pair[1]:
                return pair[0], pair[1]
        return None

    def _data(self, node: fx.Node) -> list[fx.Node]:
        folded = self.dims.facts.folded
        return [s for s in dict.fromkeys(folded.sources.get(node, ())) if folded.status.get(s) == DATA]

    def _back(self, node: fx.Node, found: Callable[[fx.Node], bool]) -> fx.Node | None:
        """The nearest product behind scaling, masks and layout: the largest operand is the one followed."""
        for _ in range(8):
            data = [s for s in self._data(node) if s.op == "call_function"]
            if not data:
                return None
            node = max(data, key=lambda n: n.meta["val"].dim() if hasattr(n.meta.get("val"), "dim") else 0)
            if node in self.makers:
                return None
            if found(node):
                return node
        return None

    def _forward(self, node: fx.Node, found: Callable[[fx.Node], bool]) -> tuple[fx.Node, fx.Node] | None:
        """The product that mixes the values, and the operand of it that carries the weights, which may be read for
        other ends too: the nearest of all ways on."""
        here = [node]
        for _ in range(8):
            ways = [(u, n) for n in here for u in n.users if u.op == "call_function" and shapes(u.meta.get("val"))]
            mixed = next((way for way in ways if found(way[0])), None)
            if mixed:
                return mixed
            here = list(dict.fromkeys(u for u, _ in ways))
        return None

    def makers_of(self, node: fx.Node) -> set[str]:
        """The weights that made a value, the nearest on every path back."""
        return self._walk(node, lambda n: self._data(n))

    def _after(self, node: fx.Node) -> set[str]:
        """The weights that consume a value, the nearest on every path on; once added to a stream it is the stream's."""
        adds = {residual.add for residual in self.dims.facts.residuals}
        return self._walk(node, lambda n: [u for u in n.users if u.op == "call_function" and u not in adds], skip=True)

    def _walk(self, node: fx.Node, step: Callable[[fx.Node], Iterable[fx.Node]], skip: bool = False) -> set[str]:
        out: set[str] = set()
        seen, todo = {node}, [node]
        while todo and len(seen) < REACH:
            here = todo.pop()
            if here in self.makers and not (skip and here is node):
                out |= self.makers[here]
                continue
            for other in step(here):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return out
