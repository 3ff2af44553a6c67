"""Rows of elementwise ops, reductions and norms."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Literal

from mupc.ops.index import data_dependent
from mupc.ops.table import aligned, row
from mupc.signature import Axes, Call, Kind, Signature, Sum, plain, sizes_of

Parity = Literal["odd", "even"] | None


def elementwise(
    call: Call,
    kind: Kind,
    terms: tuple[tuple[int, ...], ...] | None = None,
    degree: Fraction | None = Fraction(1),
    parity: Parity = "odd",
    bounded: bool = False,
) -> Signature | None:
    """Operands broadcast against the result; every axis keeps its dim."""
    if not call.results:
        return None
    shape = call.results[0]
    operands = [aligned(operand, shape) for operand in call.shapes]
    if any(axes is None for axes in operands):
        return None
    known = tuple(axes for axes in operands if axes is not None)
    result = plain("r", shape)
    sizes = sizes_of((result, shape))
    results = tuple(result if s == shape else plain(f"q{i}_", s) for i, s in enumerate(call.results))
    for axes, other in zip(results, call.results, strict=True):
        sizes |= sizes_of((axes, other))
    return Signature(
        kind,
        known,
        results,
        sizes,
        terms or tuple((i,) for i in range(len(known))),
        degree=degree,
        parity=parity,
        bounded=bounded,
    )


@row(
    "add sub rsub subtract where lerp copy maximum minimum fmax fmin masked_fill logaddexp logaddexp2 clamp "
    "clamp_min clamp_max clip fill hypot"
)
def additive(call: Call) -> Signature | None:
    """Values joined term by term; `where`'s condition joins axes only, and alone it says where it holds."""
    if call.op == "aten::where" and len(call.shapes) == 1:
        return data_dependent(call)
    return elementwise(call, "additive")


@row("addcdiv addcmul")
def added_product(call: Call) -> Signature | None:
    """An elementwise product, or quotient, added to the first operand."""
    return elementwise(call, "additive", ((0,), (1, 2)))


@row("mul multiply")
def product(call: Call) -> Signature | None:
    """An elementwise product: multilinear, with no label contracted."""
    return elementwise(call, "multilinear", (tuple(range(len(call.shapes))),))


@row("_weight_norm _weight_norm_interface")
def weight_norm(call: Call) -> Signature | None:
    """v scaled to the norms g (size 1 along the other axes)."""
    return (
        elementwise(Call(call.op, call.args, call.shapes, call.results[:1]), "pointwise", ((0, 1),))
        if len(call.results) == 1
        else None
    )


@row("div divide true_divide floor_divide atan2 arctan2 fmod remainder pow float_power xlogy")
def quotient(call: Call) -> Signature | None:
    """Elementwise, but not multilinear in the second operand."""
    degree = call.args.get("exponent")
    known = Fraction(degree).limit_denominator(64) if isinstance(degree, (int, float)) else None
    parity: Parity = (
        None if known is None or known.denominator != 1 else ("even" if known.numerator % 2 == 0 else "odd")
    )
    return elementwise(
        call,
        "pointwise",
        (tuple(range(len(call.shapes))),),
        known if call.op.startswith("aten::pow") else Fraction(1),
        parity,
    )


@row("relu relu6 leaky_relu prelu _prelu_kernel abs rrelu rrelu_with_noise threshold")
def rectifiers(call: Call) -> Signature | None:
    """Positively homogeneous of degree 1, neither odd nor even (abs is even)."""
    if call.op.startswith("aten::prelu") and len(call.shapes) == 2 and len(call.shapes[1]) == 1:
        return _prelu(call)
    return elementwise(call, "pointwise", None, Fraction(1), "even" if call.op == "aten::abs" else None)


def _prelu(call: Call) -> Signature | None:
    x, w = call.shapes
    axes = plain("r", x)
    weight: Axes = (axes[1] if w[0] != 1 and len(x) > 1 else (),)
    return Signature("pointwise", (axes, weight), (axes,), sizes_of((axes, x)), ((0, 1),), parity=None)


@row("tanh sigmoid hardtanh hardsigmoid erf sin cos atan arctan sign sgn asin acos tan sinc")
def bounded(call: Call) -> Signature | None:
    """Bounded; tanh, erf, sin, atan, sign are odd, cos is even, the sigmoids are neither."""
    op = call.op.removeprefix("aten::").removesuffix("_")
    parity: Parity = None if "sigmoid" in op else "even" if op in ("cos", "sinc") else "odd"
    degree = Fraction(1) if op in ("tanh", "hardtanh", "erf", "sin", "atan", "arctan", "asin") else None
    return elementwise(call, "pointwise", None, degree, parity, True)


@row(
    "gelu silu mish elu selu celu softplus hardswish log_sigmoid exp exp2 expm1 log log1p log2 log10 hardshrink "
    "softshrink sinh cosh asinh acosh atanh erfc erfinv lgamma digamma logit special_erf i0 nan_to_num frac "
    "special_expit special_log_softmax"
)
def smooth(call: Call) -> Signature | None:
    """Smooth and not homogeneous; near-linear at the size of one."""
    return elementwise(call, "pointwise", None, None, None)


