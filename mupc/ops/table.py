"""The table of rows, and the look-up from a graph node to its signature."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
from torch import fx

from mupc._paths import rules_dir
from mupc.signature import Axes, Call, Operand, Shape, Signature, mismatch, parse, plain, sizes_of

Row = Callable[[Call], Signature | None]
ROWS: dict[str, Row] = {}
_seen: dict[object, Signature] = {}


def row(ops: str) -> Callable[[Row], Row]:
    """Enter a function as the row of these ops: aten's where no namespace is named, in-place twins included."""

    def enter(function: Row) -> Row:
        for op in ops.split():
            ROWS[op if "::" in op else f"aten::{op}"] = function
        return function

    return enter


@cache
def strings() -> dict[str, str]:
    """The rows of `rules/ops.toml`: op name -> einsum pattern."""
    return dict(tomllib.loads((rules_dir() / "ops.toml").read_text())["multilinear"])


def signature_of(node: fx.Node) -> Signature:
    """The signature of a call node; equal calls share one, and copies of a block's node their template's."""
    like = node.meta.get("like", node)
    found: Signature | None = like.meta.get("signature")
    if found is None:
        found = like.meta["signature"] = _signature(like)
    return found


def _signature(node: fx.Node) -> Signature:
    results = shapes(node.meta.get("val"))
    key = (node.target, _key(node.args), *((name, _key(value)) for name, value in node.kwargs.items()), results)
    known = _seen.get(key)
    if known is None:
        tensors: list[Shape] = []
        args = {name: _abstract(value, tensors) for name, value in _named(node)}
        known = _seen[key] = lookup(Call(_op_name(node.target), args, tuple(tensors), results))
    return known


def _key(value: object) -> object:
    """What a signature may depend on, hashable: shapes and which tensors are masks, numbers, words."""
    if isinstance(value, fx.Node):
        value = value.meta.get("val")
    shape = getattr(value, "shape", None)
    if shape is not None:
        return (shape, True) if value.dtype is torch.bool else shape  # type: ignore[attr-defined]
    if isinstance(value, (tuple, list)):
        return tuple([_key(item) for item in value])
    return value if isinstance(value, (int, float, str, type(None))) else repr(value)


def lookup(call: Call) -> Signature:
    """The row's answer; without one, a guess from shapes that says so; without that, opaque."""
    op = call.op
    if op in strings():
        found = parse(strings()[op], call.shapes, call.results)
    else:
        rule = ROWS.get(op) or ROWS.get(op.removesuffix("_"))
        found = rule(call) if rule else guess(call)
    return found if found is not None and mismatch(found, call) is None else opaque(call)


def guess(call: Call) -> Signature | None:
    """Without a row, a result of the operands' broadcast shape is taken as pointwise, and counted as assumed."""
    if len(call.results) != 1 or not call.shapes:
        return None
    (shape,) = call.results
    result = plain("r", shape)
    operands = []
    for operand in call.shapes:
        axes = aligned(operand, shape)
        if axes is None:
            return None
        operands.append(axes)
    sizes = sizes_of((result, shape))
    return Signature(
        "pointwise",
        tuple(operands),
        (result,),
        sizes,
        (tuple(range(len(operands))),),
        assumed=True,
        degree=None,
        parity=None,
    )


def opaque(call: Call) -> Signature:
    """Nothing is known: fresh labels everywhere."""
    operands = tuple(plain(f"o{i}_", shape) for i, shape in enumerate(call.shapes))
    results = tuple(plain(f"r{i}_", shape) for i, shape in enumerate(call.results))
    sizes = sizes_of(*zip(operands, call.shapes, strict=True), *zip(results, call.results, strict=True))
    return Signature("opaque", operands, results, sizes, assumed=True, degree=None, parity=None)


