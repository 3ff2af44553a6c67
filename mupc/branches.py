"""Where the residual branches of repeated blocks end: the tensors by which a whole branch can be multiplied."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from mupc.dims import Dims
from mupc.dims.records import DATA, WEIGHT, RawUse
from mupc.homogeneity import degrees
from mupc.ops import signature_of
from mupc.ops.table import is_empty, printed, real
from mupc.structure import Residual, between, origin

LINEAR = ("multilinear", "normalise", "index")  # in the parameters among their operands, taken together
WAYS = 4  # products on the way at which either factor is tried
SHARES = ("aten.softmax", "aten._softmax")


@dataclass(frozen=True, slots=True)
class Branches:
    """`inside`: nodes of the branches of repeated blocks. `ends`: by residual, the parameters that its branch is linear
    in, taken together. `open`: lines of the adds whose branch is linear in no parameters. `depth`: the most blocks with
    branches in one list, however each is built; None where there are none."""

    depth: int | None = None
    inside: frozenset[fx.Node] = frozenset()
    ends: tuple[tuple[Residual, frozenset[str]], ...] = ()
    open: tuple[str, ...] = ()

    def names(self) -> frozenset[str]:
        """All parameters that end a branch."""
        return frozenset[str]().union(*(names for _, names in self.ends))


def branches(dims: Dims, groups: Sequence[Sequence[str]]) -> Branches:
    """The branches of blocks that repeat, the outermost; one that stands alone is the same at any depth."""
    order = {node: at for at, node in enumerate(dims.facts.trace.graph.nodes)}
    found = [_proper(dims, order, residual) for residual in dims.facts.residuals]
    stacked = [r for r in found if _stacked(r, groups)]
    within = {node for residual in stacked for node in residual.branch}
    stacked = [r for r in stacked if r.add not in within]
    uses: dict[fx.Node, list[RawUse]] = {}
    for use in dims.facts.folded.uses:
        if use.node in dims.facts.live:
            uses.setdefault(use.node, []).append(use)
    met = [(residual, _ends(dims, order, residual, uses)) for residual in stacked]
    reached = {node for _, nodes in met for node in nodes or ()}
    elsewhere = {use.parameter for node, some in uses.items() if node not in reached for use in some}
    ends: list[tuple[Residual, frozenset[str]]] = []
    opened: dict[str, None] = {}
    for residual, nodes in met:
        names = frozenset(use.parameter for node in nodes or () for use in uses[node])
        if not names or names & elsewhere:
            opened[str(residual.add.meta.get("user_source") or residual.add.meta.get("source"))] = None
        else:
            ends.append((residual, names))
    inside = frozenset(node for r in stacked for node in r.branch)
    return Branches(_depth(groups, found), inside, tuple(ends), tuple(opened))


def stacks(groups: Iterable[Sequence[str]], branches: Iterable[frozenset[str]]) -> list[Sequence[str]]:
    """The groups of modules that are blocks: one of them holds a whole residual branch."""
    every = list(branches)
    return [g for g in groups if any(_holds(member, modules) for member in g for modules in every)]


def _depth(groups: Sequence[Sequence[str]], residuals: Iterable[Residual]) -> int | None:
    held = [modules_of(residual) for residual in residuals]
    members: dict[str, set[str]] = {}
    for member in (member for group in stacks(groups, held) for member in group):
        members.setdefault(member.rpartition(".")[0], set()).add(member)
    for parent, blocks in members.items():
        for modules in held:
            below = {p for m in modules for p in _prefixes(m) if p.rpartition(".")[0] == parent}
            blocks |= {p for p in below if p.rpartition(".")[2].isdigit() and _holds(p, modules)}
    return max(map(len, members.values()), default=None)


def modules_of(residual: Residual) -> frozenset[str]:
    """Where a branch's ops run."""
    return frozenset(str(node.meta.get("module") or "") for node in residual.branch)


def _stacked(residual: Residual, groups: Sequence[Sequence[str]]) -> bool:
    """Does a block hold the branch, or one beside blocks that is built otherwise (a dense layer before experts)?"""
    modules = modules_of(residual)
    if stacks(groups, [modules]):
        return True
    parents = {member.rpartition(".")[0] for group in groups for member in group} - {""}
    below = {path for module in modules for path in _prefixes(module) if path.rpartition(".")[0] in parents}
    return any(path.rpartition(".")[2].isdigit() and _holds(path, modules) for path in below)


def _holds(member: str, modules: frozenset[str]) -> bool:
    """Does every op of a branch run in the module, or around it, and one in it?"""
    inside = [m == member or m.startswith(f"{member}.") for m in modules]
    around = [m == "" or member.startswith(f"{m}.") for m in modules]
    return any(inside) and all(a or b for a, b in zip(inside, around, strict=True))


