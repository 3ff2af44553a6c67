"""Rows that move places: pad, unfold, pixel and channel shuffle, pooling, complex pairs, diagonals, Fourier."""

from __future__ import annotations

from dataclasses import replace

from mupc.ops.layout import layout, rest_axes, rest_sizes
from mupc.ops.products import grids, spatial_axes
from mupc.ops.table import row
from mupc.signature import Axis, Call, Signature, Sum, plain, sizes_of


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
    marks = {"kh": "kernel", "kw": "kernel", "l": "data"}
    return layout((ins,), ((*lead, (*one["c"], *one["kh"], *one["kw"]), one["l"]),), sizes, marks)


@row("col2im")
def col2im(call: Call) -> Signature | None:
    """nn.Fold: b (c kh kw) places -> b c h w."""
    src, dst = call.shapes[0], call.results[0]
    kh, kw = call.ints("kernel_size")
    lead = plain("b", src[:-2])
    sizes = sizes_of((lead, src[:-2])) | {"c": dst[-3], "kh": kh, "kw": kw, "l": src[-1], "h": dst[-2], "w": dst[-1]}
    one = {k: (k,) if v != 1 else () for k, v in sizes.items()}
    ins = (*lead, (*one["c"], *one["kh"], *one["kw"]), one["l"])
    marks = {"kh": "kernel", "kw": "kernel", "h": "data", "w": "data"}  # places of an image, in new axes
    return layout((ins,), ((*lead, one["c"], one["h"], one["w"]),), sizes, marks)


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
    rest = rest_axes(call)
    results = tuple(result if s == dst else plain("q", s) for s in call.results)
    slides = set(call.ints("stride") or (0,)) == {
        1
    }  # smooths along an axis, which may be the channels' (AlexNet's norm)
    return layout(((*head, *ins), *rest), results, sizes | rest_sizes(call), {} if slides else grids(outs))


def _spatial(op: str) -> int:
    return next((int(c) for c in reversed(op) if c.isdigit()), 2)


@row("view_as_complex view_as_real complex polar")
def complex_pairs(call: Call) -> Signature | None:
    """A trailing axis of two real numbers, or one complex number."""
    src, dst = call.shapes[0], call.results[0]
    axes = plain("r", src if len(src) <= len(dst) else dst)
    sizes = sizes_of((axes, src if len(src) <= len(dst) else dst)) | {"pair": 2}
    marks = {"pair": "few"}
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
    found = layout((ins, *rest_axes(call)), (outs,), sizes | rest_sizes(call))
    changed = ((str(a[0]), str(b[0])) for a, b in zip(ins, outs, strict=True) if a and b and a != b)
    return replace(found, regroups=tuple(((a,), (b,)) for a, b in changed))