def aligned(operand: Shape, result: Shape) -> Axes | None:
    """Labels of an operand broadcast to the result `r0 r1 ...`; None where it does not broadcast."""
    lead = len(result) - len(operand)
    if lead < 0 or any(n not in (1, m) for n, m in zip(operand, result[lead:], strict=True)):
        return None
    return tuple((f"r{lead + i}",) if n != 1 else () for i, n in enumerate(operand))


def shapes(value: object) -> tuple[Shape, ...]:
    """Shapes of a tensor, or of each tensor of a (nested) tuple or list; () for anything else."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return (tuple(shape),)
    if isinstance(value, (tuple, list)):
        return tuple(s for item in value for s in shapes(item))
    return ()


def _named(node: fx.Node) -> Iterator[tuple[str, object]]:
    """Arguments by schema name; those left out are absent."""
    names = _argument_names(node.target)
    for i, value in enumerate(node.args):
        yield (names[i] if i < len(names) else f"arg{i}"), value
    yield from node.kwargs.items()


@cache
def _argument_names(target: object) -> tuple[str, ...]:
    schema = getattr(target, "_schema", None)
    return tuple(a.name for a in schema.arguments) if schema is not None else ()


@cache
def _op_name(target: object) -> str:
    schema = getattr(target, "_schema", None)
    return str(schema.name) if schema is not None else getattr(target, "__name__", str(target))


def _abstract(value: object, tensors: list[Shape]) -> object:
    """Replace tensor nodes by operands, counted as they come; number nodes by their value."""
    if isinstance(value, fx.Node):
        found = value.meta.get("val")
        shape = getattr(found, "shape", None)
        if shape is not None:
            return _operand(found, tensors)
        if isinstance(found, (tuple, list)):
            return [_abstract_value(item, tensors) for item in found]
        return found
    if isinstance(value, (tuple, list)):
        return [_abstract(item, tensors) for item in value]
    return value


def _abstract_value(value: object, tensors: list[Shape]) -> object:
    return value if getattr(value, "shape", None) is None else _operand(value, tensors)


def _operand(value: object, tensors: list[Shape]) -> Operand:
    tensors.append(tuple(getattr(value, "shape", ())))
    return Operand(len(tensors) - 1, tensors[-1], getattr(value, "dtype", None) is torch.bool)


@cache
def printed(target: object) -> str:
    """An op as torch prints it: `aten.add.Tensor`."""
    return str(target)


@cache
def called(target: object) -> str:
    """An op without its overload, and without the namespace where that is aten's: `add`."""
    schema = getattr(target, "_schema", None)
    return str(schema.name if schema is not None else target).removeprefix("aten::")


FACTORIES = ("aten.zeros", "aten.new_zeros", "aten.empty", "aten.new_empty")  # tensors to be filled in, `_like` too
GUARD = 1e-3  # numbers below it are added to keep from dividing by zero, and have no size


def is_empty(node: fx.Node) -> bool:
    """Does it make a tensor of nothing yet?"""
    return node.op == "call_function" and printed(node.target).startswith(FACTORIES)


def tensor_nodes(node: fx.Node) -> list[fx.Node]:
    """The nodes behind the operands of a call, once per tensor, in the order `signature_of` counts them."""
    return _tensors((*node.args, *node.kwargs.values()))


def _tensors(values: Iterable[object]) -> list[fx.Node]:
    found: list[fx.Node] = []
    for value in values:
        if isinstance(value, fx.Node):
            held = value.meta.get("val")
            found += (value,) * (1 if getattr(held, "shape", None) is not None else len(shapes(held)))
        elif isinstance(value, (tuple, list)):
            found += _tensors(value)
    return found


def real(node: fx.Node) -> bool:
    """Does it hold numbers that may be any, no counts, ids or truths? True where it is not known."""
    held = node.meta.get("val")
    dtype = None if isinstance(held, (tuple, list)) else getattr(held, "dtype", None)
    return dtype is None or bool(dtype.is_floating_point or dtype.is_complex)