@row("square rsqrt sqrt reciprocal")
def powers(call: Call) -> Signature | None:
    """Homogeneous of the power's degree."""
    op = call.op.removeprefix("aten::").removesuffix("_")
    degree = {"square": Fraction(2), "rsqrt": Fraction(-1, 2), "sqrt": Fraction(1, 2), "reciprocal": Fraction(-1)}[op]
    return elementwise(call, "pointwise", None, degree, {"square": "even", "reciprocal": "odd"}.get(op))  # type: ignore[arg-type]


@row(
    "neg negative positive clone contiguous to _to_copy type_as detach alias dropout alpha_dropout "
    "feature_dropout native_dropout conj resolve_conj resolve_neg requires_grad_ lift_fresh lift_fresh_copy real "
    "imag angle diff cumsum cumprod logcumsumexp cummax cummin tril triu flip roll fliplr flipud ceil floor round "
    "trunc zero detach_copy set_data data _conj _neg_view view_copy _fw_primal retain_grad _cast_Float"
)
def same(call: Call) -> Signature | None:
    """Shape kept, linear: copies, casts, signs, cumulative sums, masks of triangles."""
    first = Call(call.op, call.args, call.shapes[:1], call.results)
    found = elementwise(first, "layout")
    if found is None or len(call.shapes) == 1:
        return found
    rest = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[1:]))
    if call.op in ("aten::type_as", "aten::to") and call.shapes[1] == call.shapes[0]:
        rest = tuple(plain("o", s) for s in call.shapes[1:])
    sizes = {**found.sizes, **sizes_of(*zip(rest, call.shapes[1:], strict=True))}
    return Signature("layout", (*found.operands, *rest), found.results, sizes, ((0,),))


@row(
    "eq ne lt le gt ge isnan isinf isfinite logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
    "bitwise_not bitwise_xor __and__ __or__ __xor__ __lshift__ __rshift__ bitwise_left_shift bitwise_right_shift "
    "isneginf isposinf isin bucketize searchsorted isclose signbit"
)
def decision(call: Call) -> Signature | None:
    """A yes or no, or an index, per element: axes are kept, sizes are not."""
    op = call.op.removeprefix("aten::")
    count = {"isin": 1, "bucketize": 1}.get(op, len(call.shapes))
    if op == "searchsorted":
        return None
    found = elementwise(Call(call.op, call.args, call.shapes[:count], call.results), "index", None, None, None)
    if found is None:
        return None
    rest = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[count:]))
    sizes = {**found.sizes, **sizes_of(*zip(rest, call.shapes[count:], strict=True))}
    return Signature("index", (*found.operands, *rest), found.results, sizes, degree=None, parity=None)


@row(
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like bernoulli normal_functional "
    "uniform normal exponential random log_normal geometric cauchy"
)
def like(call: Call) -> Signature | None:
    """New values in the shape of an operand."""
    found = elementwise(Call(call.op, call.args, call.shapes[:1], call.results), "factory")
    if found is None or len(call.shapes) == 1:
        return found
    return None


@row(
    "zeros ones empty full rand randn randint arange linspace logspace eye scalar_tensor new_zeros new_ones "
    "new_empty new_full randperm tril_indices triu_indices empty_strided new_empty_strided hann_window "
    "hamming_window _efficientzerotensor blackman_window empty_permuted"
)
def factory(call: Call) -> Signature | None:
    """New values in a shape of their own."""
    results = tuple(plain(f"r{i}_", s) for i, s in enumerate(call.results))
    operands = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes))
    sizes = sizes_of(*zip(results, call.results, strict=True), *zip(operands, call.shapes, strict=True))
    return Signature("factory", operands, results, sizes, degree=None, parity=None)


@row("sum mean nansum nanmean")
def summed(call: Call) -> Signature | None:
    """A product with ones: the reduced labels are contracted."""
    return _reduced(call, "multilinear", Fraction(1), "odd")


@row(
    "amax amin max min prod std var var_mean std_mean norm linalg_vector_norm logsumexp argmax argmin median any "
    "all count_nonzero nanmedian mode aminmax frobenius_norm nuclear_norm linalg_norm quantile special_logsumexp"
)
def reduced(call: Call) -> Signature | None:
    """A reduction that is not a sum."""
    op = call.op.removeprefix("aten::")
    if op in ("max", "min") and len(call.shapes) == 2:
        return additive(call)
    kind: Kind = "index" if op in ("argmax", "argmin", "any", "all", "count_nonzero") else "pointwise"
    return _reduced(call, kind, Fraction(1), None)


