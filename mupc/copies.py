"""Verdicts for the copies of a repeated block that inference left out: those of the block they were copied from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mupc.roles import Parameter, Use
from mupc.trace import LeftOut, Trace


def representatives(trace: Trace, gone: Sequence[LeftOut]) -> dict[str, str]:
    """For every parameter that was left out, the one that was kept and stands for it."""
    origins = _origins(trace, gone)

    def kept(name: str) -> str:
        return kept(origins[name].like) if name in origins else name

    return {name: kept(name) for name in origins}


def with_copies(trace: Trace, gone: Sequence[LeftOut], found: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Every parameter of the trace, in its order; each copy's uses lie in its own block."""
    origins, known = _origins(trace, gone), dict(found)

    def verdict(name: str) -> Parameter:
        if name not in known:
            origin = origins[name]
            known[name] = _moved(verdict(origin.like), name, origin)
        return known[name]

    return {name: verdict(name) for name in trace.parameters}


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a parameter of a left-out block was copied from, its name within the block, the block."""

    like: str
    inner: str
    block: LeftOut


def _origins(trace: Trace, gone: Sequence[LeftOut]) -> dict[str, _Origin]:
    names = {node: name for name, node in trace.parameters.items()} if gone else {}
    found: dict[str, _Origin] = {}
    for one in gone:
        for inner, node in one.block.own.items():
            like = one.like.own[inner]
            if node is not like and node in names and like in names:
                found[names[node]] = _Origin(names[like], inner, one)
    return found


def _moved(like: Parameter, name: str, origin: _Origin) -> Parameter:
    """The verdict with the copy's own names."""
    uses = tuple(_used(use, origin.block) for use in like.uses)
    theirs, ours = f" {like.name.removesuffix(origin.inner)}", f" {name.removesuffix(origin.inner)}"
    why = tuple([line.replace(theirs, ours) for line in like.why])
    for old, new in zip(like.uses, uses, strict=True):
        if old.source is None:  # then the reason names the node
            why = tuple(line.replace(f" at {old.node}", f" at {new.node}") for line in why)
    return replace(like, name=name, uses=uses, why=why)


def _used(use: Use, block: LeftOut) -> Use:
    node = block.node(use.node)
    if node is None:
        return use
    return Use(node.name, use.op, str(node.meta.get("module", "")), use.source, use.axes, use.role)
