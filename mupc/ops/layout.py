"""Rows of the axis algebra: reshape, permute, expand, cat, split, slice."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from mupc.ops.table import row
from mupc.signature import Axes, Axis, Call, Operand, Shape, Signature, Sum, plain, sizes_of


def layout(
    operands: tuple[Axes, ...], results: tuple[Axes, ...], sizes: dict[str, int], marks: dict[str, str] | None = None
) -> Signature:
    """Values are moved, none is changed."""
    return Signature("layout", operands, results, sizes, ((0,),), marks or {})


@row(
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze _reshape_alias view_copy reshape_as view_as ravel "
    "squeeze_copy unsqueeze_copy atleast_1d atleast_2d atleast_3d _reshape_copy"
)
def reshape(call: Call) -> Signature | None:
    """Row-major regrouping: the common refinement of both factorizations gives the labels."""
    src, dst = call.shapes[0], call.results[0]
    ins, outs, sizes = refine(src, dst)
    before, after = ([x for axis in side for x in axis if x[0] == letter] for side, letter in ((ins, "u"), (outs, "v")))  # type: ignore[index]
    rest = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[1:]))
    sizes |= sizes_of(*zip(rest, call.shapes[1:], strict=True))
    found = layout((ins, *rest), (outs,), sizes)
    return replace(found, regroups=((tuple(before), tuple(after)),)) if before else found  # type: ignore[arg-type]


def refine(src: Shape, dst: Shape) -> tuple[Axes, Axes, dict[str, int]]:
    """Labels for a reshape: walk both shapes from the left, splitting the larger axis by the smaller.

    A stretch where neither divides the other (6 4 -> 8 3) gets labels with nothing in common.
    """
    ins: list[list[str]] = [[] for _ in src]
    outs: list[list[str]] = [[] for _ in dst]
    sizes: dict[str, int] = {}
    i = j = 0
    a = b = 1  # what is left of src[i - 1] and dst[j - 1]
    while True:
        while a == 1 and i < len(src):
            a, i = src[i], i + 1
        while b == 1 and j < len(dst):
            b, j = dst[j], j + 1
        if a == 1 or b == 1 or a == 0 or b == 0:
            break
        step = min(a, b)
        if max(a, b) % step:
            i, j = _unrelated(src, dst, i, j, ins, outs, sizes)
            if i < 0:
                break
            a = b = 1
            continue
        label = f"m{len(sizes)}"
        sizes[label] = step
        ins[i - 1].append(label)
        outs[j - 1].append(label)
        a, b = a // step, b // step
    if 0 in src or 0 in dst:
        ins, outs = [[] for _ in src], [[] for _ in dst]
        sizes = {}
        for side, shape, name in ((ins, src, "z"), (outs, dst, "y")):
            for at, n in enumerate(shape):
                if n != 1:
                    side[at], sizes[f"{name}{at}"] = [f"{name}{at}"], n
    return tuple(tuple(x) for x in ins), tuple(tuple(x) for x in outs), sizes


def _unrelated(
    src: Shape, dst: Shape, i: int, j: int, ins: list[list[str]], outs: list[list[str]], sizes: dict[str, int]
) -> tuple[int, int]:
    """Give up on the axes up to the next place where both prefixes agree; (-1, -1) where there is none."""
    left, right = i, j
    while prod(src[:left]) != prod(dst[:right]):
        if prod(src[:left]) < prod(dst[:right]):
            left += 1
        else:
            right += 1
        if left > len(src) or right > len(dst):
            return -1, -1
    for side, shape, start, stop, name in ((ins, src, i, left, "u"), (outs, dst, j, right, "v")):
        for at in range(start - 1, stop):
            label = f"{name}{at}"
            side[at] = [label] if shape[at] != 1 else []
            sizes[label] = shape[at]
    return left, right


@row(
    "permute transpose t movedim moveaxis swapaxes swapdims numpy_T mT adjoint mH matrix_H transpose_copy "
    "permute_copy t_copy rot90"
)
def permute(call: Call) -> Signature | None:
    """Axes in another order."""
    x = call.shapes[0]
    order = _order(call, len(x))
    if order is None or tuple(x[i] for i in order) != call.results[0]:
        return None
    axes = plain("r", x)
    return layout((axes,), (tuple(axes[i] for i in order),), sizes_of((axes, x)))


def _order(call: Call, rank: int) -> list[int] | None:
    op = call.op.removeprefix("aten::").removesuffix("_").removesuffix("_copy")
    order = list(range(rank))
    if op == "permute":
        return [d % rank for d in call.ints("dims")]
    if op in ("transpose", "swapaxes", "swapdims"):
        names = ("dim0", "dim1") if op != "swapaxes" else ("axis0", "axis1")
        i, j = (call.number(n) % rank for n in names)
        order[i], order[j] = order[j], order[i]
        return order
    if op in ("movedim", "moveaxis"):
        source = [d % rank for d in call.ints("source")]
        target = [d % rank for d in call.ints("destination")]
        rest = iter([d for d in order if d not in source])
        placed = dict(zip(target, source, strict=True))
        return [placed[d] if d in placed else next(rest) for d in order]
    if op in ("t", "numpy_T"):
        return order[::-1]
    if op == "rot90":
        i, j = (d % rank for d in call.ints("dims") or (0, 1))
        if call.number("k", 1) % 2:
            order[i], order[j] = order[j], order[i]
        return order
    if op in ("mT", "adjoint", "mH", "matrix_H"):
        return [*order[:-2], order[-1], order[-2]]
    return None


@row("expand expand_as broadcast_to expand_copy")
def expand(call: Call) -> Signature | None:
    """Repeats along axes of size one; a repeated axis is a new label."""
    src, dst = call.shapes[0], call.results[0]
    out = plain("r", dst)
    lead = len(dst) - len(src)
    axes = tuple(out[lead + i] if n != 1 else () for i, n in enumerate(src))
    operands = (axes, *((out,) if len(call.shapes) > 1 else ()))
    return layout(operands, (out,), sizes_of((out, dst)))


@row("broadcast_tensors meshgrid")
def broadcast_tensors(call: Call) -> Signature | None:
    """Several tensors broadcast to one shape."""
    if call.op == "aten::meshgrid" or len(set(call.results)) != 1:
        return None
    dst = call.results[0]
    out = plain("r", dst)
    operands = tuple(tuple(out[len(dst) - len(s) + i] if n != 1 else () for i, n in enumerate(s)) for s in call.shapes)
    return layout(operands, tuple(out for _ in call.results), sizes_of((out, dst)))


@row("repeat tile repeat_interleave")
def repeat(call: Call) -> Signature | None:
    """Copies laid beside each other (repeat: `r x`) or each element repeated (repeat_interleave: `x r`)."""
    src, dst = call.shapes[0], call.results[0]
    if call.op == "aten::repeat_interleave" and (len(src) != len(dst) or len(call.shapes) > 1):
        return None
    lead = len(dst) - len(src)
    ins, outs = plain("x", src), []
    sizes = sizes_of((ins, src))
    for i, n in enumerate(dst):
        old = src[i - lead] if i >= lead else 1
        axis = ins[i - lead] if i >= lead else ()
        if old == 0 or n % old:
            return None
        times = n // old
        sizes[f"n{i}"] = times
        fresh: Axis = (f"n{i}",) if times != 1 else ()
        outs.append((*axis, *fresh) if call.op == "aten::repeat_interleave" else (*fresh, *axis))
    return layout((ins,), (tuple(outs),), sizes)


@row("cat concat concatenate hstack vstack dstack column_stack row_stack")
def cat(call: Call) -> Signature | None:
    """Parts end to end along one axis: a sum."""
    (dst,) = call.results
    at = _cat_axis(call, len(dst))
    if at is None:
        return None
    out = plain("r", dst)
    sizes = sizes_of((out, dst))
    operands: list[Axes] = []
    parts: list[Axis] = []
    for i, shape in enumerate(call.shapes):
        if len(shape) != len(dst) or shape[at] == 0:
            operands.append(plain(f"o{i}_", shape))
            sizes |= sizes_of((operands[-1], shape))
            continue
        part: Axis = (f"p{i}",) if shape[at] != 1 else ()
        sizes[f"p{i}"] = shape[at]
        parts.append(part)
        operands.append((*out[:at], part, *out[at + 1 :]))
    whole: Axis = parts[0] if len(parts) == 1 else (Sum(tuple(parts)),)
    result = (*out[:at], whole, *out[at + 1 :])
    return Signature("layout", tuple(operands), (result,), sizes, tuple((i,) for i in range(len(operands))))


def _cat_axis(call: Call, rank: int) -> int | None:
    op = call.op.removeprefix("aten::")
    if op in ("cat", "concat", "concatenate"):
        return call.number("dim") % rank
    fixed = {"hstack": 0 if rank == 1 else 1, "vstack": 0, "row_stack": 0, "dstack": 2, "column_stack": 1}[op]
    return fixed if all(len(s) == rank for s in call.shapes) else None


@row("stack")
def stack(call: Call) -> Signature | None:
    """A new axis, as long as the python list."""
    (dst,) = call.results
    at = call.number("dim") % len(dst)
    out = plain("r", dst)
    one = (*out[:at], *out[at + 1 :])
    sizes = sizes_of((out, dst))
    marks = _counted(out[at])
    return Signature(
        "layout", tuple(one for _ in call.shapes), (out,), sizes, tuple((i,) for i in range(len(call.shapes))), marks
    )


@row(
    "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk unsafe_split_with_sizes split_copy "
    "split_with_sizes_copy hsplit vsplit"
)
def split(call: Call) -> Signature | None:
    """The inverse of cat."""
    src = call.shapes[0]
    at = call.number("dim") % len(src)
    if call.op in ("aten::hsplit", "aten::vsplit"):
        return None
    out = plain("r", src)
    sizes = sizes_of((out, src))
    results: list[Axes] = []
    parts: list[Axis] = []
    for i, shape in enumerate(call.results):
        sizes[f"p{i}"] = shape[at]
        part: Axis = (f"p{i}",) if shape[at] != 1 else ()
        parts.append(part)
        results.append((*out[:at], part, *out[at + 1 :]))
    whole: Axis = parts[0] if len(parts) == 1 else (Sum(tuple(parts)),)
    return layout(((*out[:at], whole, *out[at + 1 :]), *rest_axes(call)), tuple(results), sizes | rest_sizes(call))


def rest_axes(call: Call) -> tuple[Axes, ...]:
    return tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[1:]))


def rest_sizes(call: Call) -> dict[str, int]:
    return sizes_of(*zip(rest_axes(call), call.shapes[1:], strict=True))


@row("unbind unbind_copy")
def unbind(call: Call) -> Signature | None:
    """One axis taken apart: it is as long as a python list."""
    src = call.shapes[0]
    at = call.number("dim") % len(src)
    axes = plain("r", src)
    rest = (*axes[:at], *axes[at + 1 :])
    return layout((axes,), tuple(rest for _ in call.results), sizes_of((axes, src)), _counted(axes[at]))


def _counted(axis: Axis) -> dict[str, str]:
    return {axis[0]: "count"} if axis and isinstance(axis[0], str) else {}


@row("select select_copy")
def select(call: Call) -> Signature | None:
    """One place along an axis."""
    src = call.shapes[0]
    at = call.number("dim") % len(src)
    axes = plain("r", src)
    return layout(
        (axes,), ((*axes[:at], *axes[at + 1 :]),), sizes_of((axes, src)), dict.fromkeys(_counted(axes[at]), "picked")
    )


@row("slice narrow slice_copy narrow_copy")
def slice_(call: Call) -> Signature | None:
    """A range of an axis is one part of a sum; a strided range is the major factor of a product."""
    src, dst = call.shapes[0], call.results[0]
    at = call.number("dim") % len(src)
    axes = plain("r", src)
    sizes = sizes_of((axes, src))
    n, m = src[at], dst[at]
    marks: dict[str, str] = {}
    if n == m:
        return layout((axes,), (axes,), sizes)
    start, step = _start(call, n), call.number("step", 1)
    if step > 1 and n % step == 0 and m == n // step and start < step:
        sizes, marks = sizes | {"major": m, "minor": step}, {"minor": "few"}
        whole: Axis = (*(("major",) if m != 1 else ()), "minor")
        part: Axis = ("major",) if m != 1 else ()
    elif step > 1:
        sizes["part"] = m
        whole, part = axes[at], (("part",) if m != 1 else ())
    else:
        pieces = {"before": start, "part": m, "after": n - start - m}
        sizes |= pieces
        whole = (Sum(tuple((k,) if v != 1 else () for k, v in pieces.items() if v)),)
        part = ("part",) if m != 1 else ()
    return layout(
        ((*axes[:at], whole, *axes[at + 1 :]), *rest_axes(call)),
        ((*axes[:at], part, *axes[at + 1 :]),),
        sizes | rest_sizes(call),
        marks,
    )


def _start(call: Call, n: int) -> int:
    start = call.number("start") if not isinstance(call.args.get("start"), Operand) else 0
    return max(0, min(n, start + n if start < 0 else start))


@row("slice_scatter select_scatter slice_inverse diagonal_scatter as_strided_scatter")
def scatter_into(call: Call) -> Signature | None:
    """A copy of the base with a range, or a place, overwritten."""
    base, source = call.shapes[:2]
    axes = plain("r", base)
    sizes = sizes_of((axes, base))
    at = call.number("dim") % len(base) if base else 0
    if call.op == "aten::select_scatter":
        return Signature("layout", (axes, (*axes[:at], *axes[at + 1 :])), (axes,), sizes, ((0,), (1,)))
    if call.op != "aten::slice_scatter":
        other = plain("o", source)
        return Signature("layout", (axes, other), (axes,), sizes | sizes_of((other, source)), ((0,), (1,)))
    n, m = base[at], source[at]
    if n == m:
        return Signature("layout", (axes, axes), (axes,), sizes, ((0,), (1,)))
    start, step = _start(call, n), call.number("step", 1)
    if step > 1 and n % step == 0 and m == n // step:
        sizes |= {"major": m, "minor": step}
        whole: Axis = (*(("major",) if m != 1 else ()), "minor")
        part: Axis = ("major",) if m != 1 else ()
    elif step > 1 or start + m > n:
        sizes["part"] = m
        whole, part = axes[at], (("part",) if m != 1 else ())
    else:
        pieces = {"before": start, "part": m, "after": n - start - m}
        sizes |= pieces
        whole = (Sum(tuple((k,) if v != 1 else () for k, v in pieces.items() if v)),)
        part = ("part",) if m != 1 else ()
    full = (*axes[:at], whole, *axes[at + 1 :])
    return Signature("layout", (full, (*axes[:at], part, *axes[at + 1 :])), (full,), sizes, ((0,), (1,)))


@row("meshgrid")
def grid(call: Call) -> Signature | None:
    """a, b, ... -> as many of a b ...: each one operand, repeated along the others' axes; `xy` swaps the first two."""
    axes = [plain(f"a{i}_", shape) for i, shape in enumerate(call.shapes)]
    result = [axis[0] if axis else () for axis in axes]
    if call.args.get("indexing") == "xy" and len(result) > 1:
        result[:2] = reversed(result[:2])
    sizes = sizes_of(*zip(axes, call.shapes, strict=True))
    return layout(tuple(axes), (tuple(result),) * len(call.results), sizes)
