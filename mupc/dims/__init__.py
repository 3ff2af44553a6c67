"""Dims: which axis is which. `infer_dims(trace)` folds signatures over the graph and decides which dims grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mupc.dims.atoms import Atom
from mupc.dims.facts import Facts, gather
from mupc.dims.fold import fold
from mupc.dims.kinds import Kind, kinds
from mupc.dims.records import Folded
from mupc.trace import Trace

GROWING = ("width", "heads", "experts", "rank")  # kinds of dims that may grow

__all__ = ["Dims", "Facts", "Folded", "Kind", "declare", "infer_dims"]


@dataclass(frozen=True, slots=True)
class Dims:
    """The result of the dims stage: atoms with facts, and a verdict for each."""

    facts: Facts
    kinds: dict[Atom, Kind]


def infer_dims(trace: Trace) -> Dims:
    """Trace -> Dims: one fold, then the policy."""
    facts = gather(trace, fold(trace))
    return Dims(facts, kinds(facts))


def declare(dims: Dims, declared: Mapping[Atom, bool]) -> Dims:
    """The same facts judged again, with what the user says of some dims: grows (True) or is held fixed (False)."""
    if not declared:
        return dims
    said = {atom: _declared(dims.kinds.get(atom), grows) for atom, grows in declared.items()}
    return Dims(dims.facts, kinds(dims.facts, said))


def _declared(found: Kind | None, grows: bool) -> Kind:
    """Whether it grows is the user's; what it is stays what it was found to be, where that can grow."""
    kind = found.kind if found is not None and found.kind in GROWING else "width" if grows else "inner"
    return Kind(kind, grows, "declared by the user")