def _reduced(call: Call, kind: Kind, degree: Fraction | None, parity: Parity) -> Signature | None:
    x = call.shapes[0]
    dims = call.ints("dim") if "dim" in call.args else ()
    over = {d % len(x) for d in dims} if dims and len(x) else set(range(len(x)))
    if len(x) and "dim" not in call.args and call.op.endswith("quantile"):
        over = set(range(len(x)))
    axes = plain("r", x)
    kept = tuple(a for i, a in enumerate(axes) if i not in over)
    keepdim = tuple(() if i in over else a for i, a in enumerate(axes))
    results = tuple(keepdim if len(s) == len(x) else kept for s in call.results)
    if any(len(a) != len(s) for a, s in zip(results, call.results, strict=True)):
        return None
    reduced_labels = frozenset(label for i in over for label in axes[i] if isinstance(label, str))
    rest = tuple(plain(f"o{i}_", s) for i, s in enumerate(call.shapes[1:]))
    sizes = sizes_of((axes, x), *zip(rest, call.shapes[1:], strict=True))
    return Signature(kind, (axes, *rest), results, sizes, ((0,),), over=reduced_labels, degree=degree, parity=parity)


@row("softmax _softmax log_softmax _log_softmax special_softmax _safe_softmax")
def softmax(call: Call) -> Signature | None:
    """Normalised to sum one along one axis."""
    found = _normalised(call, (call.number("dim", -1),), 1)
    return found and replace(found, marks=dict.fromkeys(found.over, "routed"))


@row("layer_norm native_layer_norm rms_norm _fused_rms_norm")
def layer_norm(call: Call) -> Signature | None:
    """Normalised over the trailing axes, then gain and bias along them."""
    n = len(call.ints("normalized_shape")) or 1
    return _normalised(call, tuple(range(-n, 0)), n)


def _normalised(call: Call, dims: tuple[int, ...], tail: int) -> Signature | None:
    x = call.shapes[0]
    axes = plain("r", x)
    over = frozenset(label for d in dims for label in (axes[d] if x else ()) if isinstance(label, str))
    affine = tuple(axes[len(x) - tail :] for _ in call.shapes[1:])
    results = [axes] + [plain(f"q{i}_", s) for i, s in enumerate(call.results[1:])]
    sizes = sizes_of((axes, x), *zip(results[1:], call.results[1:], strict=True))
    return Signature("normalise", (axes, *affine), tuple(results), sizes, _affine(len(affine)), over=over)


def _affine(count: int) -> tuple[tuple[int, ...], ...]:
    """Terms of normalised value, gain and bias: x w + b."""
    return {0: ((0,),), 1: ((0, 1),)}.get(count, ((0, 1), (2,)))


@row(
    "batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional cudnn_batch_norm "
    "instance_norm _batch_norm_impl_index _native_batch_norm_legit_no_training group_norm native_group_norm"
)
def channel_norm(call: Call) -> Signature | None:
    """Normalised per channel (batch), sample and channel (instance) or group of channels; gain and bias per channel."""
    x = call.shapes[0]
    axes = plain("r", x)
    channel: Axes = (axes[1],)
    batch = "batch_norm" in call.op
    places = frozenset(
        label for i, a in enumerate(axes) if (i > 1 or (batch and i == 0)) for label in a if isinstance(label, str)
    )
    grouped = "group_norm" in call.op
    over = places | (frozenset(label for label in axes[1] if isinstance(label, str)) if grouped else frozenset())
    results = [axes] + [channel if s == x[1:2] else plain(f"q{i}_", s) for i, s in enumerate(call.results[1:])]
    sizes = sizes_of((axes, x), *zip(results[1:], call.results[1:], strict=True))
    operands = (axes, *(channel for _ in call.shapes[1:]))
    names = ("weight", "bias")
    affine = [o.index for o in (call.operand(n) for n in names) if o is not None]
    terms = ((0, *affine[:1]), *((i,) for i in affine[1:]))
    return Signature("normalise", operands, tuple(results), sizes, terms, over=over)


@row("glu")
def glu(call: Call) -> Signature | None:
    """The first half times the sigmoid of the second: two parts of one dim."""
    x = call.shapes[0]
    (out,) = call.results
    at = call.number("dim", -1) % len(x)
    half = plain("r", out)
    whole = tuple((Sum((half[i], half[i])),) if i == at else a for i, a in enumerate(half))
    return Signature("pointwise", (whole,), (half,), sizes_of((half, out)), ((0,),), degree=None, parity=None)


@row(
    "cross_entropy_loss nll_loss nll_loss2d nll_loss_nd mse_loss l1_loss smooth_l1_loss huber_loss "
    "binary_cross_entropy binary_cross_entropy_with_logits kl_div ctc_loss cosine_embedding_loss poisson_nll_loss "
    "soft_margin_loss triplet_margin_loss"
)
def loss(call: Call) -> Signature | None:
    """A loss joins prediction and target where their shapes agree, and ends the network."""
    first = call.shapes[0]
    axes = plain("r", first)
    operands = [axes if s == first else plain(f"o{i}_", s) for i, s in enumerate(call.shapes)]
    results = tuple(axes if s == first else plain(f"q{i}_", s) for i, s in enumerate(call.results))
    sizes = sizes_of(*zip(operands, call.shapes, strict=True), *zip(results, call.results, strict=True))
    return Signature("index", tuple(operands), results, sizes, degree=None, parity=None)
