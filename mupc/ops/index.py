"""Rows of ops that look up: embedding, gather, scatter, top-k, sort."""

from __future__ import annotations

from mupc.ops.table import aligned, row
from mupc.signature import Axes, Axis, Call, Operand, Shape, Signature, plain, sizes_of


def index(
    operands: tuple[Axes, ...], results: tuple[Axes, ...], sizes: dict[str, int], marks: dict[str, str] | None = None
) -> Signature:
    """The values of the first operand, chosen by the others."""
    return Signature("index", operands, results, sizes, ((0,),), marks or {})


@row("embedding")
def embedding(call: Call) -> Signature | None:
    """weight v d, indices ... -> ... d; v is looked up."""
    (v, d), where = call.shapes[0], call.shapes[1]
    axes = plain("i", where)
    sizes = {"v": v, "d": d} | sizes_of((axes, where))
    feature: Axis = ("d",) if d != 1 else ()
    return index((((("v",) if v != 1 else ()), feature), axes), ((*axes, feature),), sizes, {"v": "lookup"})


@row("embedding_bag _embedding_bag _embedding_bag_forward_only")
def embedding_bag(call: Call) -> Signature | None:
    """weight v d -> bags d."""
    v, d = call.shapes[0]
    feature: Axis = ("d",) if d != 1 else ()
    rest = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[1:]))
    results: list[Axes] = [(*plain("g", call.results[0][:-1]), feature)]
    results += [plain(f"q{i}_", s) for i, s in enumerate(call.results[1:])]
    sizes = {"v": v, "d": d} | sizes_of(
        *zip(rest, call.shapes[1:], strict=True), (plain("g", call.results[0][:-1]), call.results[0][:-1])
    )
    sizes |= sizes_of(*zip(results[1:], call.results[1:], strict=True))
    return index((((("v",) if v != 1 else ()), feature), *rest), tuple(results), sizes, {"v": "lookup"})


@row("index _unsafe_index index_put _index_put_impl _unsafe_index_put")
def advanced(call: Call) -> Signature | None:
    """x[..., idx, ...]: the indexed axes are looked up, the indices' own axes take their place."""
    x = call.shapes[0]
    given = call.args.get("indices")
    if not isinstance(given, list):
        return None
    axes = plain("x", x)
    sizes = sizes_of((axes, x))
    looked: list[int] = []
    shapes: list[Shape] = []
    at = 0
    masks = False
    for item in given:
        span = 1
        if isinstance(item, Operand):
            mask = item.boolean
            span = max(1, len(item.shape)) if mask else 1
            looked += range(at, at + span)
            shapes.append(item.shape)
            masks |= mask
        at += span
    put = "put" in call.op
    values = call.operand("values")
    result = values.shape if put and values is not None else call.results[0]
    width = len(result) - (len(x) - len(looked)) if not put else None
    if put:
        width = 1 if masks else max((len(s) for s in shapes), default=0)
    if width is None or width < 0:
        return None
    kept = [axes[i] for i in range(len(x)) if i not in looked]
    contiguous = looked == list(range(looked[0], looked[-1] + 1)) if looked else True
    place = sum(1 for i in range(looked[0]) if i not in looked) if looked and contiguous else 0
    if put:
        return _put(call, axes, kept, place, width, sizes, values)
    fresh = tuple((f"i{n}",) if result[place + n] != 1 else () for n in range(width))
    sizes |= {f"i{n}": result[place + n] for n in range(width)}
    out = (*kept[:place], *fresh, *kept[place:])
    if any((() if n == 1 else 1) != (() if not a else 1) for a, n in zip(out, result, strict=True)):
        return None
    operands: list[Axes] = [axes]
    for item in given:
        if isinstance(item, Operand):
            lead = width - len(item.shape)
            fits = lead >= 0 and not masks and all(n in (1, result[place + lead + i]) for i, n in enumerate(item.shape))
            own = plain(f"o{item.index}_", item.shape)
            sizes |= sizes_of((own, item.shape))
            operands.append(tuple(fresh[lead + i] if n != 1 else () for i, n in enumerate(item.shape)) if fits else own)
    marks = {axes[i][0]: "lookup" for i in looked if axes[i] and isinstance(axes[i][0], str)}
    if len(looked) == width == 1 and not masks and x[looked[0]] == result[place]:
        out = (*kept[:place], axes[looked[0]], *kept[place:])  # the same places in another order
    return index(tuple(operands), (out,), sizes, marks)  # type: ignore[arg-type]


def _put(
    call: Call, axes: Axes, kept: list[Axis], place: int, width: int, sizes: dict[str, int], values: Operand | None
) -> Signature:
    """The values broadcast against what the same indices would read."""
    read: list[Axis] = [*kept[:place], *((f"i{n}",) for n in range(width)), *kept[place:]]
    operands: list[Axes] = [axes]
    for i, shape in enumerate(call.shapes[1:], 1):
        own: Axes = plain(f"o{i}_", shape)
        if values is not None and i == values.index and len(shape) <= len(read):
            beside = read[len(read) - len(shape) :]
            own = tuple(
                a if n != 1 and (a and sizes.get(str(a[0]), n) == n) else b
                for a, b, n in zip(beside, own, shape, strict=True)
            )
        sizes |= {k: n for k, n in sizes_of((own, shape)).items() if k not in sizes}
        operands.append(own)
    terms = ((0,),) if values is None else ((0,), (values.index,))
    return Signature("index", tuple(operands), (axes,), sizes, terms)


