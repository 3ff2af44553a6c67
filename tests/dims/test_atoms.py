"""Laws of the union-find: what is unified is one dim, a split is a split of the whole class, sums have inverses."""

from __future__ import annotations

from math import prod

from hypothesis import given
from hypothesis import strategies as st

from mupc.dims.atoms import Atoms


def test_a_split_seen_once_refines_every_axis_of_the_class() -> None:
    atoms = Atoms()
    q, k = atoms.new(768), atoms.new(768)
    atoms.unify(q, k)
    heads, head_dim = atoms.split(q, (12, 64))
    assert atoms.expand(k) == atoms.expand(heads) + atoms.expand(head_dim)
    assert [atoms.size[a] for a in atoms.expand(k)] == [12, 64]


def test_unifying_two_factorizations_takes_their_common_refinement() -> None:
    atoms = Atoms()
    left, right = atoms.new(24), atoms.new(24)
    atoms.split(left, (2, 12))
    atoms.split(right, (8, 3))
    atoms.unify(left, right)
    assert [atoms.size[a] for a in atoms.expand(left)] == [2, 4, 3]
    assert atoms.expand(left) == atoms.expand(right)
    assert not atoms.conflicts


def test_factorizations_that_do_not_line_up_are_a_conflict_not_a_guess() -> None:
    atoms = Atoms()
    left, right = atoms.new(24), atoms.new(24)
    atoms.split(left, (6, 4))
    atoms.split(right, (4, 6))
    atoms.node = "add_1"
    atoms.unify(left, right)
    assert [(c.left, c.right, c.node) for c in atoms.conflicts] == [((6, 4), (4, 6), "add_1")]


def test_cat_then_split_gives_the_parts_back() -> None:
    atoms = Atoms()
    q, k = atoms.new(32), atoms.new(8)
    whole = atoms.cat((q, k))
    assert atoms.parts(whole, (32, 8)) == [q, k]
    assert atoms.take(whole, 32, 40) == k
    assert atoms.cat((q, k)) == whole


def test_splitting_a_sum_splits_its_parts() -> None:
    """Fused qkv viewed as heads: (q + k + v) = (h + kv + kv) x hd."""
    atoms = Atoms()
    fused = atoms.new(64 + 16 + 16)
    q, k, v = atoms.parts(fused, (64, 16, 16))
    heads, head_dim = atoms.split(fused, (12, 8))
    assert [atoms.size[a] for a in atoms.expand(q)] == [8, 8]
    assert atoms.expand(q)[1:] == atoms.expand(k)[1:] == atoms.expand(v)[1:] == atoms.expand(head_dim)
    assert [atoms.expand(p) for p in atoms.parts(heads, (8, 2, 2))] == [atoms.expand(x)[:1] for x in (q, k, v)]


def test_rotating_halves_makes_them_one_dim() -> None:
    atoms = Atoms()
    head = atoms.new(64)
    first, second = atoms.take(head, 0, 32), atoms.take(head, 32, 64)
    atoms.unify(head, atoms.cat((second, first)))
    assert atoms.expand(first) == atoms.expand(second)


def test_overlapping_slices_end() -> None:
    atoms = Atoms()
    tokens = atoms.new(97)
    atoms.unify(atoms.take(tokens, 0, 96), atoms.take(tokens, 1, 97))
    assert atoms.length(atoms.expand(tokens)) == 97


factor_lists = st.lists(st.integers(2, 6), min_size=1, max_size=4)


@given(factor_lists, st.data())
def test_split_keeps_the_length_and_the_order(factors: list[int], data: st.DataObject) -> None:
    atoms = Atoms()
    axis = atoms.new(prod(factors))
    cuts = data.draw(st.sets(st.integers(1, len(factors))).map(lambda s: sorted(s | {len(factors)})))
    groups = [prod(factors[a:b]) for a, b in zip([0, *cuts], cuts, strict=False)]
    pieces = atoms.split(axis, tuple(factors))
    again = atoms.split(axis, tuple(groups))
    assert [atoms.length(atoms.expand(p)) for p in pieces] == factors
    assert [atoms.length(atoms.expand(p)) for p in again] == groups
    assert tuple(a for p in pieces for a in atoms.expand(p)) == atoms.expand(axis)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.data())
def test_take_of_cat_is_the_cat_of_what_lies_between(sizes: list[int], data: st.DataObject) -> None:
    atoms = Atoms()
    parts = tuple(atoms.new(n) for n in sizes)
    whole = atoms.cat(parts)
    i = data.draw(st.integers(0, len(sizes) - 1))
    j = data.draw(st.integers(i + 1, len(sizes)))
    taken = atoms.take(whole, sum(sizes[:i]), sum(sizes[:j]))
    assert atoms.expand(taken) == atoms.expand(atoms.cat(parts[i:j]))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_unify_is_an_equivalence(pairs: list[tuple[int, int]]) -> None:
    atoms = Atoms()
    axes = [atoms.new(60) for _ in range(6)]
    reach = {i: {i} for i in range(6)}
    for i, j in pairs:
        atoms.unify(axes[i], axes[j])
        joined = reach[i] | reach[j]
        for member in joined:
            reach[member] = joined
    for i in range(6):
        for j in range(6):
            assert (atoms.expand(axes[i]) == atoms.expand(axes[j])) == (j in reach[i])
