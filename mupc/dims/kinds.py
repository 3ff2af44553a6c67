"""Which dims grow with width: the policy of DESIGN.md section 4, one function a rule, first match first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import fx

from mupc.dims.atoms import Atom
from mupc.dims.facts import Fact, Facts
from mupc.dims.fold import DATA, RawUse
from mupc.dims.paths import linear_pair, stream


@dataclass(frozen=True, slots=True)
class Kind:
    """The verdict on one atom. `grows` is None where it is not known."""

    kind: str
    grows: bool | None
    why: str


FINITE = (
    ("lookup", "lookup", "indexed: one row per id"),
    ("kernel", "kernel", "kernel of a convolution"),
    ("data", "data", "an axis of the model's input"),
    ("count", "count", "as long as a list in the code: taken apart or put together one by one"),
    ("picked", "count", "single places are picked along it"),
    ("experts", "experts", "a routing decision picks along it"),
)


def kinds(facts: Facts, declared: Mapping[Atom, bool] = MappingProxyType({})) -> dict[Atom, Kind]:
    """A verdict for every atom that a parameter's axis, or a part of one, is made of; what the user declared stands."""
    out = {atom: Kind("width" if grows else "inner", grows, "declared by the user") for atom, grows in declared.items()}
    atoms = [atom for atom, fact in facts.of.items() if fact.produced or fact.consumed or fact.carried or fact.marks]
    for atom in atoms:
        if atom in out:
            continue
        found = finite(facts.of[atom]) or experts(facts, atom) or dangling(facts, atom)
        if found:
            out[atom] = found
    for atom in atoms:
        if atom not in out and atom not in facts.parts and (found := state(facts, atom, out) or rank(facts, atom)):
            out[atom] = found
    choose(facts, out)
    for atom in atoms:
        if atom not in out and atom not in facts.parts:
            out[atom] = width(facts, atom)
    for atom in sorted(facts.parts, key=lambda a: len(facts.parts[a])):
        out[atom] = whole(facts, atom, out)
    return out


def finite(fact: Fact) -> Kind | None:
    """Rule 1: data, lookup and kernel axes, counts, and the primary output's features."""
    for mark, kind, why in FINITE:
        if mark in fact.marks and not (mark == "count" and fact.scales) and not (mark == "picked" and fact.consumed):
            return Kind(kind, False, why)
    if "output" in fact.marks and not fact.scales:
        return Kind("data", False, "an axis of the model's output")
    return None


