"""Repeated blocks that were traced in full: siblings that wrote the same ops are one family all the same.

Blocks that differ in what a forward never reads (a drop path's probability) or that alternate are no templates of each
other while the model runs. Their graphs, compared afterwards node by node, say whether they are alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from torch import fx

from mupc.trace.blocks import Block

FEWEST = 3  # of one family, below which nothing is left out


def with_families(graph: fx.Graph, held: Mapping[str, fx.Node], known: Sequence[Block]) -> tuple[Block, ...]:
    """The known blocks and those of families found in the graph, in its order; `held` are parameters and buffers."""
    inside: dict[str, list[fx.Node]] = defaultdict(list)
    own: dict[str, dict[str, fx.Node]] = defaultdict(dict)
    order = {node: at for at, node in enumerate(graph.nodes)}
    for node in order:
        for prefix in _numbered(str(node.meta.get("module", ""))) if node.op == "call_function" else ():
            inside[prefix].append(node)
    for name, node in held.items():
        for prefix in _numbered(name.rpartition(".")[0]):
            own[prefix][name[len(prefix) + 1 :]] = node
    taken = {node for block in known for node in block.nodes}
    found = [block for group in _siblings(inside) for block in _families(group, inside, own, taken)]
    return tuple(sorted([*known, *found], key=lambda block: order[block.nodes[-1]] if block.nodes else -1))


@cache
def _numbered(path: str) -> tuple[str, ...]:
    """The prefixes of a module's path that end in a number: `a.0.b.1.c` lies in `a.0` and, further in, in `a.0.b.1`."""
    parts = path.split(".")
    return tuple(".".join(parts[: i + 1]) for i, part in enumerate(parts) if part.isdigit())


def _siblings(inside: Mapping[str, Sequence[fx.Node]]) -> Iterator[list[str]]:
    """Paths of one parent, the outermost parents first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in inside:
        groups[path.rpartition(".")[0]].append(path)
    return (groups[parent] for parent in sorted(groups, key=lambda p: p.count(".")))


def _families(
    paths: Sequence[str],
    inside: Mapping[str, Sequence[fx.Node]],
    own: Mapping[str, dict[str, fx.Node]],
    taken: set[fx.Node],
) -> Iterator[Block]:
    """Blocks of siblings that are alike, each like the second of them; what lies in them is looked at no further."""
    alike: dict[object, list[Block]] = defaultdict(list)
    free = [path for path in paths if taken.isdisjoint(inside[path])]
    for path in free if len(free) >= FEWEST else ():
        block = Block(tuple(inside[path]), own.get(path, {}) | _constants(inside[path]))
        alike[_form(block)].append(block)
    for first, *others in alike.values():
        if len(others) + 1 < FEWEST:
            continue
        second = others[0]
        for block in (first, *others):
            taken.update(block.nodes)
            yield block if block in (first, second) else Block(block.nodes, block.own, second)


def _constants(nodes: Sequence[fx.Node]) -> dict[str, fx.Node]:
    """Tensors written in the code that only this block reads."""
    inside = set(nodes)
    found: dict[fx.Node, None] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            if source.meta.get("kind") == "constant" and inside.issuperset(source.users):
                found[source] = None
    return {f"constant {i}": node for i, node in enumerate(found)}


def _form(block: Block) -> object:
    """What the block computes, hashable: its nodes, its own tensors and what it reads from around it, all numbered."""
    numbers: dict[fx.Node, object] = {node: name for name, node in block.own.items()}
    numbers |= {node: i for i, node in enumerate(block.nodes)}
    around: dict[fx.Node, object] = {}

    def form(value: Any) -> object:
        if isinstance(value, fx.Node):
            number = numbers.get(value)
            return ("node", number) if number is not None else around.setdefault(value, ("around", len(around)))
        if isinstance(value, (list, tuple)):
            return tuple([form(item) for item in value])
        if isinstance(value, dict):
            return tuple((key, form(item)) for key, item in value.items())
        return value if isinstance(value, (int, float, str, type(None))) else repr(value)

    steps = tuple((n.target, form(n.args), form(n.kwargs), _shapes(n.meta["val"])) for n in block.nodes)
    return steps, tuple(_shapes(node.meta["val"]) for node in around), tuple(block.own)


def _shapes(value: Any) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(_shapes(item) for item in value)
    return getattr(value, "shape", None), getattr(value, "dtype", type(value))