def _prefixes(path: str) -> Iterator[str]:
    words = path.split(".")
    return (".".join(words[:at]) for at in range(1, len(words) + 1))


# The ends of one branch.


def _operands(dims: Dims, residual: Residual) -> tuple[fx.Node | None, fx.Node | None]:
    """The add's operands, the stream's and the branch's: behind the stream's are factors, casts and dropout alone."""
    sources = [s for s in dims.facts.folded.sources[residual.add] if _is_data(dims)(s)]
    stream = next((s for s in sources if residual.stream in (s, origin(s, _is_data(dims)))), None)
    others = [s for s in sources if s is not stream]
    return stream, others[0] if len(others) == 1 else None


def _is_data(dims: Dims) -> Callable[[fx.Node], bool]:
    return lambda node: dims.facts.folded.status.get(node) == DATA


def _proper(dims: Dims, order: Mapping[fx.Node, int], residual: Residual) -> Residual:
    """The residual with what is made of the stream's own operand: a factor on an embedding is no part of a branch."""
    stream, branch = _operands(dims, residual)
    if stream is None or branch is None or stream is residual.stream:
        return residual
    found = between(stream, origin(branch, _is_data(dims)), order)
    return Residual(residual.add, stream, found) if found else residual


def _ends(
    dims: Dims, order: Mapping[fx.Node, int], residual: Residual, uses: dict[fx.Node, list[RawUse]]
) -> set[fx.Node] | None:
    """The nearest nodes, on all ways back from the add, where parameters are linear, so that the branch is as large as
    they are, all of them together: found by walking back, held by degrees of homogeneity. None where there are none."""
    stream, branch = _operands(dims, residual)
    tried: list[set[fx.Node]] = []
    for picks in itertools.product((0, 1), repeat=WAYS) if branch is not None else ():
        found = _Walk(dims, residual, uses, picks).back(branch)
        if not found or found in tried:
            continue
        tried.append(found)
        powers = degrees(dims, order, found, residual.add)
        if powers is not None and powers.get(branch) == 1 and (stream is None or stream not in powers):  # type: ignore[arg-type]
            return found
    return None


@dataclass(slots=True)
class _Walk:
    """Back from a branch's end, at each product of two activations by the factor that `picks` says."""

    dims: Dims
    residual: Residual
    uses: dict[fx.Node, list[RawUse]]
    picks: tuple[int, ...]
    products: int = 0

    def back(self, end: fx.Node | None) -> set[fx.Node]:
        """The nodes where parameters are met."""
        sources, status = self.dims.facts.folded.sources, self.dims.facts.folded.status
        seen: set[fx.Node] = set()
        found: set[fx.Node] = set()
        todo = [end] if end is not None else []
        while todo:
            node = todo.pop()
            if node in seen or node.op != "call_function" or node is self.residual.stream:
                continue
            seen.add(node)
            if node.target is operator.getitem:
                todo += node.all_input_nodes
                continue
            signature = signature_of(node)
            data = [s for s in sources[node] if status.get(s) == DATA and real(s)]
            plain = node in self.uses and all(_plain(s) for s in sources[node] if status.get(s) == WEIGHT)
            if plain and signature.kind in (*LINEAR, "additive"):
                found.add(node)
            if plain and signature.kind in LINEAR:
                continue
            if "scaled_dot_product" in printed(node.target):
                todo.append(sources[node][2])
            elif signature.kind == "multilinear" and len(data) > 1:
                todo.append(self.pick(data))
            elif signature.kind != "normalise":
                todo += data
        return found

    def pick(self, data: Sequence[fx.Node]) -> fx.Node:
        """A factor of a product: first one that is no gate or share, which has a scale of its own."""
        ordered = sorted(dict.fromkeys(data), key=_gate)
        at = self.picks[self.products] if self.products < len(self.picks) else 0
        self.products += 1
        return ordered[min(at, len(ordered) - 1)]


def _plain(node: fx.Node) -> bool:
    """A parameter itself, in another shape, or times a number."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1 and _scales(node):
        node = node.all_input_nodes[0]
    return node.op == "placeholder"


def _scales(node: fx.Node) -> bool:
    """Is f(c x) = c f(x), entry by entry?"""
    signature = signature_of(node)
    one = signature.kind == "pointwise" and signature.degree == 1 and not signature.bounded and not signature.over
    return one or signature.kind == "layout"


def _gate(node: fx.Node) -> bool:
    """A share or a gate, behind layout and choices."""
    for _ in range(8):
        if node.op != "call_function" or getattr(node.target, "_schema", None) is None:
            return False
        if printed(node.target).startswith(SHARES) or is_empty(node) or signature_of(node).bounded:
            return True
        inputs = node.all_input_nodes
        if not inputs:
            return False
        node = inputs[-1] if printed(node.target).startswith("aten.scatter") else inputs[0]
    return False
