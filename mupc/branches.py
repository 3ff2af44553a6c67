"""Where the residual branches of repeated blocks end: the tensors by which a whole branch can be multiplied."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import fx

from mupc.dims import Dims
from mupc.dims.records import DATA, WEIGHT, RawUse
from mupc.ops import signature_of
from mupc.ops.table import printed
from mupc.structure import Residual

LINEAR = ("multilinear", "normalise", "index")  # in the parameters among their operands, taken together
SHARES = ("aten.softmax", "aten._softmax", "aten.sigmoid", "aten.zeros", "aten.zeros_like", "aten.new_zeros")


@dataclass(frozen=True, slots=True)
class Branches:
    """`inside`: nodes of the branches of repeated blocks. `ends`: by residual, the parameters that its branch is linear
    in, taken together. `open`: lines of the adds whose branch is linear in no parameters."""

    inside: frozenset[fx.Node] = frozenset()
    ends: tuple[tuple[Residual, frozenset[str]], ...] = ()
    open: tuple[str, ...] = ()

    def names(self) -> frozenset[str]:
        """All parameters that end a branch."""
        return frozenset[str]().union(*(names for _, names in self.ends))


def branches(dims: Dims, groups: Sequence[Sequence[str]]) -> Branches:
    """The branches of blocks that repeat, the outermost; one that stands alone is the same at any depth."""
    stacked = [r for r in dims.facts.residuals if _stacked(r, groups)]
    within = {node for residual in stacked for node in residual.branch}
    stacked = [r for r in stacked if r.add not in within]
    uses: dict[fx.Node, list[RawUse]] = {}
    for use in dims.facts.folded.uses:
        if use.node in dims.facts.live:
            uses.setdefault(use.node, []).append(use)
    met = [(residual, _ends(dims, residual, uses)) for residual in stacked]
    reached = {node for _, nodes in met for node in nodes or ()}
    elsewhere = {use.parameter for node, some in uses.items() if node not in reached for use in some}
    ends: list[tuple[Residual, frozenset[str]]] = []
    opened: dict[str, None] = {}
    for residual, nodes in met:
        names = frozenset(use.parameter for node in nodes or () for use in uses[node])
        if nodes is None or not names or names & elsewhere:
            opened[str(residual.add.meta.get("user_source") or residual.add.meta.get("source"))] = None
        else:
            ends.append((residual, names))
    return Branches(frozenset(node for r in stacked for node in r.branch), tuple(ends), tuple(opened))


def stacks(groups: Iterable[Sequence[str]], branches: Iterable[frozenset[str]]) -> list[Sequence[str]]:
    """The groups of modules that are blocks: one of them holds a whole residual branch."""
    every = list(branches)
    return [g for g in groups if any(_holds(member, modules) for member in g for modules in every)]


def depth(groups: Sequence[Sequence[str]], residuals: Iterable[Residual]) -> int | None:
    """The most blocks with residual branches in one list, however each is built; None where there are none."""
    held = [modules_of(residual) for residual in residuals]
    known = stacks(groups, held)
    members: dict[str, set[str]] = {}
    for member in (member for group in known for member in group):
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


def _ends(dims: Dims, residual: Residual, uses: dict[fx.Node, list[RawUse]]) -> set[fx.Node] | None:
    """The nearest nodes, on all ways back from the add, where parameters are linear; None where some way has none."""
    status, sources = dims.facts.folded.status, dims.facts.folded.sources
    seen: set[fx.Node] = set()
    found: set[fx.Node] = set()
    todo = [s for s in sources[residual.add] if _leads(dims, s, residual)]
    while todo:
        node = todo.pop()
        if node in seen or node.op != "call_function":
            continue
        seen.add(node)
        if node.target is operator.getitem:
            todo += node.all_input_nodes
            continue
        signature = signature_of(node)
        data = [s for s in sources[node] if status.get(s) == DATA and _real(s)]
        if node in uses and not all(_plain(s) for s in sources[node] if status.get(s) == WEIGHT):
            return None
        if node in uses and signature.kind in LINEAR:
            found.add(node)
            continue
        if signature.kind == "additive":
            found |= {node} & uses.keys()
            todo += data
        elif signature.kind == "layout" or (signature.kind == "index" and signature.degree is not None):
            todo += [s for s in data if s.op == "call_function"]
        elif "scaled_dot_product" in printed(node.target):
            todo.append(sources[node][2])
        elif signature.kind == "multilinear":
            todo += data if len(data) < 2 else [_carrier(data, residual)]
        elif signature.kind == "pointwise" and signature.degree == 1 and not signature.bounded and len(data) == 1:
            todo += data
        else:
            return None
        if not data:
            return None
    return found


def _leads(dims: Dims, node: fx.Node, residual: Residual) -> bool:
    """Is this operand of the add its branch, behind factors and dropout?"""
    while node not in residual.branch:
        data = [s for s in dims.facts.folded.sources.get(node, ()) if dims.facts.folded.status.get(s) == DATA]
        if node is residual.stream or len(data) != 1:
            return False
        node = data[0]
    return True


def _real(node: fx.Node) -> bool:
    dtype = getattr(node.meta.get("val"), "dtype", None)
    return dtype is None or dtype.is_floating_point or dtype.is_complex


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


def _carrier(data: Sequence[fx.Node], residual: Residual) -> fx.Node:
    """Of the factors of a product the one that is scaled: no gate or share, which has a scale of its own."""
    return next((s for s in data if s in residual.branch and not _gate(s)), data[0])


def _gate(node: fx.Node) -> bool:
    """A share or a gate, behind layout and choices."""
    for _ in range(8):
        if node.op != "call_function":
            return False
        if printed(node.target).startswith(SHARES) or signature_of(node).bounded:
            return True
        inputs = node.all_input_nodes
        if not inputs:
            return False
        node = inputs[-1] if printed(node.target).startswith("aten.scatter") else inputs[0]
    return False
