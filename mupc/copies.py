"""Verdicts for the copies of a repeated block that inference left out: those of the block they were copied from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import fx

from mupc.roles import Parameter, Use
from mupc.trace import LeftOut, Trace


def representatives(trace: Trace, gone: Sequence[LeftOut]) -> dict[str, str]:
    """For every parameter that was left out, the one that stands for it."""
    names = {node: name for name, node in trace.parameters.items()}
    found: dict[str, str] = {}
    for one in gone:
        for name, node in one.block.own.items():
            like = one.like.own[name]
            if node is not like and node in names and like in names:
                found[names[node]] = found.get(names[like], names[like])
    return found


def with_copies(trace: Trace, gone: Sequence[LeftOut], found: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Every parameter of the trace, in its order; each copy's uses lie in its own block."""
    if not gone:
        return dict(found)
    names = {node: name for name, node in trace.parameters.items()}
    known = dict(found)
    for one in gone:  # a block that lies in another comes before it
        nodes = one.nodes()
        for name, node in one.block.own.items():
            if node in names and names[node] not in known:
                known[names[node]] = _moved(known[names[one.like.own[name]]], names[node], name, nodes)
    return {name: known[name] for name in trace.parameters}


def _moved(like: Parameter, name: str, inner: str, nodes: Mapping[str, fx.Node]) -> Parameter:
    """The verdict with the copy's own names; `inner` is the parameter's name within its block."""
    uses = tuple(_used(use, nodes) for use in like.uses)
    theirs, ours = like.name.removesuffix(inner), name.removesuffix(inner)
    why = tuple(line.replace(f" {theirs}", f" {ours}") for line in like.why)
    for old, new in zip(like.uses, uses, strict=True):
        if old.source is None:  # then the reason names the node
            why = tuple(line.replace(f" at {old.node}", f" at {new.node}") for line in why)
    return replace(like, name=name, uses=uses, why=why)


def _used(use: Use, nodes: Mapping[str, fx.Node]) -> Use:
    node = nodes.get(use.node)
    return use if node is None else replace(use, node=node.name, module=str(node.meta.get("module", "")))
