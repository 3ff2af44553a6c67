"""Functions of one value: by degree where they are homogeneous, else by their shape at zero and far out."""

from __future__ import annotations

from fractions import Fraction

from mupc.flow.powers import HALF, Power, least, most, times
from mupc.flow.value import EMPTY, Value
from mupc.signature import Signature

ZERO = Fraction(0)
# Neither odd nor even, with f(0) = 0.
BENT = ("aten.gelu", "aten.glu", "aten.silu", "aten.mish", "aten.elu", "aten.selu", "aten.celu", "aten.hardswish",
        "aten.expm1", "aten.log1p", "aten.sinh", "aten.asinh", "aten.hardshrink")  # fmt: skip


def function(signature: Signature, x: Value, name: str) -> Value:
    """f(x), entry by entry."""
    kept = x.generators if signature.parity == "odd" else EMPTY
    if signature.degree is not None and not signature.bounded:
        degree = signature.degree
        if x.init is None:
            return Value(None, x.delta1 if degree == 1 else None, _power(x.delta, degree), None, None, kept)
        slope = (degree - 1) * x.init
        change = times(x.delta1, slope)
        return Value(degree * x.init, change, most((change, _power(x.delta, degree))), None, change, kept)
    shifted = signature.parity != "odd" and not name.startswith(BENT)
    init = ZERO if shifted else x.init
    mixed = beside(x) if shifted else ZERO
    if signature.bounded:
        init, delta, change = least(init, ZERO), least(x.delta, ZERO), times(x.delta1, saturated(x))
    else:
        init, delta, change = most((init, x.init)) if shifted else init, x.delta, x.delta1
    return Value(init, change, delta, None, change, kept, mixed=mixed)


def beside(x: Value) -> Fraction:
    """How far what vanishes of f(x) lies below the f(0) that stays."""
    return -x.init if x.init is not None and x.init < 0 else ZERO


def saturated(x: Value) -> Fraction:
    """The RMS slope of a bounded function whose input grows: a share 1/size of the entries is where it still moves."""
    return -HALF * x.init if x.init is not None and x.init > 0 else ZERO


def settled(x: Value) -> bool:
    """A softmax over growing logits has chosen: to first order it moves no more."""
    return x.init is not None and x.init > 0


def _power(power: Power, degree: Fraction) -> Power:
    return None if power is None or degree < 0 else power * degree
