"""Model in, analysis out: the front end's stages in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from mupc.branches import Branches, branches
from mupc.copies import with_copies
from mupc.dims import Dims, declare, infer_dims
from mupc.dims.atoms import Atom
from mupc.dims.naming import Held, name_for
from mupc.errors import MupcError
from mupc.roles import Dim, Parameter, Roles, infer_roles
from mupc.structure import blocks, unwrapped
from mupc.trace import Trace, trace, unhurried


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything the front end knows about a model. `parameters` resolves every FQN, tied names included."""

    target: str
    trace: Trace
    dims_stage: Dims
    roles: Roles
    parameters: Mapping[str, Parameter]
    coverage: dict[str, Any]
    blocks: tuple[tuple[str, ...], ...]
    depth: int | None
    guesses: tuple[str, ...]
    unused: tuple[str, ...]
    open_branches: tuple[str, ...] = ()  # lines of residual adds that no factor on a tensor reaches
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def dims(self) -> tuple[Dim, ...]:
        return self.roles.dims

    @property
    def tied(self) -> tuple[tuple[str, ...], ...]:
        return self.roles.tied


def analyze(
    model: nn.Module,
    args: Sequence[Any] | torch.Tensor = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    fixed: Sequence[str] = (),
    scaling: Sequence[str] = (),
    sizes: Mapping[str, int] = MappingProxyType({}),
    target: str | None = None,
) -> Analysis:
    """Trace a model on meta and infer what every parameter does.

    The model may be on any device; it is not changed, and nothing of its size is allocated. `fixed` and `scaling` name
    dims, as the report names them, whose verdict is the caller's; `sizes` are names for sizes that the model does not
    hold itself (constructor arguments). Raises `TraceError` where the forward cannot be
    traced with these inputs, `MupcError` where no dim bears a given name.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise MupcError(f"analyze wants the torch.nn.Module itself, not a {type(model).__name__}")
    model = unwrapped(model)
    with unhurried():
        traced = trace(model, (args,) if isinstance(args, torch.Tensor) else tuple(args), dict(kwargs or {}))
    return infer(model, traced, fixed=fixed, scaling=scaling, sizes=sizes, target=target)


def infer(
    model: nn.Module,
    traced: Trace,
    *,
    fixed: Sequence[str] = (),
    scaling: Sequence[str] = (),
    sizes: Mapping[str, int] = MappingProxyType({}),
    target: str | None = None,
) -> Analysis:
    """What follows from a trace alone: dims, their names and verdicts, roles. The model gives names, no more."""
    with unhurried():
        thin, gone = traced.thinned()
        dims = infer_dims(thin)
        groups = blocks(model)
        names = name_dims(model, dims, groups, sizes)
        dims = declare(dims, _declared(names, fixed, scaling))
        stack = branches(dims, groups)
        found = with_copies(traced, gone, infer_roles(dims, names, stack))
        return _judge(traced, dims, names, found, groups, stack, target or type(model).__name__)


def _judge(
    traced: Trace,
    dims: Dims,
    names: Mapping[Atom, str],
    found: dict[str, Parameter],
    groups: tuple[tuple[str, ...], ...],
    stack: Branches,
    target: str,
) -> Analysis:
    roles = Roles(_dims(dims, names, found), found, traced.tied, tuple(sorted(dims.facts.folded.assumed)))
    everyone = dict(found)
    for group in traced.tied:
        everyone |= dict.fromkeys(group, found[group[0]])
    unknown = [name for name, p in found.items() if p.role == "unknown"]
    coverage = {
        "classified": len(found) - len(unknown),
        "unknown": len(unknown),
        "assumed_ops": list(roles.assumed),
        "literals": {},
    }
    return Analysis(
        target,
        traced,
        dims,
        roles,
        everyone,
        coverage,
        groups,
        stack.depth,
        tuple(str(g.what) + (f" ({g.source})" if g.source else "") for g in traced.guesses),
        traced.unused,
        stack.open,
    )


def _declared(names: Mapping[Atom, str], fixed: Sequence[str], scaling: Sequence[str]) -> dict[Atom, bool]:
    known = set(names.values())
    for name in (*fixed, *scaling):
        if name not in known:
            near = get_close_matches(name, known, n=3) or sorted(known)[:8]
            raise MupcError(f"no dim is named {name!r}; name one that the report lists, such as {', '.join(near)}")
    return {atom: name in scaling for atom, name in names.items() if name in fixed or name in scaling}


def name_dims(
    model: nn.Module,
    dims: Dims,
    repeated: Sequence[Sequence[str]] = (),
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> dict[Atom, str]:
    """A name for every atom on a parameter's axis, from the modules that hold the parameter.

    Atoms that lie inside one repeated block each, in the same places of it, and agree in size and verdict share one.
    """
    atoms = dims.facts.folded.atoms
    block_of = {member: group[0] for group in repeated for member in group}
    places: dict[Atom, dict[str, None]] = {}
    spots: dict[Atom, dict[_Spot, None]] = {}
    axes: set[Atom] = set()  # named before the parts of sums
    for parameter, node in dims.facts.trace.parameters.items():
        module = parameter.rpartition(".")[0]
        block, inner = _within_block(parameter, block_of)
        for at, axis in enumerate(dims.facts.folded.tensors[node][0]):
            order = 0
            for leaf in atoms.expand(axis):
                axes.add(leaf)
                for atom in (leaf, *dims.facts.parts.get(leaf, ())):
                    places.setdefault(atom, {})[module] = None
                    spots.setdefault(atom, {})[block, inner, at, order] = None
                    order += 1
    groups: dict[object, list[Atom]] = {}
    for atom, where in spots.items():
        kind = dims.kinds.get(atom)
        key = (atoms.size[atom], kind and kind.kind, kind and kind.grows, _shared(where, block_of) or atom)
        groups.setdefault(key, []).append(atom)
    held = Held(model, sizes)
    taken: set[str] = set()
    names: dict[Atom, str] = {}

    def importance(group: list[Atom]) -> tuple[bool, bool, int, int]:
        verdict = dims.kinds.get(group[0])
        return (not (verdict and verdict.grows), group[0] not in axes, -sum(len(places[a]) for a in group), group[0])

    for group in sorted(groups.values(), key=importance):
        first = group[0]
        word = dims.kinds[first].kind if first in dims.kinds else "count"
        fallback = "head_dim" if _is_head_dim(dims, first) else f"d{atoms.size[first]}"
        name = name_for(atoms.size[first], list(places[first])[:16], held, taken, word, fallback)
        taken.add(name)
        names |= dict.fromkeys(group, name)
    return names


def _is_head_dim(dims: Dims, atom: Atom) -> bool:
    """Fixed, and contracted between activations or the minor factor beside heads."""
    kind = dims.kinds.get(atom)
    if kind is None or kind.kind != "inner":
        return False
    heads = {a for a, k in dims.kinds.items() if k.kind == "heads" and k.grows}
    beside = any(axis and axis[-1] == atom and heads.intersection(axis) for axis in dims.facts.products)
    return beside or bool(dims.facts.of[atom].contracted)


_Spot = tuple[str | None, str, int, int]  # block, parameter within it, axis, place on the axis


def _within_block(parameter: str, block_of: Mapping[str, str]) -> tuple[str | None, str]:
    """The outermost repeated block that holds a parameter, if any, and the parameter's name within it."""
    paths = accumulate(parameter.split("."), lambda path, name: f"{path}.{name}")
    block = next((path for path in paths if path in block_of), None)
    return block, parameter if block is None else parameter[len(block) + 1 :]


def _shared(where: Iterable[_Spot], block_of: Mapping[str, str]) -> object | None:
    """What atoms that may share a name agree in: the group of the one block that holds all these spots, and the spots
    relative to it. None where no block holds all."""
    blocks_met = {block for block, *_ in where}
    block = blocks_met.pop()
    return (block_of[block], tuple(spot[1:] for spot in where)) if block and not blocks_met else None


def _dims(dims: Dims, names: Mapping[Atom, str], parameters: Mapping[str, Parameter]) -> tuple[Dim, ...]:
    used = {name for p in parameters.values() for axis in p.axes for name in axis}
    used |= {name for p in parameters.values() for part in p.parts for name in (*part.fan_in, *part.fan_out)}
    out: list[Dim] = []
    for atom, name in names.items():
        if name in used:
            used.discard(name)
            kind = dims.kinds.get(atom)
            size = dims.facts.folded.atoms.size[atom]
            out.append(
                Dim(
                    name,
                    size,
                    kind.kind if kind else "count",
                    kind.grows if kind else False,
                    kind.why if kind else "no op reads it",
                )
            )
    return tuple(out)
