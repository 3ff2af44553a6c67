"""Laws of exact exponents: a group, its text, and what the abc-symmetry does to real training."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mupc.errors import MupcError
from mupc.exponents import Law, Monomial, Setting
from mupc.rulebase import load_rules

POWERS = st.fractions(min_value=-4, max_value=4, max_denominator=6)
DIMS = st.sampled_from(["n_embd", "depth", "d_ff", "h", "étage"])
MONOMIALS = st.dictionaries(DIMS, POWERS, max_size=4).map(Monomial.of)
n, m = Monomial.of({"n": 1}), Monomial.of({"m": 1})


@given(MONOMIALS, MONOMIALS, MONOMIALS)
def test_monomials_are_an_abelian_group(a, b, c):
    assert (a * b) * c == a * (b * c)
    assert a * b == b * a
    assert a * Monomial.ONE == a
    assert a / a == Monomial.ONE
    assert hash(a * b) == hash(b * a)


@given(MONOMIALS, MONOMIALS, POWERS, POWERS)
def test_powers_are_a_module_over_the_rationals(a, b, p, q):
    assert a ** (p + q) == a**p * a**q
    assert (a**p) ** q == a ** (p * q)
    assert (a * b) ** p == a**p * b**p
    assert a.sqrt() * a.sqrt() == a


@given(MONOMIALS)
def test_text_and_json_are_read_back(a):
    assert Monomial.parse(str(a)) == a
    assert Monomial.from_json(a.to_json()) == a


@given(MONOMIALS, st.dictionaries(DIMS, MONOMIALS), st.dictionaries(DIMS, POWERS))
def test_substituting_is_a_homomorphism(a, values, rates):
    b = Monomial.of({"h": Fraction(1, 3), "d_ff": -2})
    assert (a * b).substitute(values) == a.substitute(values) * b.substitute(values)
    assert a.substitute({}) == a
    assert (a * b).degree(rates) == a.degree(rates) + b.degree(rates)


@given(MONOMIALS, MONOMIALS, st.lists(st.floats(0.125, 8), min_size=5, max_size=5))
def test_evaluating_is_a_homomorphism(a, b, sizes):
    at = dict(zip(["n_embd", "depth", "d_ff", "h", "étage"], sizes, strict=True))
    assert (a * b).evaluate(at) == pytest.approx(a.evaluate(at) * b.evaluate(at), rel=1e-9)
    assert (a**-1).evaluate(at) == pytest.approx(1 / a.evaluate(at), rel=1e-9)
    assert Monomial.ONE.evaluate({}) == 1


def test_what_is_no_monomial_is_refused():
    with pytest.raises(MupcError, match=r"'n\^0.5' is neither 1 nor dim\^power"):
        Monomial.parse("n^0.5")
    for text in ("", "n^", "2", "n m", "n^1/0", "^2", "n**2", "n^-"):
        with pytest.raises(MupcError):
            Monomial.parse(text)
    with pytest.raises(TypeError):
        n**0.5  # type: ignore[operator]
    with pytest.raises(TypeError):
        Monomial((("n", 0.5),))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="canonical"):
        Monomial((("n", Fraction(1)), ("m", Fraction(1))))
    with pytest.raises(MupcError, match="no size is given for n"):
        n.evaluate({"m": 2})


def test_written_plainly():
    assert str(n**-1 * m ** Fraction(1, 2)) == "m^1/2 * n^-1"
    assert str(Monomial.ONE) == "1"
    assert (n**0).factors == ()
    assert Monomial.product(["n", "m", "n"]) == n**2 * m


def test_a_choice_is_settled_by_what_grows():
    law = Law.parse("fan_out^1/2 * max(fan_out, fan_in)^-1/2")
    assert law.symbols == {"fan_in", "fan_out"}
    assert law.at({"fan_out": m, "fan_in": Monomial.ONE}) == Monomial.ONE
    assert law.at({"fan_out": Monomial.ONE, "fan_in": n}) == n ** Fraction(-1, 2)
    assert law.at({"fan_out": m, "fan_in": n * n}) == m ** Fraction(1, 2) * n**-1
    assert Law.parse("min(a, b)").at({"a": n, "b": n**2}) == n
    assert Law.parse("max(a, b)").at({"a": n, "b": m}, {"n": 0, "m": 1}) == m
    with pytest.raises(MupcError):
        Law.parse("max(a, b")


# What the abc-symmetry does to training is in tests/test_symmetry.py.


@given(MONOMIALS, MONOMIALS, MONOMIALS, MONOMIALS)
def test_moving_is_a_group_action(std, lr, s, t):
    setting = Setting(std=std, lr=lr)
    for optimizer in load_rules().optimizers.values():
        symmetry = optimizer.law()
        assert symmetry.moved(symmetry.moved(setting, s), t) == symmetry.moved(setting, s * t)
        assert symmetry.moved(setting, Monomial.ONE) == setting
        moved = symmetry.moved(setting, t)
        assert moved.multiplier * moved.std == setting.multiplier * setting.std