def experts(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 2: an axis that a weight with in and out axes of its own is batched over (experts, groups)."""
    if any(
        facts.of[other].contracted
        for product in facts.products
        if atom in product
        for other in product
        if other != atom
    ):
        return None
    if "routed" in facts.of[atom].marks and any(atom in axes for axes in facts.spread):
        return Kind("experts", False, "a routing decision picks along it")
    for use in facts.of[atom].carried:
        words = {word for entries in use.axes for word, _ in entries}
        if use.contracts and {"in", "out"} <= words:
            return Kind("experts", False, f"{use.parameter} is batched over it ({use.op})")
    return None


def dangling(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 1, end: made by no parameter, or carried only."""
    fact = facts.of[atom]
    if atom in facts.parts or fact.produced:
        return None
    if "opaque" in fact.marks:
        return Kind("unknown", None, "comes out of an op whose meaning is not known")
    if fact.consumed:
        return Kind("data", False, "no parameter makes it")
    return Kind("count", False, "an axis of parameters alone: neither contracted nor made by a weight")


def state(facts: Facts, atom: Atom, known: dict[Atom, Kind]) -> Kind | None:
    """Rule 4: contracted between activations, carried by a parameter that carries a channel axis too (SSM state)."""
    fact = facts.of[atom]
    if (
        not fact.contracted
        or fact.consumed
        or any(atom in product for product in facts.products if len(product) > 1 and _grown(facts, product, atom))
    ):
        return None
    for use in (*fact.carried, *fact.produced):
        if any(word in ("in", "lookup") for entries in use.axes for word, _ in entries):
            continue
        for entries in use.axes:
            for _word, axis in entries:
                for other in facts.folded.atoms.expand(axis):
                    for channel in facts.parts.get(other, (other,)):
                        if channel != atom and channel not in known and facts.of[channel].scales:
                            return Kind(
                                "inner", False, f"state of a scan: {use.parameter} carries it beside a channel axis"
                            )
    return None


def _grown(facts: Facts, product: tuple[Atom, ...], atom: Atom) -> bool:
    return any(other != atom and facts.of[other].scales for other in product)


def rank(facts: Facts, atom: Atom) -> Kind | None:
    """Rule 5: made and consumed with only linear or norm ops between, narrower than both sides, no residual stream."""
    fact = facts.of[atom]
    if not fact.scales or any(atom in product for product in (*facts.products, *facts.spread)):
        return None
    pair = linear_pair(facts, atom)
    if pair is None or stream(facts, atom):
        return None
    made, used = pair
    if any(word == "lookup" for entries in made.axes for word, _ in entries) and not _feeds_stream(facts, used):
        return None  # without a stream to factorize for, an embedding's dim is a width like any other
    return Kind(
        "rank", False, f"only linear or norm ops between {made.parameter} and {used.parameter}, and narrower than both"
    )


def _feeds_stream(facts: Facts, use: RawUse) -> bool:
    out = [
        atom
        for entries in use.axes
        for word, axis in entries
        if word == "out"
        for atom in facts.folded.atoms.expand(axis)
    ]
    return any(stream(facts, atom) for atom in out)


def choose(facts: Facts, out: dict[Atom, Kind]) -> None:
    """Rule 3: exactly one factor of a product grows; the one contracted between activations does not."""

    def candidate(atom: Atom) -> bool:
        return atom not in out and (_scales(facts, atom) or _contracted(facts, atom))

    for product in facts.products:
        for atom in product:
            if (
                candidate(atom)
                and _contracted(facts, atom)
                and any(o != atom and candidate(o) and not _contracted(facts, o) for o in product)
            ):
                _settle(
                    facts,
                    out,
                    atom,
                    Kind(
                        "inner",
                        False,
                        f"contracted between activations at {_at(_evidence(facts, atom))}; its partner grows",
                    ),
                )
    for product in facts.spread:
        for atom in product:
            if (
                candidate(atom)
                and _contracted(facts, atom)
                and any(o != atom and candidate(o) and not _contracted(facts, o) for o in product)
            ):
                _settle(
                    facts,
                    out,
                    atom,
                    Kind(
                        "inner",
                        False,
                        f"contracted between activations at {_at(_evidence(facts, atom))}; its partner grows",
                    ),
                )
                for other in product:
                    if candidate(other) and not _contracted(facts, other):
                        _settle(facts, out, other, Kind("heads", True, _why_grows(facts, other)))
    for product in facts.spread:
        if any(a in out and out[a].kind == "heads" and out[a].grows for a in product):
            for atom in product:
                if candidate(atom):
                    _settle(facts, out, atom, Kind("inner", False, "another factor of the same side grows: the heads"))
    open_products = [p for p in facts.products if sum(candidate(a) for a in p) >= 1]
    changed = True
    while changed:
        changed = False
        for product in open_products:
            left = [a for a in product if candidate(a)]
            grown = [a for a in product if a in out and out[a].grows]
            if left and grown:
                for atom in left:
                    _settle(facts, out, atom, Kind("inner", False, "another factor of the same axis grows"))
                changed = True
            elif len(left) == 1:
                heads = any(a in out and out[a].kind == "inner" for a in product)
                _settle(facts, out, left[0], Kind("heads" if heads else "width", True, _why_grows(facts, left[0])))
                changed = True
        if not changed:
            changed = _stand_alone(facts, out, open_products, candidate)
    for product in open_products:
        for atom in product:
            if candidate(atom):
                out[atom] = Kind("unknown", None, "a factor of a product of which none or several could grow")


def _stand_alone(facts: Facts, out: dict[Atom, Kind], products: list[tuple[Atom, ...]], candidate: object) -> bool:
    """Settle one product of several candidates: by what stands alone, else by what no single place is taken from."""
    assert callable(candidate)
    for product in products:
        left = [a for a in product if candidate(a)]
        if len(left) < 2:
            continue
        alone = [a for a in left if a in facts.alone]
        if len(alone) == 1:
            _settle(
                facts, out, alone[0], Kind("width", True, "the factor that stands alone as another parameter's axis")
            )
            return True
        kept = [a for a in left if not _counted(facts, a)]
        if len(kept) == 1:
            _settle(facts, out, kept[0], Kind("width", True, "the factor no single place of which is picked"))
            return True
    return False


def _counted(facts: Facts, atom: Atom) -> bool:
    """Single places are taken out of it, put into it, or looked up along it."""
    marks = {"count", "picked", "gathered"}
    within = any(not part for way in facts.folded.atoms.sums[atom] for part in way)
    return within or any(facts.of[a].marks & marks for a in (atom, *facts.parts.get(atom, ())))


def _scales(facts: Facts, atom: Atom) -> bool:
    """Made and consumed; a sum when one of its parts is."""
    return facts.of[atom].scales or any(facts.of[p].scales for p in facts.parts.get(atom, ()))


def _contracted(facts: Facts, atom: Atom) -> bool:
    """Contracted between activations, itself or a part of it."""
    return bool(_evidence(facts, atom))


def _evidence(facts: Facts, atom: Atom) -> list[fx.Node]:
    return facts.of[atom].contracted or [node for p in facts.parts.get(atom, ()) for node in facts.of[p].contracted]


def _settle(facts: Facts, out: dict[Atom, Kind], atom: Atom, kind: Kind) -> None:
    """The verdict on a sum is one on its parts: all are fixed with it, or each grows where it can."""
    parts = facts.parts.get(atom, ())
    for one in parts or (atom,):
        if one not in out and one not in facts.parts:
            out[one] = kind if not parts or not kind.grows else replace(width(facts, one), kind=kind.kind)
    if parts:
        out[atom] = kind


def width(facts: Facts, atom: Atom) -> Kind:
    """Rules 6 and 7: what a parameter makes and a parameter consumes grows; so does an unsplit dim of a dot product."""
    fact = facts.of[atom]
    if fact.scales:
        return Kind("width", True, f"made by {_who(fact.produced)}, consumed by {_who(fact.consumed)}")
    if "opaque" in fact.marks:
        return Kind("unknown", None, "goes through an op whose meaning is not known")
    if fact.produced and fact.contracted:
        return Kind(
            "width",
            True,
            f"made by {_who(fact.produced)}, contracted between activations at {_at(fact.contracted)}, unsplit",
        )
    if "routed" in fact.marks:
        return Kind("experts", False, f"made by {_who(fact.produced)}; only choices are made along it")
    if fact.produced and (found := _end(facts, atom)):
        return found
    return Kind(
        "data",
        False,
        f"made by {_who(fact.produced)}, consumed by no parameter" if fact.produced else "no parameter makes it",
    )


def _why_grows(facts: Facts, atom: Atom) -> str:
    fact = facts.of[atom]
    made = f"made by {_who(fact.produced)}" if fact.produced else "made"
    return f"{made}, consumed by {_who(fact.consumed)}" if fact.consumed else f"{made}; its partners are fixed"


def _end(facts: Facts, atom: Atom) -> Kind | None:
    """An axis of a second output: a width of the same size is taken as the same dim, and marked as a guess."""
    atoms = facts.folded.atoms
    if "returned" not in facts.of[atom].marks:
        return None
    size, finite = atoms.size[atom], {"lookup", "kernel", "data", "count"}
    widths: list[tuple[Atom, ...]] = [
        (a,) for a, f in facts.of.items() if a != atom and f.scales and not f.marks & finite
    ]
    widths += [p for p in facts.products if any(facts.of[a].scales and not facts.of[a].marks & finite for a in p)]
    if not any(atoms.length(axis) == size for axis in widths):
        return None
    return Kind("width", True, f"assumed: an axis of a second output, as long ({size}) as a width")


def whole(facts: Facts, atom: Atom, out: dict[Atom, Kind]) -> Kind:
    """A sum grows when one of its parts does."""
    parts = [out[p] for p in facts.parts[atom] if p in out and p not in facts.parts]
    known = out.get(atom)
    if known is not None and known.grows is False:
        return known
    if any(p.grows for p in parts):
        return Kind(
            known.kind if known else "width", True, "a part of it grows: " + next(p.why for p in parts if p.grows)
        )
    if any(p.grows is None for p in parts):
        return Kind("unknown", None, next(p.why for p in parts if p.grows is None))
    if parts:
        return Kind(parts[0].kind, False, "none of its parts grows")
    return known or Kind("data", False, "none of its parts is a parameter's")


def _who(uses: Iterable[RawUse]) -> str:
    use = next(iter(uses))
    source = use.node.meta.get("source")
    return f"{use.parameter} ({source})" if source else use.parameter


def _at(nodes: Iterable[fx.Node]) -> str:
    node = next(iter(nodes))
    return str(node.meta.get("source") or node.name)


__all__ = ["DATA", "Kind", "kinds"]
