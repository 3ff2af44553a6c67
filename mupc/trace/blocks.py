"""Repeated blocks in a graph, and the graph without the copies: what is alike need be looked at once.

A copy is left out where the stream passes straight through it: what it makes is read by its next sibling alone, in the
place of what its previous sibling made, and nobody else reads its parameters. What is found out about the block it was
copied from then holds of it, node by node and parameter by parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True, eq=False)
class Block:
    """One run of a repeated block: its nodes in order, its parameters and buffers by their names within it.

    `like` is the sibling whose nodes are the same ops in the same order; `copied` says that they were copied from it.
    """

    nodes: tuple[fx.Node, ...]
    own: dict[str, fx.Node]
    like: Block | None = None
    copied: bool = False

    @property
    def family(self) -> Block:
        return self.like or self


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A copied block that a thinned graph lacks: what stands for each node and parameter of it, and the other way."""

    block: Block
    like: Block

    def nodes(self) -> Mapping[str, fx.Node]:
        """The block's nodes by the names of those that stand for them."""
        return {like.name: node for like, node in zip(self.like.nodes, self.block.nodes, strict=True)}


def left_out(blocks: Sequence[Block], outputs: Iterable[fx.Node]) -> tuple[list[LeftOut], dict[fx.Node, fx.Node]]:
    """The copies that can be left out, and for what they make, what is to be read instead."""
    place = {(block.family, node): (block, at) for block in blocks for at, node in enumerate(block.nodes)}
    ends = set(outputs)
    found: list[LeftOut] = []
    instead: dict[fx.Node, fx.Node] = {}
    for block in blocks:
        if not block.copied or block.like is None or not ends.isdisjoint(block.nodes) or _shared(block):
            continue
        passed = _passed(block, place)
        if passed is not None:
            found.append(LeftOut(block, block.like))
            instead |= passed
    return found, instead


def _shared(block: Block) -> bool:
    """Does anyone else read its parameters?"""
    inside = set(block.nodes)
    return any(user not in inside for node in block.own.values() for user in node.users)


def _passed(block: Block, place: Mapping[tuple[Block, fx.Node], tuple[Block, int]]) -> dict[fx.Node, fx.Node] | None:
    """What each result of the block is in the block before it; None where the stream does not pass straight through."""
    inside = set(block.nodes)
    before: dict[int, set[fx.Node]] = {}
    for node in block.nodes:
        for source in node.all_input_nodes:
            if source not in inside and (found := place.get((block.family, source))):
                before.setdefault(found[1], set()).add(source)
    after: set[Block] = set()
    passed: dict[fx.Node, fx.Node] = {}
    for at, node in enumerate(block.nodes):
        users = [user for user in node.users if user not in inside]
        if not users:
            continue
        if len(before.get(at, ())) != 1 or any((block.family, user) not in place for user in users):
            return None
        after |= {place[block.family, user][0] for user in users}
        (passed[node],) = before[at]
    return passed if len(after) == 1 else None


def without(graph: fx.Graph, blocks: Sequence[LeftOut], instead: Mapping[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    """A copy of the graph without these blocks, as a map from its nodes to the copy's."""
    gone = {node for one in blocks for node in (*one.block.nodes, *one.block.own.values())}
    thin = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}

    def copied(node: fx.Node) -> fx.Node:
        while node in instead:
            node = instead[node]
        return made[node]

    for node in graph.nodes:
        if node not in gone:
            made[node] = thin.node_copy(node, copied)
    return made
