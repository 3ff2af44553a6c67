"""Many like names as one: `h.0.attn.q`, `h.1.attn.q` -> `h.{0..1}.attn.q`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar

Shown = TypeVar("Shown", bound=Hashable)
Grid = tuple[tuple[int, ...], ...]  # the numbers at each numbered place


@dataclass(frozen=True, slots=True)
class Folded(Generic[Shown]):
    """One line for `count` names."""

    name: str
    count: int
    shown: Shown


def folded(entries: Iterable[tuple[str, Shown]]) -> list[Folded[Shown]]:
    """Names that differ in numbers alone and are shown alike become one, in order of first appearance.

    Every fold is exact: the names it spells are the ones that went in.
    """
    groups: dict[tuple[tuple[str, ...], Shown], list[tuple[int, ...]]] = defaultdict(list)
    for name, shown in entries:
        words = name.split(".")
        mask = tuple("" if _index(word) else word for word in words)
        groups[mask, shown].append(tuple(int(word) for word in words if _index(word)))
    return [
        Folded(_written(mask, grid), prod(len(numbers) for numbers in grid), shown)
        for (mask, shown), places in groups.items()
        for grid in grids(places)
    ]


def _index(word: str) -> bool:
    return word.isascii() and word.isdigit() and str(int(word)) == word


def grids(places: Sequence[tuple[int, ...]]) -> list[Grid]:
    """Tuples of numbers as few full grids: leading numbers with the same grids behind them share theirs."""
    if not places[0]:
        return [()]
    behind: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for first, *rest in places:
        behind[first].append(tuple(rest))
    alike: dict[tuple[Grid, ...], list[int]] = defaultdict(list)
    for number, rests in behind.items():
        alike[tuple(grids(rests))].append(number)
    return [(tuple(sorted(numbers)), *grid) for tail, numbers in alike.items() for grid in tail]


def _written(mask: tuple[str, ...], grid: Grid) -> str:
    numbers = iter(grid)
    return ".".join(word or _numbers(next(numbers)) for word in mask)


def _numbers(numbers: tuple[int, ...]) -> str:
    """`7`, `{0..11}`, `{0..2,5}`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    words = [f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return words[0] if len(numbers) == 1 else "{" + ",".join(words) + "}"
