"""What an op means, said once: how the axes of its operands and results are related, and how values combine.

A signature is written in einops' manner. Every axis is a product of labels, major to minor (`(h d)`), a sum of such
products laid end to end (`(q + k)`), or `1`. The same label in two places is the same dim. Dims, roles and the flow
analysis are generic folds over signatures and know no op by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import prod
from typing import Literal

Shape = tuple[int, ...]
Kind = Literal["multilinear", "additive", "pointwise", "normalise", "layout", "index", "recurrent", "factory", "opaque"]


@dataclass(frozen=True, slots=True)
class Sum:
    """Parts laid end to end along one axis, as `cat` makes them."""

    parts: tuple[Axis, ...]


Term = str | Sum
Axis = tuple[Term, ...]  # a product, major to minor; () has size 1
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Signature:
    """The meaning of one call.

    `operands` and `results` give one axis pattern per tensor axis. `terms` says how values combine: the result is a
    sum over terms, each the product of the operands it lists (`linear` is `((0, 1), (2,))`). `marks` says what is
    special about a label: `kernel`, `lookup` (an operand is indexed along it), `count` (as many as a python list is
    long), `few` (a number in the code: a stride), `experts` (a routing decision picks along it). `over` holds the
    labels a reduction or norm runs over. `words` overrides, for an operand, the word of each axis (recurrent ops, whose
    inner products are not operands).
    """

    kind: Kind
    operands: tuple[Axes, ...]
    results: tuple[Axes, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    terms: tuple[tuple[int, ...], ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    over: frozenset[str] = frozenset()
    words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    degree: Fraction | None = Fraction(1)  # of homogeneity; None: not homogeneous
    parity: Literal["odd", "even"] | None = "odd"
    bounded: bool = False
    assumed: bool = False  # guessed from shapes alone
    regroups: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()  # labels whose products are equal, and no more

    @cached_property
    def flat(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """The labels on every axis of every operand, those inside sums too."""
        return tuple(tuple(tuple(labels(axis)) for axis in axes) for axes in self.operands)

    @cached_property
    def held(self) -> tuple[frozenset[str], ...]:
        """The labels of each operand."""
        return tuple(frozenset(label for axis in axes for label in axis) for axes in self.flat)

    @cached_property
    def made(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """The labels on every axis of every result."""
        return tuple(tuple(tuple(labels(axis)) for axis in axes) for axes in self.results)

    @cached_property
    def known(self) -> dict[object, object]:
        """What a stage has worked out about the signature alone, to be asked again at the next equal call."""
        return {}

    @cached_property
    def out(self) -> frozenset[str]:
        """The labels of the results."""
        return frozenset(label for axes in self.made for axis in axes for label in axis)


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument of a call: its place among the call's tensors, its shape, whether it is a mask."""

    index: int
    shape: Shape
    boolean: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One op call as signature functions see it: arguments by schema name, tensors replaced by operands."""

    op: str  # "aten::linear"
    args: Mapping[str, object]
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]

    def operand(self, name: str) -> Operand | None:
        """The tensor argument of that name, or None where it was not given."""
        value = self.args.get(name)
        return value if isinstance(value, Operand) else None

    def number(self, name: str, default: int = 0) -> int:
        """An int argument, or the default where it was left out."""
        value = self.args.get(name)
        return value if isinstance(value, int) else default

    def ints(self, name: str) -> tuple[int, ...]:
        """A list argument as a tuple; an int stands for a list of one; absent or None gives ()."""
        value = self.args.get(name)
        if isinstance(value, int):
            return (value,)
        return tuple(v for v in value if isinstance(v, int)) if isinstance(value, Sequence) else ()


def axis_size(axis: Axis, sizes: Mapping[str, int]) -> int:
    """The number of elements along an axis pattern."""
    return prod(
        sum(axis_size(part, sizes) for part in term.parts) if isinstance(term, Sum) else sizes[term] for term in axis
    )


def mismatch(signature: Signature, call: Call) -> str | None:
    """Why a signature cannot be that of a call (ranks or sizes disagree), or None."""
    pairs = [*zip(signature.operands, call.shapes, strict=False), *zip(signature.results, call.results, strict=False)]
    if len(signature.operands) != len(call.shapes) or len(signature.results) != len(call.results):
        return f"{call.op}: {len(call.shapes)} operands and {len(call.results)} results, not as its signature says"
    for axes, shape in pairs:
        if len(axes) != len(shape):
            return f"{call.op}: rank {len(shape)} where its signature says {len(axes)}"
        for axis, n in zip(axes, shape, strict=True):
            if any(label not in signature.sizes for label in labels(axis)) or axis_size(axis, signature.sizes) != n:
                return f"{call.op}: an axis of {n} where its signature says {axis}"
    return None


def written(signature: Signature) -> str:
    """A signature as a person writes it: `b s i, o i -> b s o`."""
    left, right = (
        ", ".join(" ".join(_axis(a) for a in axes) for axes in side) for side in (signature.operands, signature.results)
    )
    return f"{left} -> {right}"


def _axis(axis: Axis) -> str:
    words = [term if isinstance(term, str) else "(" + " + ".join(_axis(p) for p in term.parts) + ")" for term in axis]
    return "1" if not words else words[0] if len(words) == 1 else f"({' '.join(words)})"


def labels(axis: Axis) -> Iterable[str]:
    """Every label of an axis pattern, inside sums as well."""
    for term in axis:
        if isinstance(term, Sum):
            for part in term.parts:
                yield from labels(part)
        else:
            yield term


def plain(prefix: str, shape: Shape) -> Axes:
    """One fresh label per axis: `x0 x1 x2`; size-1 axes are `()`."""
    return tuple((f"{prefix}{i}",) if n != 1 else () for i, n in enumerate(shape))


def sizes_of(*pairs: tuple[Axes, Shape]) -> dict[str, int]:
    """Sizes of the labels that stand alone on an axis."""
    return {
        axis[0]: n
        for axes, shape in pairs
        for axis, n in zip(axes, shape, strict=True)
        if len(axis) == 1 and isinstance(axis[0], str)
    }


def parse(pattern: str, shapes: Sequence[Shape], results: Sequence[Shape]) -> Signature | None:
    """A multilinear signature from a string: `"... i, o i + o -> ... o"`.

    Commas separate the factors of a term, `+` separates terms, `...` stands for leading axes (broadcast against each
    other). Trailing terms without an operand are dropped (a bias that is None). Returns None where shapes disagree
    with the pattern.
    """
    left, right = (side.strip() for side in pattern.split("->"))
    groups = [[factor.split() for factor in term.split(",")] for term in left.split("+")]
    terms: list[tuple[int, ...]] = []
    flat: list[list[str]] = []
    for group in groups:
        if len(flat) + len(group) > len(shapes):
            break
        terms.append(tuple(range(len(flat), len(flat) + len(group))))
        flat.extend(group)
    if len(flat) != len(shapes):
        return None
    sizes: dict[str, int] = {}
    operands = [_match(words, shape, sizes) for words, shape in zip(flat, shapes, strict=True)]
    outs = [_match(words.split(), shape, sizes) for words, shape in zip(right.split(","), results, strict=False)]
    if any(axes is None for axes in (*operands, *outs)):
        return None
    return Signature(
        "multilinear",
        tuple(a for a in operands if a is not None),
        tuple(a for a in outs if a is not None),
        sizes,
        tuple(terms),
    )


def _match(words: list[str], shape: Shape, sizes: dict[str, int]) -> Axes | None:
    """Labels for one operand; `...` takes the leading axes, counted from the right so that they broadcast."""
    if "..." in words:
        at = words.index("...")
        rest = len(words) - 1
        free = len(shape) - rest
        if free < 0:
            return None
        words = [*words[:at], *(f"_{free - i}" for i in range(free)), *words[at + 1 :]]
    if len(words) != len(shape):
        return None
    axes: list[Axis] = []
    for word, n in zip(words, shape, strict=True):
        if n == 1:
            axes.append(())
            continue
        if sizes.setdefault(word, n) != n:
            return None
        axes.append((word,))
    return tuple(axes)
