"""Which size fits: make one axis of one input a little longer, and see how the numbers that do not fit follow it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mupc.inputs.failure import Failure
from mupc.inputs.guess import Guess
from mupc.inputs.probe import Probe

State = dict[str, Guess]
_LARGEST = 1 << 20
_MOST_AXES = 8
_LENGTHS = (1, 8, 16, 32, 64, 128, 1024)
_SIDES = (32, 28, 64, 224, 96, 128, 256, 384, 512, 1024, 1536)


@dataclass(frozen=True, slots=True)
class Moving:
    """An axis that the failure depends on: the message's numbers, and what they become where it is one longer.

    `names` are the inputs that have it: one, or all those of one shape, as two images side by side are.
    """

    names: tuple[str, ...]
    axis: int
    before: list[int]
    after: list[int]


def moving(failure: Failure, state: State, probe: Probe) -> list[Moving]:
    """The axes that the message follows; last axes first, never the batch."""
    before = _numbers(failure)
    found = []
    for name, axis in _axes(state)[:_MOST_AXES] if len(set(before)) > 1 else ():
        alike = tuple(other for other, guess in state.items() if guess.shape == state[name].shape)
        for names in dict.fromkeys([(name,), alike]):
            size = state[name].shape[axis] + 1
            longer = probe.attempt({**state, **{each: resized(state[each], axis, size) for each in names}})
            after = _numbers(Failure(longer.error)) if longer.error is not None else []
            if len(after) == len(before) and after != before:
                found.append(Moving(names, axis, before, after))
    return found


def solved(state: State, movings: list[Moving]) -> Iterator[State]:
    """Where a number that moves meets one that stands still: both are straight lines in the size."""
    for at in movings:
        guess = state[at.names[0]]
        for size in _meetings(guess.shape[at.axis], at.before, at.after):
            if size not in (1, guess.shape[0]):  # these would fit by being repeated, or taken for the batch
                yield from _changed(state, at, size)


def usual(state: State, movings: list[Moving]) -> Iterator[State]:
    """Usual sizes for those axes: sides of images, and round lengths, as windows and strides want."""
    for at in movings:
        guess = state[at.names[0]]
        usual = _SIDES if len(guess.shape) >= 4 and guess.shape[at.axis] > 16 else _LENGTHS
        for size in (*_multiples(guess.shape[at.axis], at.before), *usual):
            yield from reversed(_changed(state, at, size))


def _changed(state: State, at: Moving, size: int) -> list[State]:
    """That axis alone, and with it the other side of a square."""
    alone = {**state, **{name: resized(state[name], at.axis, size) for name in at.names}}
    shape = state[at.names[0]].shape
    twins = [n for n, other in enumerate(shape) if other == shape[at.axis] > 16]
    if len(shape) < 4 or len(twins) != 2:
        return [alone]
    return [
        alone,
        {**alone, **{name: resized(resized(state[name], twins[0], size), twins[1], size) for name in at.names}},
    ]


def _multiples(size: int, numbers: list[int]) -> Iterator[int]:
    """Not much larger, and divisible by a number of the message, or by its square."""
    for n in dict.fromkeys(n for n in numbers if 2 < n <= 64):
        yield from (-(-size // part) * part for part in (n, n * n) if size % part)


def _meetings(size: int, before: list[int], after: list[int]) -> Iterator[int]:
    found: dict[int, None] = {}
    for x, then in zip(before, after, strict=True):
        slope = then - x
        for y in [y for y, later in zip(before, after, strict=True) if y == later and y > 0] if slope else ():
            further, left = divmod(y - x, slope)
            if not left and further and 0 < size + further <= _LARGEST:
                found[size + further] = None
    yield from found


def _numbers(failure: Failure) -> list[int]:
    """Those of the message, and what the shapes in it hold in all: `shape '[2, 1, 100]'` is 200 elements."""
    shapes = re.findall(r"\[(\d+(?:, \d+)+)\]", failure.message)[:4]
    totals = [math.prod(int(n) for n in shape.split(", ")) for shape in shapes]
    return [*(int(n) for n in re.findall(r"(?<![\w.-])\d+", failure.message)[:16]), *totals]


def _axes(state: State) -> list[tuple[str, int]]:
    found = [
        (name, axis)
        for name, guess in state.items()
        if guess.content is None and guess.plain is None
        for axis in range(1, len(guess.shape))
    ]
    return sorted(found, key=lambda at: at[1] - len(state[at[0]].shape), reverse=True)


def resized(guess: Guess, axis: int, size: int) -> Guess:
    return guess.reshaped(*guess.shape[:axis], size, *guess.shape[axis + 1 :])
