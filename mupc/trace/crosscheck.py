"""Two tracers on one model: what they must agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mupc.trace.capture import Forward, Trace
from mupc.trace.fallback import traced_by_export
from mupc.trace.swap import Swap

COUNTED = ("aten::linear", "aten::scaled_dot_product_attention", "aten::layer_norm", "aten::embedding")


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each whole op occurs, and which parameters are read."""

    ops: Mapping[str, int]
    used: frozenset[str]


def counts(trace: Trace) -> Counts:
    """What two tracers of one model must agree on."""
    names = Counter(getattr(getattr(node.target, "_schema", None), "name", "") for node in trace.graph.nodes)
    used = frozenset(trace.parameters) - frozenset(trace.unused)
    return Counts({op: names[op] for op in COUNTED}, used)


def exported(model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Trace:
    """The model traced by `torch.export` instead."""
    return traced_by_export(Forward(model, Swap(model), tuple(args), dict(kwargs or {}), fold=False))
