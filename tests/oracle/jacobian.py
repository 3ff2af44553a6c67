"""The Jacobian: vary each integer of a config alone and hold the axis partition against which sizes moved, and how.

There is no policy in it. For each variation there must be new sizes of the analysis's dims such that every axis is the
product of its dims, and every sum the sum of its parts. Two axes that we call one dim must therefore move alike, and an
axis that we call (heads, head_dim) must factor the same way everywhere. Dims that we tell apart but that move together
are no mistake: structure cannot know a config's arithmetic.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import torch

from tests.oracle.two_widths import Case, Shapes, shapes

Axis = tuple[str, ...]
SKIP = (
    "token_id",
    "_id",
    "layers",
    "num_layers",
    "depth",
    "n_layer",
    "seed",
    "version",
    "return_dict",
    "index",
    "top_k",
)


@dataclass(frozen=True)
class Variation:
    """One integer changed: `vision_config.hidden_size 48 -> 96`."""

    label: str
    config: Any
    shapes: Shapes


def integers(config: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Every int in a config, in lists, dicts and sub-configs too, with its path."""
    if isinstance(config, bool):
        return
    if isinstance(config, int):
        if config > 1 and not any(isinstance(key, str) and key.endswith(SKIP) for key in path):
            yield path, config
    elif isinstance(config, (list, tuple)):
        for at, value in enumerate(config):
            yield from integers(value, (*path, at))
    elif isinstance(config, Mapping) or hasattr(config, "to_dict"):
        fields = config if isinstance(config, Mapping) else vars(config)
        for name, value in fields.items():
            if isinstance(name, str) and not name.startswith("_"):
                yield from integers(value, (*path, name))


def replaced(config: Any, path: tuple[Any, ...], value: int) -> Any:
    """A copy of the config with that one integer changed."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(config, (list, tuple)):
        items = list(config)
        items[key] = replaced(items[key], rest, value)
        return type(config)(items)
    if isinstance(config, Mapping):
        return {**config, key: replaced(config[key], rest, value)}
    changed = copy.deepcopy(config)
    setattr(changed, key, replaced(getattr(config, key), rest, value))
    return changed


def variations(case: Case) -> Iterator[Variation]:
    """Each integer alone, by the first factor with which the model can be built and some shape changes."""
    base = case.base()
    before = shapes(case.meta(base))
    for path, size in integers(base):
        for value in dict.fromkeys((2 * size, 3 * size, size // 2)):
            if value < 1:
                continue
            try:
                config = replaced(base, path, value)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    after = shapes(case.meta(config))
            except Exception:  # whatever a library raises where its sizes do not fit
                continue
            if after != before and after.keys() == before.keys():  # other parameters: another structure, no variation
                yield Variation(f"{'.'.join(map(str, path))} {size} -> {value}", config, after)
            break


def runs(case: Case, config: Any) -> bool:
    """Is the varied model one that runs at all, on real numbers?"""
    try:
        model = case.build(config).eval()
        args, kwargs = case.call(config)
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception:  # whatever a library raises where its sizes do not fit
        return False
    return True


@dataclass
class Ratios:
    """Equations `product of the dims' ratios = ratio`, solved as linear ones in the exponents of each prime."""

    rows: dict[str, tuple[dict[str, Fraction], dict[int, Fraction], str]] = field(default_factory=dict)

    def add(self, axis: Axis, ratio: Fraction, where: str) -> str | None:
        """Add one equation; the reason if it contradicts those before."""
        left = {name: Fraction(n) for name, n in Counter(axis).items()}
        right = primes(ratio)
        sources = [where]
        while left and (pivot := next((name for name in left if name in self.rows), None)):
            self._subtract(left, right, pivot, sources)
        if not left:
            return " against ".join(dict.fromkeys(sources)) if right else None
        pivot = next(iter(left))
        scale = left[pivot]
        row = ({n: c / scale for n, c in left.items()}, {p: e / scale for p, e in right.items()}, where)
        for known, (other_left, other_right, source) in list(self.rows.items()):
            if pivot in other_left:
                times = other_left[pivot]
                new_left = _minus(other_left, row[0], times)
                self.rows[known] = (new_left, _minus(other_right, row[1], times), source)
        self.rows[pivot] = row
        return None

    def _subtract(self, left: dict[str, Fraction], right: dict[int, Fraction], pivot: str, sources: list[str]) -> None:
        row_left, row_right, source = self.rows[pivot]
        times = left[pivot]
        for mine, theirs in ((left, row_left), (right, row_right)):
            updated = _minus(mine, theirs, times)  # type: ignore[type-var]
            mine.clear()
            mine.update(updated)  # type: ignore[arg-type]
        sources.append(source)

    def ratio(self, axis: Axis) -> Fraction | None:
        """The axis's ratio where the equations fix it."""
        total: dict[int, Fraction] = {}
        left = {name: Fraction(n) for name, n in Counter(axis).items()}
        for name in list(left):
            if name not in self.rows or len(self.rows[name][0]) > 1:
                return None
            total = _minus(total, self.rows[name][1], -left[name])
        if any(e.denominator != 1 for e in total.values()):
            return None
        return prod((Fraction(p) ** int(e) for p, e in total.items()), start=Fraction(1))


def _minus(a: Mapping[Any, Fraction], b: Mapping[Any, Fraction], times: Fraction) -> dict[Any, Fraction]:
    out = {key: a.get(key, Fraction(0)) - times * b.get(key, Fraction(0)) for key in {**a, **b}}
    return {key: value for key, value in out.items() if value}


