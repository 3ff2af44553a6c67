"""Two tracers on one model: what they must agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from mupc.trace.capture import Forward, Trace
from mupc.trace.fallback import traced_by_export
from mupc.trace.patches import quiet
from mupc.trace.swap import Swap
from mupc.trace.tree import leaves, replaced

COUNTED = tuple(f"aten::{op}" for op in ("linear", "scaled_dot_product_attention", "layer_norm", "embedding", "conv2d"))


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each whole op occurs, and which parameters are read."""

    ops: Mapping[str, int]
    used: frozenset[str]


def counts(trace: Trace) -> Counts:
    """What two tracers of one model must agree on."""
    return Counts(_occurrences(trace.graph), frozenset(trace.parameters) - frozenset(trace.unused))


def _occurrences(graph: fx.Graph) -> Mapping[str, int]:
    names = Counter(getattr(getattr(node.target, "_schema", None), "name", "") for node in graph.nodes)
    return {op: names[op] for op in COUNTED}


def exported(model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Trace:
    """The model traced by `torch.export` instead."""
    return traced_by_export(Forward(model, Swap(model), tuple(args), dict(kwargs or {}), fold=False))


def functional_counts(model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Counts:
    """The same by functorch's proxy tensors, over fake CPU tensors."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = partial(_faked, mode)
        twins = {name: fake(t, name) for name, t in (*model.named_parameters(), *model.named_buffers())}
        given = replaced(args, "", fake), replaced(dict(kwargs or {}), "", fake)

    def forward(twins: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [t for _, t in leaves(torch.func.functional_call(model, twins, *given))]

    with quiet(), torch.no_grad():
        graph = make_fx(forward, pre_dispatch=True)(twins).graph
    places = dict(zip(twins, (n for n in graph.nodes if n.op == "placeholder"), strict=True))
    return Counts(_occurrences(graph), frozenset(n for n, _ in model.named_parameters() if places[n].users))


def _faked(mode: FakeTensorMode, tensor: torch.Tensor, _path: str) -> torch.Tensor:
    """Token ids keep their values: a forward may read them."""
    if not tensor.is_meta and not tensor.is_floating_point():
        return tensor
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
