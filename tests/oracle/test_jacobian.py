"""The Jacobian oracle on cases small enough to check by eye."""

from __future__ import annotations

from fractions import Fraction

from tests.oracle.jacobian import Ratios, integers, replaced, violations


def test_one_dim_cannot_move_two_ways() -> None:
    ratios = Ratios()
    assert ratios.add(("a",), Fraction(2), "x") is None
    assert ratios.add(("a",), Fraction(3), "y") == "y against x"


def test_products_are_solved() -> None:
    ratios = Ratios()
    assert ratios.add(("h", "d"), Fraction(2), "q") is None
    assert ratios.add(("h", "d", "d"), Fraction(1), "r") is None
    assert ratios.ratio(("d",)) == Fraction(1, 2)
    assert ratios.ratio(("h",)) == 4
    assert ratios.add(("h",), Fraction(2), "bias") is not None


def test_unexplained_axes_are_named() -> None:
    axes = {"w": (("ff",), ("d",)), "v": (("d",), ("d",))}
    before, after = {"w": (8, 4), "v": (4, 4)}, {"w": (8, 8), "v": (4, 8)}
    assert violations(axes, before, after, {"ff": 8, "d": 4}, {}) == ["v[0] = d: 4 -> 4 against w[1] = d: 4 -> 8"]


def test_sums_are_held_to_their_parts() -> None:
    axes = {"x": (("xp",),), "n": (("state",),), "r": (("rank",),)}
    sizes, sums = {"xp": 13, "state": 5, "rank": 3}, {"xp": [[("rank",), ("state",), ("state",)]]}
    before = {"x": (13,), "n": (5,), "r": (3,)}
    assert violations(axes, before, {"x": (23,), "n": (10,), "r": (3,)}, sizes, sums) == []
    assert violations(axes, before, {"x": (26,), "n": (10,), "r": (3,)}, sizes, sums) != []


def test_integers_are_found_everywhere_and_replaced_alone() -> None:
    config = {"dim": 8, "stages": [2, {"heads": 4}], "flag": True, "pad_token_id": 5}
    assert list(integers(config)) == [(("dim",), 8), (("stages", 0), 2), (("stages", 1, "heads"), 4)]
    assert replaced(config, ("stages", 1, "heads"), 6) == {**config, "stages": [2, {"heads": 6}]}
    assert config["stages"][1] == {"heads": 4}
