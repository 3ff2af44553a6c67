"""Draw a model's matrices from the plan's own formula, whatever the code had drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from mupc.errors import MupcError
from mupc.initializers.distributions import FILLERS, Filler, zeros_
from mupc.plan import Parameter, Plan
from mupc.structure import unwrapped

MATRICES = ("input", "hidden", "output")


def reset(
    model: nn.Module,
    plan: Plan,
    initializer: str | Filler = "normal",
    *,
    zero: Sequence[str] = (),
    generator: Generator | None = None,
) -> None:
    """Fill every input, hidden and output matrix with entries of the plan's `init_std`.

    `initializer` names one of `mupc.initializers.FILLERS` or is such a function; it is given each part of a fused
    tensor and each expert by itself, so that an orthogonal one makes each of them orthogonal. `zero` lists roles or
    sub-roles that start at zero (`output`, `query`). Gains, biases and other vectors keep what the code gave them,
    which no formula is common to. Raises `MupcError` where the plan is of another model, or knows no std for a matrix.
    """
    fill = _filler(initializer)
    tensors = dict(unwrapped(model).named_parameters(remove_duplicate=False))
    for p in plan.parameters:
        if p.name not in tensors or tuple(tensors[p.name].shape) != p.shape:
            found = f"shape {tuple(tensors[p.name].shape)}" if p.name in tensors else "no such parameter"
            raise MupcError(f"the plan is of another model: it has {p.name} {list(p.shape)}, the model has {found}")
        if p.role == "unknown":
            raise MupcError(f"{p.name}: its role is unknown, so no init is: {p.why[-1] if p.why else ''}")
    with torch.no_grad():
        for p in plan.parameters:
            if p.role in MATRICES:
                chosen = zeros_ if {p.role, p.sub_role} & set(zero) else fill
                for piece, std in _pieces(p, tensors[p.name]):
                    chosen(piece, std, generator)


def _filler(initializer: str | Filler) -> Filler:
    if callable(initializer):
        return initializer
    if initializer not in FILLERS:
        raise MupcError(f"no initializer is called {initializer!r}; there are {', '.join(FILLERS)}")
    return FILLERS[initializer]


def _pieces(p: Parameter, tensor: Tensor) -> list[tuple[Tensor, float]]:
    """Views of the tensor, each with the std of its entries: parts, and within these the matrices of a batch."""
    whole = [(tensor, p.init_std)]
    if p.parts and all(part.init_std for part in p.parts):
        cut = [(part, part.range[0], part.range[1] - part.range[0]) for part in p.parts]
        whole = [(tensor.narrow(part.axis, start, length), part.init_std) for part, start, length in cut]
    words = next((use.axes for use in p.uses if use.role == p.role), ())
    out = []
    for view, std in whole:
        if std is None or std.value is None:
            raise MupcError(f"{p.name}: the plan has no init std for it")
        out += [(one, std.value) for one in _unbatched(view, words)]
    return out


def _unbatched(tensor: Tensor, words: Sequence[str]) -> list[Tensor]:
    """A matrix for each place along a leading axis that is carried along, not contracted: an expert."""
    if tensor.ndim > 2 and words[:1] == ("batch",) and "in" in words[1:]:
        return list(tensor)
    return [tensor]
