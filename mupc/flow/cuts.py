"""Parts of one fused matrix: what is cut along an axis that a weight made has random signs of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import fx

from mupc.flow.value import Value
from mupc.ops.table import printed

if TYPE_CHECKING:
    from mupc.flow.forward import Forward

CUTS = ("aten.split", "aten.chunk", "aten.unbind", "aten.tensor_split", "aten.narrow", "aten.select", "aten.slice",
        "aten.unsafe_split", "aten.unsafe_chunk", "aten.hsplit")  # fmt: skip


def cut(run: Forward, node: fx.Node, value: Value, op: fx.Node) -> Value:
    """One part of what was cut along an axis that a weight made: its random signs are its own (q, k, v of one
    fused matrix)."""
    name = printed(op.target)
    if not value.generators or not name.startswith(CUTS) or not op.args or not isinstance(op.args[0], fx.Node):
        return value
    tensors = run.folded.tensors.get(op.args[0], ())
    at = _dim(op, len(tensors[0]) if tensors else 0)
    if at is None:
        return value
    made = [a for a in run.folded.atoms.expand(tensors[0][at]) if run.dims.facts.of[a].produced]
    if not made or any("data" in run.dims.facts.of[a].marks for a in made):
        return value
    part = str(node.args[1]) if node is not op else f"{node.args[1:]}{sorted(node.kwargs.items())}"

    def own(generators: frozenset[str]) -> frozenset[str]:
        return frozenset(f"{g}[{op.args[0]}:{at}:{part}]" for g in generators)

    return replace(value, generators=own(value.generators), parts=tuple((own(g), size) for g, size in value.parts))


def _dim(node: fx.Node, rank: int) -> int | None:
    """The axis that a cut runs along, by its schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not rank:
        return None
    for at, argument in enumerate(schema.arguments):
        if argument.name == "dim":
            value = node.args[at] if at < len(node.args) else node.kwargs.get("dim", argument.default_value)
            return value % rank if isinstance(value, int) else None
    return None
