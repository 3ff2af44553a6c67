"""Rows of the axis algebra: reshape, permute, expand, cat, split, slice, pad, unfold, shuffle, pool."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from mupc.ops.products import grids, spatial_axes
from mupc.ops.table import row
from mupc.signature import Axes, Axis, Call, Operand, Shape, Signature, Sum, plain, sizes_of


def layout(
    operands: tuple[Axes, ...], results: tuple[Axes, ...], sizes: dict[str, int], marks: dict[str, str] | None = None
) -> Signature:
    """Values are moved, none is changed."""
    return Signature("layout", operands, results, sizes, ((0,),), marks or {})


@row(
    "view reshape _unsafe_view flatten unflatten squeeze unsqueeze _reshape_alias view_copy reshape_as ravel "
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
    return layout(((*out[:at], whole, *out[at + 1 :]), *_rest(call)), tuple(results), sizes | _rest_sizes(call))


def _rest(call: Call) -> tuple[Axes, ...]:
    return tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[1:]))


def _rest_sizes(call: Call) -> dict[str, int]:
    return sizes_of(*zip(_rest(call), call.shapes[1:], strict=True))


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
    if n == m:
        return layout((axes,), (axes,), sizes)
    start, step = _start(call, n), call.number("step", 1)
    if step > 1 and n % step == 0 and m == n // step and start < step:
        sizes |= {"major": m, "minor": step}
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
        ((*axes[:at], whole, *axes[at + 1 :]), *_rest(call)),
        ((*axes[:at], part, *axes[at + 1 :]),),
        sizes | _rest_sizes(call),
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


@row(
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d _pad_circular _pad_enum"
)
def pad(call: Call) -> Signature | None:
    """New places before and after an axis: a sum with the old dim in the middle."""
    src, dst = call.shapes[0], call.results[0]
    widths = call.ints("pad") or call.ints("padding")
    ins, outs = list(plain("r", src)), list(plain("r", src))
    sizes = sizes_of((tuple(ins), src))
    for i, (n, m) in enumerate(zip(src, dst, strict=True)):
        at = 2 * (len(src) - 1 - i)
        if n == m or at + 1 >= len(widths):
            continue
        before, after = widths[at], widths[at + 1]
        if before < 0 or after < 0 or before + n + after != m:
            sizes[f"q{i}"] = m
            outs[i] = (f"q{i}",) if m != 1 else ()
            continue
        sizes |= {f"b{i}": before, f"a{i}": after}
        parts: list[Axis] = []
        for label, size in ((f"b{i}", before), ("", n), (f"a{i}", after)):
            if size:
                parts.append(ins[i] if not label else (label,) if size != 1 else ())
        outs[i] = (Sum(tuple(parts)),) if len(parts) > 1 else parts[0]
    return layout((tuple(ins),), (tuple(outs),), sizes)


@row("unfold")
def unfold(call: Call) -> Signature | None:
    """Sliding windows along one axis: a new grid and a new window axis."""
    src, dst = call.shapes[0], call.results[0]
    at = call.number("dimension") % len(src)
    axes = plain("r", src)
    sizes = sizes_of((axes, src)) | {"grid": dst[at], "window": dst[-1]}
    if src[at] == dst[at] * dst[-1]:
        whole: Axis = tuple(w for w in ("grid", "window") if sizes[w] != 1)
    else:
        whole = axes[at]
    grid: Axis = ("grid",) if dst[at] != 1 else ()
    window: Axis = ("window",) if dst[-1] != 1 else ()
    return layout(((*axes[:at], whole, *axes[at + 1 :]),), ((*axes[:at], grid, *axes[at + 1 :], window),), sizes)


@row("im2col")
def im2col(call: Call) -> Signature | None:
    """nn.Unfold: b c h w -> b (c kh kw) places."""
    src, dst = call.shapes[0], call.results[0]
    kh, kw = call.ints("kernel_size")
    batch, c = src[:-3], src[-3]
    lead = plain("b", batch)
    sizes = sizes_of((lead, batch)) | {"c": c, "kh": kh, "kw": kw, "l": dst[-1], "h": src[-2], "w": src[-1]}
    one = {k: (k,) if v != 1 else () for k, v in sizes.items()}
    ins = (*lead, one["c"], one["h"], one["w"])
    return layout(
        (ins,), ((*lead, (*one["c"], *one["kh"], *one["kw"]), one["l"]),), sizes, {"kh": "kernel", "kw": "kernel"}
    )


@row("col2im")
def col2im(call: Call) -> Signature | None:
    """nn.Fold: b (c kh kw) places -> b c h w."""
    src, dst = call.shapes[0], call.results[0]
    kh, kw = call.ints("kernel_size")
    lead = plain("b", src[:-2])
    sizes = sizes_of((lead, src[:-2])) | {"c": dst[-3], "kh": kh, "kw": kw, "l": src[-1], "h": dst[-2], "w": dst[-1]}
    one = {k: (k,) if v != 1 else () for k, v in sizes.items()}
    ins = (*lead, (*one["c"], *one["kh"], *one["kw"]), one["l"])
    return layout((ins,), ((*lead, one["c"], one["h"], one["w"]),), sizes, {"kh": "kernel", "kw": "kernel"})


@row("pixel_shuffle pixel_unshuffle")
def pixel_shuffle(call: Call) -> Signature | None:
    """... (c r1 r2) h w -> ... c (h r1) (w r2), and back."""
    shuffle = call.op == "aten::pixel_shuffle"
    deep, flat = (call.shapes[0], call.results[0]) if shuffle else (call.results[0], call.shapes[0])
    r = call.number("upscale_factor") if shuffle else call.number("downscale_factor")
    lead = plain("b", deep[:-3])
    sizes = sizes_of((lead, deep[:-3])) | {"c": flat[-3], "ra": r, "rb": r, "h": deep[-2], "w": deep[-1]}
    one = {k: (k,) if v != 1 else () for k, v in sizes.items()}
    many = (*lead, (*one["c"], *one["ra"], *one["rb"]), one["h"], one["w"])
    few = (*lead, one["c"], (*one["h"], *one["ra"]), (*one["w"], *one["rb"]))
    return layout((many,), (few,), sizes) if shuffle else layout((few,), (many,), sizes)


@row("channel_shuffle native_channel_shuffle")
def channel_shuffle(call: Call) -> Signature | None:
    """(g c) -> (c g)."""
    src = call.shapes[0]
    groups = call.number("groups", 1)
    axes = plain("r", src)
    sizes = sizes_of((axes, src)) | {"g": groups, "c": src[1] // groups}
    g, c = (tuple(w for w in word if sizes[w] != 1) for word in ("g", "c"))
    return layout(((axes[0], (*g, *c), *axes[2:]),), ((axes[0], (*c, *g), *axes[2:]),), sizes)


@row(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices "
    "max_pool3d_with_indices max_pool1d_with_indices fractional_max_pool2d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d "
    "upsample_bicubic2d upsample_linear1d upsample_trilinear3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "grid_sampler grid_sampler_2d max_unpool2d affine_grid_generator mkldnn_max_pool2d"
)
def window(call: Call) -> Signature | None:
    """Channels are kept, places are a new grid where their number changes."""
    src, dst = call.shapes[0], call.results[0]
    if len(src) != len(dst):
        return None
    lead = 1 if len(src) == _spatial(call.op) + 1 else 2
    head = plain("b", src[:lead])
    sizes = sizes_of((head, src[:lead]))
    ins, outs = spatial_axes(src[lead:], dst[lead:], sizes)
    result = (*head, *outs)
    rest = _rest(call)
    results = tuple(result if s == dst else plain("q", s) for s in call.results)
    return layout(((*head, *ins), *rest), results, sizes | _rest_sizes(call), grids(outs))


def _spatial(op: str) -> int:
    return next((int(c) for c in reversed(op) if c.isdigit()), 2)


@row("view_as_complex view_as_real complex polar")
def complex_pairs(call: Call) -> Signature | None:
    """A trailing axis of two real numbers, or one complex number."""
    src, dst = call.shapes[0], call.results[0]
    axes = plain("r", src if len(src) <= len(dst) else dst)
    sizes = sizes_of((axes, src if len(src) <= len(dst) else dst)) | {"pair": 2}
    marks = {"pair": "count"}
    if len(src) > len(dst):
        return layout(((*axes, ("pair",)),), (axes,), sizes, marks)
    if len(src) < len(dst):
        return layout((axes,), ((*axes, ("pair",)),), sizes, marks)
    operands = tuple(
        tuple(a if n != 1 else () for a, n in zip(axes, s, strict=True)) for s in call.shapes if len(s) == len(axes)
    )
    return layout(operands, (axes,), sizes) if len(operands) == len(call.shapes) else None


@row("diagonal diag_embed diag linalg_diagonal")
def diagonal(call: Call) -> Signature | None:
    """The diagonal of two axes, or the inverse: both axes are one dim."""
    src, dst = call.shapes[0], call.results[0]
    few, many = (src, dst) if len(src) < len(dst) else (dst, src)
    if call.number("offset") or (call.op == "aten::diag" and len(src) != len(few)):
        return None
    i, j = (
        call.number(n, d) % len(many)
        for n, d in (("dim1", -2 if len(src) < len(dst) else 0), ("dim2", -1 if len(src) < len(dst) else 1))
    )
    if call.op == "aten::linalg_diagonal":
        i, j = len(many) - 2, len(many) - 1
    if many[i] != many[j]:
        return None
    axes = plain("r", few)
    rest = iter(axes[:-1])
    full = tuple(axes[-1] if d in (i, j) else next(rest) for d in range(len(many)))
    sizes = sizes_of((axes, few))
    return layout((axes,), (full,), sizes) if len(src) < len(dst) else layout((full,), (axes,), sizes)


@row(
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn fft_fftshift fft_ifftshift fft_hfft fft_ihfft _fft_r2c _fft_c2r _fft_c2c stft istft"
)
def fourier(call: Call) -> Signature | None:
    """A linear map along transformed axes: a new grid where the length changes."""
    src, dst = call.shapes[0], call.results[0]
    if len(src) != len(dst):
        return None
    sizes: dict[str, int] = {}
    ins, outs = spatial_axes(src, dst, sizes)
    return layout((ins, *_rest(call)), (outs,), sizes | _rest_sizes(call), grids(outs))
