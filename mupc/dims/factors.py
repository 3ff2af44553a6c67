"""Rule 3: of the factors of one axis exactly one grows, and not the one that activations contract (head_dim)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mupc.dims.atoms import Atom
from mupc.dims.facts import Facts
from mupc.dims.verdict import Kind, at, why_grows, width

Product = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Factors:
    """The facts, and the verdicts so far, which the rule adds to."""

    facts: Facts
    kinds: dict[Atom, Kind]

    def choose(self) -> None:
        """Settle every product: first what is contracted between activations, then what that leaves one choice for."""
        for product in (*self.facts.products, *self.facts.batched):
            self._fix_contracted(product)
        for product in self.facts.spread:
            self._spread(product)
        for product in self.facts.spread:
            if any(self._grown(atom) and self.kinds[atom].kind == "heads" for atom in product):
                for atom in filter(self.open, product):
                    self.settle(atom, Kind("inner", False, "another factor of the same side grows: the heads"))
        products = [p for p in self.facts.products if any(map(self.open, p))]
        while sum(map(self._partners, products)) or any(map(self._stands_out, products)):
            pass
        for atom in (a for p in products for a in p if self.open(a)):
            self.kinds[atom] = Kind("unknown", None, "a factor of a product of which none or several could grow")

    def open(self, atom: Atom) -> bool:
        """Could it grow, and has nothing been said of it?"""
        return atom not in self.kinds and (self._scales(atom) or self._contracted(atom))

    def _fix_contracted(self, product: Product) -> list[Atom]:
        """A factor contracted between activations is fixed where another could grow in its place."""
        fixed = []
        for atom in filter(self.open, product):
            partners = [a for a in product if a != atom and self.open(a) and not self._contracted(a)]
            if self._contracted(atom) and partners and not self._streams(atom):
                where = at(self.facts.evidence(atom))
                self.settle(atom, Kind("inner", False, f"contracted between activations at {where}; its partner grows"))
                fixed.append(atom)
        return fixed

    def _spread(self, product: Product) -> None:
        """The same where the factors are axes of one weight, (d, h, hd): what is left beside a head dim are heads."""
        if self._fix_contracted(product):
            for atom in filter(self.open, product):
                self.settle(atom, Kind("heads", True, why_grows(self.facts, atom)))

    def _partners(self, product: Product) -> bool:
        """What grows fixes its partners; what is alone grows. Was anything settled?"""
        left = list(filter(self.open, product))
        if left and any(map(self._grown, product)):
            for atom in left:
                self.settle(atom, Kind("inner", False, "another factor of the same axis grows"))
        elif len(left) == 1:
            heads = any(atom in self.kinds and self.kinds[atom].kind == "inner" for atom in product)
            self.settle(left[0], Kind("heads" if heads else "width", True, why_grows(self.facts, left[0])))
        else:
            return False
        return bool(left)

    def _stands_out(self, product: Product) -> bool:
        """Of several candidates: the one that stands alone as an axis, else the one no single place is taken from."""
        left = list(filter(self.open, product))
        if len(left) < 2:
            return False
        alone = [a for a in left if a in self.facts.alone and not self._batches(a)]
        kept = [a for a in left if not self._counted(a)]
        if len(alone) == 1:
            self.settle(alone[0], Kind("width", True, "the factor that stands alone as another parameter's axis"))
        elif len(kept) == 1:
            self.settle(kept[0], Kind("width", True, "the factor no single place of which is picked"))
        else:
            return False
        return True

    def settle(self, atom: Atom, kind: Kind) -> None:
        """The verdict on a sum is one on its parts: all are fixed with it, or each grows where it can."""
        parts = self.facts.parts.get(atom, ())
        for one in parts or (atom,):
            if one not in self.kinds and one not in self.facts.parts:
                grown = parts and kind.grows
                self.kinds[one] = replace(width(self.facts, one), kind=kind.kind) if grown else kind
        if parts:
            self.kinds[atom] = kind

    def _grown(self, atom: Atom) -> bool:
        return atom in self.kinds and bool(self.kinds[atom].grows)

    def _scales(self, atom: Atom) -> bool:
        """Made and consumed; a sum when one of its parts is."""
        return any(self.facts.of[a].scales for a in (atom, *self.facts.parts.get(atom, ())))

    def _streams(self, atom: Atom) -> bool:
        """A residual stream that a weight reads whole, not group by group: a width, whatever contracts it besides."""
        expand = self.facts.folded.atoms.expand
        reads = ([entry for axis in use.axes for entry in axis] for use in self.facts.of[atom].consumed)
        whole = any(
            any(word == "in" and expand(axis) == (atom,) for word, axis in entries)
            and not any(word == "batch" and axis for word, axis in entries)
            for entries in reads
        )
        return whole and atom in self.facts.streams

    def _contracted(self, atom: Atom) -> bool:
        return bool(self.facts.evidence(atom))

    def _batches(self, atom: Atom) -> bool:
        """A matrix is batched over it: it stands alone there as a number of groups does."""
        uses = (use for use in self.facts.of[atom].carried if use.contracts)
        return any({"in", "out"} <= {word for entry in use.axes for word, _ in entry} for use in uses)

    def _counted(self, atom: Atom) -> bool:
        """Single places are taken out of it, put into it, or looked up along it."""
        single = any(not part for way in self.facts.folded.atoms.sums[atom] for part in way)
        marked = (
            self.facts.of[a].marks & {"count", "picked", "gathered"} for a in (atom, *self.facts.parts.get(atom, ()))
        )
        return single or any(marked)
