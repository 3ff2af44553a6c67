"""Atoms: the smallest dims that the graph tells apart, in a union-find whose classes split into products and sums.

An axis is a tuple of atoms, major to minor; an axis of size 1 is `()`. Splitting an atom (768 = 12 x 64) splits it for
its whole class, so what is seen once in `q` refines every axis that is the same dim. A sum (`cat`, `split`, `slice`)
gives an atom parts laid end to end. In the manner of GSPMD (Xu et al. 2021) and Shardy's factor-based propagation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

Atom = int
Axis = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two axes that were said to be one dim and cannot be: their factors do not line up."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    node: str


class Atoms:
    """The union-find. `size[a]` is in elements; `factors[a]` and `sums[a]` are set on class roots only."""

    def __init__(self) -> None:
        self.parent: list[Atom] = []
        self.size: list[int] = []
        self.factors: list[Axis | None] = []
        self.sums: list[tuple[tuple[Axis, ...], ...]] = []
        self.conflicts: list[Conflict] = []
        self.lost: list[tuple[Axis, tuple[Axis, ...]]] = []  # (axis, fresh axes that stand for its unaligned pieces)
        self.broken: list[tuple[tuple[Axis, ...], Axis]] = []  # parts of a sum, and factors that cut across them
        self.node = ""  # what is being folded now, for conflicts
        self._cats: dict[tuple[Axis, ...], Atom] = {}
        self._expanded: dict[Axis, Axis] | None = None  # once nothing changes any more

    def new(self, size: int) -> Axis:
        """A fresh axis of that size."""
        if size == 1:
            return ()
        self.parent.append(len(self.parent))
        self.size.append(size)
        self.factors.append(None)
        self.sums.append(())
        return (len(self.parent) - 1,)

    def find(self, atom: Atom) -> Atom:
        parent = self.parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def settle(self) -> None:
        """Nothing is unified or split from here on: what an axis expands to is remembered."""
        self._expanded = {}

    def expand(self, axis: Axis) -> Axis:
        """The axis as unsplit atoms, class roots only."""
        if self._expanded is None:
            return self._expand(axis)
        found = self._expanded.get(axis)
        if found is None:
            found = self._expanded[axis] = self._expand(axis)
        return found

    def _expand(self, axis: Axis) -> Axis:
        if len(axis) == 1:
            root = self.find(axis[0])
            inner = self.factors[root]
            return (root,) if inner is None else self._expand(inner)
        out: list[Atom] = []
        for atom in axis:
            root = self.find(atom)
            inner = self.factors[root]
            if inner is None:
                out.append(root)
            else:
                out.extend(self._expand(inner))
        return tuple(out)

    def length(self, axis: Axis) -> int:
        return prod(self.size[a] for a in axis)

    def unify(self, left: Axis, right: Axis) -> None:
        """Say that two axes are one dim; splits what must be split; records a conflict where that cannot be."""
        if left == right:
            return
        left, right = self.expand(left), self.expand(right)
        if left == right:
            return
        a, b = list(left), list(right)
        if self.length(left) != self.length(right):
            self._conflict(a, b)
            return
        while a and b:
            x, y = a.pop(0), b.pop(0)
            if x == y:
                continue
            n, m = self.size[x], self.size[y]
            if n == m:
                self._union(x, y)
            elif max(n, m) % min(n, m) == 0:
                big, small = (x, y) if n > m else (y, x)
                self._split(big, min(n, m))
                halves = self.expand((big,))
                self.unify(halves[:1], (small,))
                rest = list(self.expand(halves[1:]))
                if n > m:
                    a = rest + a
                else:
                    b = rest + b
            else:
                self._conflict([x, *a], [y, *b])
                return
            a, b = list(self.expand(tuple(a))), list(self.expand(tuple(b)))

    def split(self, axis: Axis, sizes: tuple[int, ...]) -> list[Axis]:
        """The axis as consecutive factors of the given sizes, major to minor; fresh ones where they do not line up."""
        rest = list(self.expand(axis))
        out: list[Axis] = []
        for size in sizes:
            taken: list[Atom] = []
            need = size
            while need > 1:
                if not rest:
                    return self._unaligned(axis, sizes)
                atom = rest.pop(0)
                n = self.size[atom]
                if need % n == 0:
                    taken.append(atom)
                    need //= n
                elif n % need == 0:
                    self._split(atom, need)
                    halves = self.expand((atom,))
                    taken.append(halves[0])
                    rest = list(halves[1:]) + rest
                    need = 1
                else:
                    return self._unaligned(axis, sizes)
            out.append(tuple(taken))
        return out if not rest else self._unaligned(axis, sizes)

    def _unaligned(self, axis: Axis, sizes: tuple[int, ...]) -> list[Axis]:
        self.conflicts.append(Conflict(tuple(self.size[a] for a in self.expand(axis)), sizes, self.node))
        fresh = [self.new(n) for n in sizes]
        self.lost.append((axis, tuple(fresh)))
        return fresh

    def cat(self, parts: tuple[Axis, ...]) -> Axis:
        """The axis whose parts are laid end to end; the same parts give the same axis."""
        parts = tuple(self.expand(p) for p in parts)
        if len(parts) == 1:
            return parts[0]
        known = self._cats.get(parts)
        if known is None:
            (known,) = self.new(sum(self.length(p) for p in parts)) or (None,)  # a sum has at least two places
            assert known is not None
            self.sums[known] = (parts,)
            self._cats[parts] = known
        return (known,)

    def parts(self, axis: Axis, sizes: tuple[int, ...]) -> list[Axis]:
        """The axis cut into ranges of the given sizes, in order."""
        whole = self.expand(axis)
        if len(whole) == 1 and not self.sums[whole[0]]:
            pieces = tuple(self.new(n) for n in sizes)
            if len(pieces) > 1:
                self.sums[whole[0]] = (pieces,)
                return list(pieces)
        out: list[Axis] = []
        at = 0
        for size in sizes:
            out.append(self.take(axis, at, at + size))
            at += size
        return out

    def take(self, axis: Axis, start: int, stop: int) -> Axis:
        """The range [start, stop) of an axis: a part of a sum, made where there is none."""
        atoms = self.expand(axis)
        total = self.length(atoms)
        if (start, stop) == (0, total):
            return atoms
        if not atoms:
            return ()
        minor = self.length(atoms[1:])
        if start % minor == 0 and stop % minor == 0:
            return self._take_atom(atoms[0], start // minor, stop // minor) + atoms[1:]
        fresh = self.new(stop - start)
        self.lost.append((axis, (fresh,)))
        return fresh

    def _take_atom(self, atom: Atom, start: int, stop: int) -> Axis:
        size = self.size[atom]
        if (start, stop) == (0, size):
            return (atom,)
        if not self.sums[atom]:
            pieces = tuple(self.new(n) for n in (start, stop - start, size - stop) if n)
            self.sums[atom] = (pieces,)
        chosen: list[Axis] = []
        at = 0
        for part in self.sums[atom][0]:
            n = self.length(self.expand(part))
            low, high = max(start - at, 0), min(stop - at, n)
            if low < high:
                chosen.append(part if (low, high) == (0, n) else self.take(part, low, high))
            at += n
        return self.cat(tuple(chosen))

    def _split(self, atom: Atom, major: int) -> None:
        """Split an unsplit atom into (major, minor); a sum's parts are split along with it where they can be."""
        minor = self.size[atom] // major
        halves = self.new(major) + self.new(minor)
        self.factors[atom] = halves
        sums, self.sums[atom] = self.sums[atom], ()
        for parts in sums:
            lengths = [self.length(self.expand(p)) for p in parts]
            if minor == 1 or any(n % minor for n in lengths):
                self.broken.append((parts, halves))
                continue
            majors: list[Axis] = []
            for part, n in zip(parts, lengths, strict=True):
                front, back = self.split(part, (n // minor, minor))
                self.unify(back, halves[1:])
                majors.append(front)
            if len(majors) > 1 and any(majors):
                top = self.expand(halves[:1])
                if len(top) == 1 and not self.sums[top[0]]:
                    self.sums[top[0]] = (tuple(majors),)

    def _union(self, x: Atom, y: Atom) -> None:
        """Join two unsplit atoms of one size."""
        self.parent[y] = x
        mine, theirs = self.sums[x], self.sums[y]
        self.sums[y] = ()
        if not mine or not theirs:
            self.sums[x] = mine or theirs
            return
        self.sums[x] = mine
        for parts in theirs:
            self._join_sum(x, parts)

    def _join_sum(self, x: Atom, parts: tuple[Axis, ...]) -> None:
        """Add a second way to lay an atom out; equal ways become one."""
        lengths = [self.length(self.expand(p)) for p in parts]
        for known in self.sums[self.find(x)]:
            if [self.length(self.expand(p)) for p in known] == lengths:
                for a, b in zip(known, parts, strict=True):
                    self.unify(a, b)
                return
        x = self.find(x)
        if self.factors[x] is None and len(self.sums[x]) < 4:
            self.sums[x] = (*self.sums[x], parts)

    def _conflict(self, a: list[Atom], b: list[Atom]) -> None:
        self.conflicts.append(Conflict(tuple(self.size[i] for i in a), tuple(self.size[i] for i in b), self.node))
