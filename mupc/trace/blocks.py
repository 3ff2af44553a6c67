"""Repeated blocks in a graph, and the graph without the copies: what is alike need be looked at once.

A copy is left out where the stream passes straight through it: what it makes is read by its next sibling alone, in the
place of what its previous sibling made, and nobody else reads its parameters. What is found out about the block it was
copied from then holds of it, node by node and parameter by parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, count

from torch import fx

LONGEST = 8  # blocks of different families that alternate


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

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where in the block its nodes are, by name."""
        return {node.name: at for at, node in enumerate(self.nodes)}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A copied block that a thinned graph lacks: what stands for each node and parameter of it, and the other way."""

    block: Block
    like: Block

    def node(self, name: str) -> fx.Node | None:
        """The block's node for which the one of this name stands."""
        at = self.like.places.get(name)
        return None if at is None else self.block.nodes[at]


def left_out(blocks: Sequence[Block], outputs: Iterable[fx.Node]) -> tuple[list[LeftOut], dict[fx.Node, fx.Node]]:
    """The copies that can be left out, and for what they make, what is to be read instead."""
    runs = _Runs(blocks, outputs)
    for block in blocks:
        runs.consider(block)
    return [LeftOut(block, block.family) for block in runs.gone], runs.instead


class _Runs:
    """Runs of blocks that the stream passes straight through, from what a block made to what its next sibling makes.

    Most runs are one block long; where blocks of several families alternate, a run has one of each.
    """

    def __init__(self, blocks: Sequence[Block], outputs: Iterable[fx.Node]) -> None:
        self.ends = set(outputs)
        self.places = {block: dict(zip(block.nodes, count(), strict=False)) for block in blocks}
        self.owners: dict[fx.Node, list[Block]] = {}
        for block in blocks:
            for node in block.nodes:
                self.owners.setdefault(node, []).append(block)
        self.gone: dict[Block, None] = {}
        self.instead: dict[fx.Node, fx.Node] = {}
        self.around = cache(self._around)

    def consider(self, block: Block) -> None:
        """Leave out the run that ends in this block, if there is one."""
        run: list[Block] = []
        one: Block | None = block
        while one is not None and len(run) < LONGEST and self._may_go(one):
            run.append(one)
            given = self._given(one)
            before = {self.places[kin][node]: node for node in given if (kin := self._kin(block, node))}
            if not self._as_its_like(one, given):
                return
            if before:
                passed = self._passed(run, before)
                if passed is not None:
                    self.instead |= passed
                    self.gone |= dict.fromkeys(reversed(run))
                return
            one = self._prior(one, given)

    def _may_go(self, block: Block) -> bool:
        """It is another's copy, and nobody else reads its parameters, nor is anything that it makes an output."""
        inside = self.places[block]
        if block.like is None or block in self.gone or any(end in inside for end in self.ends):
            return False
        return all(node.users.keys() <= inside.keys() for node in block.own.values())

    def _kin(self, block: Block, node: fx.Node) -> Block | None:
        """The block of the same family that makes a node."""
        return next((owner for owner in self.owners.get(node, ()) if owner.family is block.family), None)

    def _around(self, block: Block) -> dict[fx.Node, None]:
        """What a block reads that is not its own."""
        read = dict.fromkeys(chain.from_iterable(node.all_input_nodes for node in block.nodes))
        inside, own = self.places[block], set(block.own.values())
        return dict.fromkeys(source for source in read if source not in inside and source not in own)

    def _given(self, block: Block) -> dict[fx.Node, None]:
        """What a block reads that is not its own; for what is left out stands its like."""
        return dict.fromkeys(_resolved(node, self.instead) for node in self.around(block))

    def _as_its_like(self, block: Block, given: Iterable[fx.Node]) -> bool:
        """Does it read nothing of its own from around it but the stream: no tensor that only this block is handed?"""
        known = self._given(block.family)
        return all(node in known or node in self.owners for node in given)

    def _prior(self, block: Block, given: Iterable[fx.Node]) -> Block | None:
        """The one block that makes what this one reads of blocks, which nobody else reads."""
        owners = [
            [o for o in self.owners.get(node, ()) if self.places[o].keys().isdisjoint(block.nodes)] for node in given
        ]
        outer = {max(several, key=lambda o: len(o.nodes)) for several in owners if several}
        if len(outer) != 1:
            return None
        (found,) = outer
        return found if self._users(found) <= self.places[block].keys() else None

    def _users(self, block: Block) -> set[fx.Node]:
        inside = self.places[block]
        return {user for node in block.nodes for user in node.users if user not in inside}

    def _passed(self, run: Sequence[Block], before: Mapping[int, fx.Node]) -> dict[fx.Node, fx.Node] | None:
        """What each result of the run is in the block before it. What the run makes is read by one more of its kind, in
        the place of what was made before, or, at the end of a stack, by none of them."""
        last, first = run[0], run[-1]
        inside = self.places[last].keys()
        passed: dict[fx.Node, fx.Node] = {}
        after: set[Block | None] = set()
        for at, node in enumerate(last.nodes):
            if node.users.keys() <= inside:
                continue
            if at not in before:
                return None
            for user in (user for user in node.users if user not in inside):
                passed[node] = before[at]
                after.add(self._kin(first, user))
        return passed if len(after) == 1 else None


def without(graph: fx.Graph, blocks: Sequence[LeftOut], instead: Mapping[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    """A copy of the graph without these blocks, as a map from its nodes to the copy's."""
    gone = {node for one in blocks for node in (*one.block.nodes, *one.block.own.values())}
    thin = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}

    def change(node: fx.Node) -> fx.Node:
        return made[_resolved(node, instead)]

    for node in graph.nodes:
        if node not in gone:
            made[node] = _copied(node, thin, change)
    return made


def _copied(node: fx.Node, graph: fx.Graph, change: Callable[[fx.Node], fx.Node]) -> fx.Node:
    """`Graph.node_copy`, but for looking through arguments and for a free name once more: most of its time."""
    args, kwargs = fx.map_arg(node.args, change), fx.map_arg(node.kwargs, change)
    copy = fx.Node(graph, node.name, node.op, node.target, args, kwargs, node.type)
    copy.meta.update(node.meta)
    graph._insert(copy)
    graph._len += 1
    return copy


def _resolved(node: fx.Node, instead: Mapping[fx.Node, fx.Node]) -> fx.Node:
    while node in instead:
        node = instead[node]
    return node
