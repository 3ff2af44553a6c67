"""Rows of the multilinear ops whose pattern depends on the arguments: matmul, einsum, convolutions, attention."""

from __future__ import annotations

from dataclasses import replace

from mupc.ops.table import row
from mupc.signature import Axes, Axis, Call, Operand, Shape, Signature, Sum, parse, plain, sizes_of


@row("matmul linalg_matmul inner")
def matmul(call: Call) -> Signature | None:
    """torch.matmul: 1-D operands are vectors, leading axes broadcast."""
    a, b = call.shapes
    left = "k" if len(a) == 1 else "... i k"
    right = "k" if len(b) == 1 else "... k j"
    out = " ".join(
        w for w, n in (("... " if max(len(a), len(b)) > 2 else "", 1), ("i", len(a) > 1), ("j", len(b) > 1)) if n and w
    )
    return parse(f"{left}, {right} -> {out}", call.shapes, call.results)


@row("einsum")
def einsum(call: Call) -> Signature | None:
    """torch.einsum, ellipsis and implicit output included."""
    equation = str(call.args["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:
        letters = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(letters)
    pattern = ", ".join(_spaced(factor) for factor in left.split(","))
    return parse(f"{pattern} -> {_spaced(right)}", call.shapes, call.results)


def _spaced(letters: str) -> str:
    return " ".join(letters.replace("...", "@")).replace("@", "...")


@row("addmm addbmm baddbmm addmv addr")
def addmm(call: Call) -> Signature | None:
    """A product added to a (broadcast) first operand."""
    forms = {
        "addmm": "i k, k j",
        "addbmm": "b i k, b k j",
        "baddbmm": "b i k, b k j",
        "addmv": "i k, k",
        "addr": "i, j",
    }
    outs = {"addmm": "i j", "addbmm": "i j", "baddbmm": "b i j", "addmv": "i", "addr": "i j"}
    op = call.op.removeprefix("aten::").removesuffix("_")
    words = outs[op].split()
    bias = " ".join(words[len(words) - len(call.shapes[0]) :])
    found = parse(f"{bias} + {forms[op]} -> {outs[op]}", call.shapes, call.results)
    return found and replace(found, terms=((0,), (1, 2)))


@row("tensordot")
def tensordot(call: Call) -> Signature | None:
    """Contract the listed axes of both; keep the others in order."""
    a, b = call.shapes
    dims_a, dims_b = call.ints("dims_self"), call.ints("dims_other")
    left = [f"a{i}" for i in range(len(a))]
    right = [f"b{i}" for i in range(len(b))]
    for i, j in zip(dims_a, dims_b, strict=True):
        right[j % len(b)] = left[i % len(a)]
    kept = [w for w in left if w not in right] + [w for w in right if w not in left]
    return parse(f"{' '.join(left)}, {' '.join(right)} -> {' '.join(kept)}", call.shapes, call.results)


@row("cdist _cdist_forward")
def cdist(call: Call) -> Signature | None:
    """Distances between rows: every pair, summed over the feature axis."""
    return parse("... i k, ... j k -> ... i j", call.shapes[:2], call.results)


@row("conv1d conv2d conv3d convolution _convolution cudnn_convolution mkldnn_convolution")
def conv(call: Call) -> Signature | None:
    """A convolution contracts in-channels (of one group) and the kernel: x (g i), W (g o) i k -> (g o)."""
    x, w = call.shapes[:2]
    transposed = bool(call.args.get("transposed", False))
    return _conv(call, x, w, call.number("groups", 1), transposed)


def grids(places: Axes) -> dict[str, str]:
    """New grids of places are data, whatever is on them."""
    return {label: "data" for axis in places for label in axis if isinstance(label, str) and label.startswith("t")}


@row("conv_transpose1d conv_transpose2d conv_transpose3d")
def conv_transpose(call: Call) -> Signature | None:
    """A transposed convolution stores its weight as (g i) o k."""
    x, w = call.shapes[:2]
    return _conv(call, x, w, call.number("groups", 1), True)


def _conv(call: Call, x: Shape, w: Shape, groups: int, transposed: bool) -> Signature | None:
    spatial = len(w) - 2
    (out,) = call.results
    inner, outer = (w[0] // groups, w[1]) if transposed else (w[1], w[0] // groups)
    sizes = {"g": groups, "i": inner, "o": outer}
    grouped = _product("g", "i", sizes=sizes)
    made = _product("g", "o", sizes=sizes)
    alone = {"i": _product("i", sizes=sizes), "o": _product("o", sizes=sizes)}
    kernel = tuple((f"k{i}",) if n != 1 else () for i, n in enumerate(w[2:]))
    sizes |= {f"k{i}": n for i, n in enumerate(w[2:])}
    weight: Axes = (grouped, alone["o"], *kernel) if transposed else (made, alone["i"], *kernel)
    batch = plain("b", x[: len(x) - spatial - 1])
    places_in, places_out = spatial_axes(x[len(x) - spatial :], out[len(out) - spatial :], sizes)
    sizes |= sizes_of((batch, x[: len(batch)]))
    operands: list[Axes] = [(*batch, grouped, *places_in), weight]
    terms: list[tuple[int, ...]] = [(0, 1)]
    if len(call.shapes) > 2:
        operands.append((made,))
        terms.append((2,))
    marks = {f"k{i}": "kernel" for i in range(spatial)} | grids(places_out)
    return Signature("multilinear", tuple(operands), ((*batch, made, *places_out),), sizes, tuple(terms), marks)


def _product(*words: str, sizes: dict[str, int]) -> Axis:
    return tuple(w for w in words if sizes[w] != 1)


def spatial_axes(before: Shape, after: Shape, sizes: dict[str, int]) -> tuple[Axes, Axes]:
    """Places before and after a window op: the same place where the size is kept, a new grid where it is not."""
    ins, outs = [], []
    for i, (n, m) in enumerate(zip(before, after, strict=True)):
        sizes |= {f"s{i}": n, f"t{i}": m}
        ins.append((f"s{i}",) if n != 1 else ())
        outs.append(() if m == 1 else (f"s{i}",) if n == m else (f"t{i}",))
    return tuple(ins), tuple(outs)


@row(
    "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math"
)
def attention(call: Call) -> Signature | None:
    """softmax(q k^T) v: two products of activations, over the head dim and over the keys."""
    q, k, v = call.shapes[:3]
    lead = len(q) - 2
    sizes = {"s": q[-2], "d": q[-1], "t": k[-2], "e": v[-1]}
    heads: list[Axes] = [(), (), ()]
    for i in range(lead):
        n = max(q[i], k[i], v[i])
        sizes[f"b{i}"] = n
        if call.args.get("enable_gqa") and i == lead - 1 and q[i] != k[i] and k[i] != 1:
            sizes |= {"kv": k[i], "group": q[i] // k[i]}
            heads = [(*heads[0], ("kv", "group")), (*heads[1], ("kv",)), (*heads[2], ("kv",))]
        else:
            heads = [(*h, (f"b{i}",) if t[i] != 1 else ()) for h, t in zip(heads, (q, k, v), strict=True)]
    tail = {w: (w,) if sizes[w] != 1 else () for w in "sdte"}
    query: Axes = (*heads[0], tail["s"], tail["d"])
    out = tuple(a or b for a, b in zip(heads[0], heads[1], strict=True)) if lead else ()
    operands: list[Axes] = [query, (*heads[1], tail["t"], tail["d"]), (*heads[2], tail["t"], tail["e"])]
    for mask in call.shapes[3:]:
        full = (*out, tail["s"], tail["t"])
        shape = (*(max(n, m) for n, m in zip(q[:lead], k[:lead], strict=True)), q[-2], k[-2])
        if len(mask) > len(full):
            return None
        named = full[len(full) - len(mask) :]
        wide = shape[len(shape) - len(mask) :]
        operands.append(tuple(a if n != 1 and n == m else () for a, n, m in zip(named, mask, wide, strict=True)))
    results = [(*out, tail["s"], tail["e"]), *(plain(f"r{i}_", s) for i, s in enumerate(call.results[1:]))]
    sizes |= sizes_of(*zip(results[1:], call.results[1:], strict=True))
    marks = {"t": "routed"} if sizes["t"] != 1 else {}
    return Signature("multilinear", tuple(operands), tuple(results), sizes, ((0, 1, 2),), marks)


@row("_grouped_mm _scaled_grouped_mm transformers::grouped_mm_fallback")
def grouped_mm(call: Call) -> Signature | None:
    """One matrix per run of rows: x n k, W e k m -> n m; the expert of a row is a routing decision."""
    a, b = call.shapes[:2]
    left = "n k" if len(a) == 2 else "e n k"
    right = "e k m" if len(b) == 3 else "k m"
    out = {(2, 3): "n m", (3, 2): "n m", (3, 3): "e n m", (2, 2): "e n m"}[len(a), len(b)]
    found = parse(f"{left}, {right} -> {out}", (a, b), call.results)
    if found is None:
        return None
    rest = call.shapes[2:]
    axes = tuple(plain(f"x{i}_", shape) for i, shape in enumerate(rest))
    sizes = {**found.sizes, **sizes_of(*zip(axes, rest, strict=True))}
    return replace(found, operands=(*found.operands, *axes), sizes=sizes, marks={"e": "experts"})


@row("lstm gru rnn_tanh rnn_relu")
def recurrent(call: Call) -> Signature | None:
    """A stack of recurrent layers: W_ih (gates h) in, W_hh (gates h) h; both directions' states end to end."""
    gates = {"lstm": 4, "gru": 3}.get(call.op.removeprefix("aten::"), 1)
    both = bool(call.args.get("bidirectional"))
    states = _operands(call.args.get("hx"))
    weights = _operands(call.args.get("params"))
    data = call.operand("input") or call.operand("data")
    if data is None or not states or not weights:
        return None
    hidden = weights[1].shape[0] // gates
    out_size = states[0].shape[-1]
    projected = out_size != hidden
    sizes = {"gate": gates, "h": hidden, "both": 2, "p": out_size, "i": data.shape[-1], "layers": states[0].shape[0]}
    h = _product("h", sizes=sizes)
    p = _product("p", sizes=sizes) if projected else h
    gate_axis = (*_product("gate", sizes=sizes), *h)
    step: Axis = (Sum((p, p)),) if both else p
    biases = bool(call.args.get("has_biases"))
    per = 2 + 2 * biases + projected
    patterns: dict[int, Axes] = {data.index: (*plain("x", data.shape[:-1]), _product("i", sizes=sizes))}
    words: dict[int, tuple[str, ...]] = {}
    for n, weight in enumerate(weights):
        first = n // per < 1 + both
        place = n % per
        if place == per - 1 and projected:
            patterns[weight.index], words[weight.index] = (p, h), ("out", "in")
        elif place < 2:
            source = p if place == 1 else _product("i", sizes=sizes) if first else step
            patterns[weight.index], words[weight.index] = (gate_axis, source), ("out", "in")
        else:
            patterns[weight.index], words[weight.index] = (gate_axis,), ("batch",)
    for n, state in enumerate(states):
        patterns[state.index] = _state(state.shape, h if n else p, sizes)
    for i, shape in enumerate(call.shapes):
        patterns.setdefault(i, plain(f"o{i}_", shape))
        sizes |= sizes_of((patterns[i], shape)) if i not in words else {}
    out = call.results[0]
    results = [(*plain("x", out[:-1]), step)]
    results += [_state(shape, h if n else p, sizes) for n, shape in enumerate(call.results[1:])]
    for axes, shape in zip(results, call.results, strict=True):
        sizes |= {a[0]: n for a, n in zip(axes, shape, strict=True) if len(a) == 1 and isinstance(a[0], str)}
    operands = tuple(patterns[i] for i in range(len(call.shapes)))
    marks = {"gate": "count", "layers": "count"}
    return Signature(
        "recurrent",
        operands,
        tuple(results),
        sizes,
        (tuple(range(len(operands))),),
        marks,
        words=words,
        degree=None,
        parity=None,
    )


def _state(shape: Shape, last: Axis, sizes: dict[str, int]) -> Axes:
    middle = plain("n", shape[1:-1])
    return (_product("layers", sizes=sizes), *middle, last)


def _operands(value: object) -> list[Operand]:
    if isinstance(value, Operand):
        return [value]
    return [v for v in value if isinstance(v, Operand)] if isinstance(value, (list, tuple)) else []


@row("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def cell(call: Call) -> Signature | None:
    """One step of a recurrent layer."""
    gates = {"lstm_cell": 4, "gru_cell": 3}.get(call.op.removeprefix("aten::"), 1)
    states, w_ih, w_hh = _operands(call.args.get("hx")), call.operand("w_ih"), call.operand("w_hh")
    data = call.operand("input")
    if data is None or w_ih is None or w_hh is None:
        return None
    sizes = {"gate": gates, "h": w_hh.shape[1], "i": w_ih.shape[1]}
    h, i = _product("h", sizes=sizes), _product("i", sizes=sizes)
    gate_axis = (*_product("gate", sizes=sizes), *h)
    batch = plain("x", data.shape[:-1])
    sizes |= sizes_of((batch, data.shape[:-1]))
    patterns: dict[int, Axes] = {data.index: (*batch, i), w_ih.index: (gate_axis, i), w_hh.index: (gate_axis, h)}
    words: dict[int, tuple[str, ...]] = {w_ih.index: ("out", "in"), w_hh.index: ("out", "in")}
    patterns |= {state.index: (*batch, h) for state in states}
    for n in range(len(call.shapes)):
        if n not in patterns:
            patterns[n], words[n] = (gate_axis,), ("batch",)
    results = tuple((*batch, h) for _ in call.results)
    operands = tuple(patterns[n] for n in range(len(call.shapes)))
    return Signature(
        "recurrent",
        operands,
        results,
        sizes,
        (tuple(range(len(operands))),),
        {"gate": "count"},
        words=words,
        degree=None,
        parity=None,
    )