@row(
    "index_select take_along_dim gather index_copy index_add index_fill scatter scatter_add scatter_reduce index_reduce"
)
def along(call: Call) -> Signature | None:
    """Look up, or write, along one axis; the other axes keep their dims where sizes agree."""
    x, where = call.shapes[0], call.shapes[1] if len(call.shapes) > 1 else ()
    if "dim" not in call.args or not x:
        return None
    at = call.number("dim") % len(x)
    axes = plain("x", x)
    sizes = sizes_of((axes, x))
    op = call.op.removeprefix("aten::").removesuffix("_")
    reads = op in ("index_select", "gather", "take_along_dim")
    operands: list[Axes] = [axes]
    for i, shape in enumerate(call.shapes[1:], 1):
        own = plain("w", shape) if len(shape) == len(x) else plain(f"o{i}_", shape)
        if len(shape) == len(x):
            own = tuple(
                a if d != at and n == m else b for d, (a, b, n, m) in enumerate(zip(axes, own, x, shape, strict=True))
            )
            own = tuple(a if n != 1 else () for a, n in zip(own, shape, strict=True))
        fresh = {a[0]: n for a, n in zip(own, shape, strict=True) if a and isinstance(a[0], str)}
        if any(sizes.get(k, n) != n for k, n in fresh.items()):
            own = plain(f"o{i}_", shape)
            fresh = {a[0]: n for a, n in zip(own, shape, strict=True) if a and isinstance(a[0], str)}
        sizes |= fresh
        operands.append(own)
    if not reads:
        return Signature("index", tuple(operands), (axes,), sizes, tuple((i,) for i in range(len(operands)) if i != 1))
    dst = call.results[0]
    if op == "index_select":
        fresh_axis: Axis = operands[1][0] if where and dst[at] != 1 else ()
        fresh_axis = axes[at] if dst[at] == x[at] else fresh_axis  # the same places in another order
        out: Axes = (*axes[:at], fresh_axis, *axes[at + 1 :])
    else:
        out = operands[1] if dst == where else plain("w", dst)
        sizes |= sizes_of((out, dst))
    marks = {axes[at][0]: "lookup"} if axes[at] and isinstance(axes[at][0], str) else {}
    return index(tuple(operands), (out,), sizes, marks)  # type: ignore[arg-type]


@row("topk sort argsort kthvalue unique_consecutive multinomial msort")
def topk(call: Call) -> Signature | None:
    """Chosen by size along one axis: sort keeps the dim, top-k makes a new one."""
    x = call.shapes[0]
    if not x or any(len(r) != len(x) for r in call.results):
        return None
    at = call.number("dim", -1) % len(x)
    axes = plain("x", x)
    sizes = sizes_of((axes, x))
    dst = call.results[0]
    sizes["chosen"] = dst[at]
    chosen: Axis = axes[at] if dst[at] == x[at] else ("chosen",) if dst[at] != 1 else ()
    out = (*axes[:at], chosen, *axes[at + 1 :])
    marks = {axes[at][0]: "routed"} if axes[at] and isinstance(axes[at][0], str) else {}
    return index((axes,), tuple(out for _ in call.results), sizes, marks)  # type: ignore[arg-type]


@row("one_hot")
def one_hot(call: Call) -> Signature | None:
    """A new axis, one place per class."""
    src, dst = call.shapes[0], call.results[0]
    axes = plain("x", src)
    sizes = sizes_of((axes, src)) | {"classes": dst[-1]}
    return index((axes,), ((*axes, ("classes",) if dst[-1] != 1 else ()),), sizes, {"classes": "count"})


@row(
    "nonzero nonzero_numpy bincount histc _unique2 unique_dim masked_select argwhere nonzero_static "
    "masked_scatter _assert_async _assert_tensor_metadata item _local_scalar_dense allclose equal is_nonzero "
    "_assert_scalar torchvision::nms"
)
def data_dependent(call: Call) -> Signature | None:
    """Sizes that only the data knows: fresh axes, no values."""
    first = call.shapes[0] if call.shapes else ()
    if call.op.startswith("aten::masked_scatter"):
        axes = plain("r", first)
        mask = aligned(call.shapes[1], first) or plain("o1_", call.shapes[1])
        source = call.shapes[2]
        own = plain("o2_", source)
        if source and source[-1] == first[-1]:  # whole rows are placed
            own = (*own[:-1], axes[-1])
        sizes = sizes_of((axes, first), (mask, call.shapes[1]), (own, source))
        return Signature("index", (axes, mask, own), (axes,), sizes, ((0,), (2,)))
    operands = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes))
    results = tuple(plain(f"r{i}_", s) for i, s in enumerate(call.results))
    sizes = sizes_of(*zip(operands, call.shapes, strict=True), *zip(results, call.results, strict=True))
    return Signature("index", operands, results, sizes, degree=None, parity=None)


@row("torchvision::roi_align torchvision::roi_pool")
def regions(call: Call) -> Signature | None:
    """x b c h w, boxes k 5 -> k c p q: each box picks its image and places in it; channels stay."""
    x, boxes, result = call.shapes[0], call.shapes[1], call.results[0]
    ins, where = plain("x", x), plain("k", boxes)
    out: Axes = (where[0], ins[1], *plain("p", result)[2:])
    sizes = sizes_of((ins, x), (where, boxes), (out, result))
    return index((ins, where), (out,) * len(call.results), sizes)