def primes(ratio: Fraction) -> dict[int, Fraction]:
    """The exponents of a ratio's primes."""
    out: dict[int, Fraction] = defaultdict(Fraction)
    for n, sign in ((ratio.numerator, 1), (ratio.denominator, -1)):
        p = 2
        while n > 1:
            while n % p == 0:
                out[p] += sign
                n //= p
            p += 1
    return {p: e for p, e in out.items() if e}


def violations(
    axes: Mapping[str, tuple[Axis, ...]],
    before: Shapes,
    after: Shapes,
    sizes: Mapping[str, int],
    sums: Mapping[str, list[list[Axis]]],
) -> list[str]:
    """Axes whose new sizes no choice of new dim sizes explains."""
    ratios, found = solved(axes, before, after)
    return found or sum_violations(ratios, sizes, sums)


def solved(axes: Mapping[str, tuple[Axis, ...]], before: Shapes, after: Shapes) -> tuple[Ratios, list[str]]:
    """By what factor each dim grew, and the axes that this contradicts."""
    ratios = Ratios()
    found: list[str] = []
    seen: dict[tuple[Axis, Fraction], str] = {}
    for name, shape in after.items():
        for at, axis in enumerate(axes.get(name, ())):
            if not before[name][at] or not shape[at]:
                continue  # an empty axis has no ratio
            ratio = Fraction(shape[at], before[name][at])
            if axis and (axis, ratio) not in seen:
                where = seen[axis, ratio] = f"{name}[{at}] = {'*'.join(axis)}: {before[name][at]} -> {shape[at]}"
                if why := ratios.add(axis, ratio, where):
                    found.append(why)
    return ratios, found


def sum_violations(ratios: Ratios, sizes: Mapping[str, int], sums: Mapping[str, list[list[Axis]]]) -> list[str]:
    """Sums that are not the sum of their parts; one missing part is worked out and must agree with the rest."""
    found: list[str] = []

    def new(axis: Axis) -> Fraction | None:
        ratio = ratios.ratio(axis)
        return None if ratio is None else ratio * prod(sizes[name] for name in axis)

    done: set[tuple[str, int]] = set()
    changed = True
    while changed:
        changed = False
        for name, ways in sums.items():
            for at, parts in enumerate(ways):
                total, lengths = new((name,)), [new(part) for part in parts]
                missing = {part for part, n in zip(parts, lengths, strict=True) if n is None}
                if total is None or len(missing) > 1 or (name, at) in done:
                    continue
                done.add((name, at))
                known = sum(n for n in lengths if n is not None)
                laid = [f"{'*'.join(p)} = {n}" for p, n in zip(parts, lengths, strict=True)]
                text = f"{name} -> {total} as the sum of {', '.join(laid)}"
                if not missing:
                    found += [text] if known != total else []
                    continue
                (part,) = missing
                rest = (total - known) / sum(p == part for p in parts)
                if rest <= 0:
                    found.append(text)
                elif why := ratios.add(part, rest / prod(sizes[n] for n in part), text):
                    found.append(why)
                changed = True
    return found


@dataclass(frozen=True)
class Partition:
    """What the analysis says of the axes: the dims of each, the dims' sizes, and the sums among them."""

    axes: dict[str, tuple[Axis, ...]]
    sizes: dict[str, int]
    sums: dict[str, list[list[Axis]]]


def partition(model: torch.nn.Module, analysis: Any, *, named: bool) -> Partition:
    """The partition into atoms, or the coarser one into named dims (like places of repeated blocks share a name)."""
    from mupc.analysis import name_dims
    from mupc.copies import representatives

    stage = analysis.dims_stage
    given, atoms = name_dims(model, stage), stage.facts.folded.atoms

    def label(atom: int) -> str:
        name = given.get(atom, "dim")
        return name if named else f"{name}#{atom}"

    def axis(of: tuple[int, ...]) -> Axis:
        return tuple(label(atom) for atom in atoms.expand(of))

    axes = {name: p.axes for name, p in analysis.parameters.items() if p.role != "unused"}
    if not named:
        folded = {name: stage.facts.folded.tensors[node][0] for name, node in stage.facts.trace.parameters.items()}
        copies = representatives(analysis.trace, analysis.trace.thinned()[1])
        folded |= {name: folded[like] for name, like in copies.items()}
        folded |= {name: folded[group[0]] for group in analysis.tied for name in group}
        axes = {name: tuple(axis(one) for one in folded[name]) for name in axes}
    everyone = {atom for atom in range(len(atoms.size)) if atoms.find(atom) == atom}
    sums: dict[str, list[list[Axis]]] = defaultdict(list)
    for atom in everyone if not named else given:
        sums[label(atom)] += [[axis(part) for part in way] for way in atoms.sums[atom]]
    return Partition(axes, {label(atom): atoms.size[atom] for atom in everyone}, sums)


def partition_errors(case: Case, model: torch.nn.Module, found: Partition) -> list[str]:
    """Every variation that the analysis's axes do not explain, though the varied model runs."""
    before = shapes(model)
    lines: list[str] = []
    for variation in variations(case):
        errors = violations(found.axes, before, variation.shapes, found.sizes, found.sums)
        if errors and runs(case, variation.config):
            lines += [f"{variation.label}: {line}" for line in errors]
    return lines
