"""Many like names as one: `h.0.attn.q`, `h.1.attn.q` -> `h.{0..1}.attn.q`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import product


def folded(entries: Iterable[tuple[str, Hashable]]) -> list[tuple[str, int, Hashable, str]]:
    """Names with what is shown of them -> (folded name, how many, what is shown, the first name), in order.

    Names fold where they differ in numbers alone, are shown alike, and their numbers make a full grid.
    """
    groups: dict[tuple[Hashable, Hashable], list[tuple[int, ...]]] = defaultdict(list)
    first: dict[tuple[Hashable, Hashable], str] = {}
    for name, shown in entries:
        words = name.split(".")
        mask = tuple(None if word.isdigit() else word for word in words)
        key = (mask, shown)
        groups[key].append(tuple(int(word) for word in words if word.isdigit()))
        first.setdefault(key, name)
    out: list[tuple[str, int, Hashable, str]] = []
    for (mask, shown), numbers in groups.items():
        assert isinstance(mask, tuple)
        for grid, count in _grids(numbers):
            out.append((_written(mask, grid), count, shown, first[mask, shown]))
    return out


def _grids(numbers: list[tuple[int, ...]]) -> list[tuple[list[list[int]], int]]:
    """The numbers as full grids: one where they make one, else one per leading number, and so on."""
    if not numbers[0]:
        return [([], len(numbers))]
    axes = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    if set(product(*axes)) == set(numbers):
        return [(axes, len(numbers))]
    split = next(i for i, axis in enumerate(axes) if len(axis) > 1)
    out: list[tuple[list[list[int]], int]] = []
    for value in axes[split]:
        out += _grids([n for n in numbers if n[split] == value])
    return out


def _written(mask: tuple[str | None, ...], grid: list[list[int]]) -> str:
    axes = iter(grid)
    return ".".join(word if word is not None else _numbers(next(axes)) for word in mask)


def _numbers(values: list[int]) -> str:
    if len(values) == 1:
        return str(values[0])
    if values == list(range(values[0], values[-1] + 1)):
        return f"{{{values[0]}..{values[-1]}}}"
    return "{" + ",".join(map(str, values)) + "}"
