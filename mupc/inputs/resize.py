"""A failed attempt, read: which sizes, ranks and dtypes to try next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from mupc.inputs.arguments import guesses
from mupc.inputs.context import BATCH, Context
from mupc.inputs.failure import Failure
from mupc.inputs.guess import Guess
from mupc.inputs.layers import wanted

State = dict[str, Guess]
_SIDES = (32, 28, 64, 224, 96, 128, 256, 384, 512, 1024, 1536)
_NOT_ABOUT_SIZES = (AttributeError, NameError, KeyError, TypeError)
_WANTS_WHOLE = re.compile(r"\bLong\b|indices|must be long|integer|int64")
_WANTS_FLOATS = re.compile(r"expected .*[Ff]loat|same dtype|should be the same|floating point")
_BATCHES = (1, 8, 16)
_LENGTHS = (8, 16, 32, 64, 128, 1024)


def _layer(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """The layer that failed says what it wants, if what it was given is one of the inputs."""
    for module, scope in failure.modules:
        wishes = wanted(module, context)
        if not wishes:
            continue
        given = {tuple(value.shape) for value in scope.values() if isinstance(value, Tensor)}
        for name, guess in state.items():
            if guess.shape in given:
                for wish in wishes:
                    if wish.is_float == guess.is_float or not guesses(name, context):
                        yield {**state, name: wish}
            elif len(guess.shape) == 3 and (guess.shape[0], guess.shape[2], guess.shape[1]) in given:
                for wish in wishes:
                    if len(wish.shape) == 3:  # the model swaps the axes before this layer
                        yield {**state, name: wish.reshaped(wish.shape[0], wish.shape[2], wish.shape[1])}
        return


def _share(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """The layer got 12 channels and wants 6, and several inputs make them up: each gives its share, or one the rest."""
    for module, scope in failure.modules:
        wish = next((wish for wish in wanted(module, context) if wish.is_float), None)
        if wish is None:
            continue
        axis = 1 if len(wish.shape) >= 3 and hasattr(module, "in_channels") else -1
        for value in scope.values():
            if not isinstance(value, Tensor) or value.dim() != len(wish.shape):
                continue
            got, wants = value.shape[axis], wish.shape[axis]
            parts = {
                n: g for n, g in state.items() if g.is_float and len(g.shape) == value.dim() and g.shape[axis] < got
            }
            if parts and all(g.shape[axis] * wants % got == 0 for g in parts.values()):
                yield {**state, **{n: _resized(g, axis, g.shape[axis] * wants // got) for n, g in parts.items()}}
            for name, guess in parts.items():
                if guess.shape[axis] + wants - got > 0:
                    yield {**state, name: _resized(guess, axis, guess.shape[axis] + wants - got)}
        return


def dtypes(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """An index must be integer; a weight wants floats."""
    for name, guess in state.items():
        if guess.content is not None or guess.plain is not None:
            continue
        if guess.is_float and _WANTS_WHOLE.search(failure.message):
            yield {**state, name: Guess(guess.shape, "int64", context.vocabulary)}
        if not guess.is_float and not name.endswith("ids") and _WANTS_FLOATS.search(failure.message):
            yield {**state, name: Guess(guess.shape)}
        if "bool" in failure.message and guess.dtype == "int64" and guess.below is None:
            yield {**state, name: replace(guess, dtype="bool")}


def _resized(guess: Guess, axis: int, size: int) -> Guess:
    """One axis changed; the two sides of an image together."""
    sizes = list(guess.shape)
    sizes[axis] = size
    if len(sizes) >= 4 and axis % len(sizes) >= len(sizes) - 2:
        sizes[-2:] = [size, size]
    return guess.reshaped(*sizes)


def _sides(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Other usual image sizes, where the message gives no number to follow."""
    if isinstance(failure.error, _NOT_ABOUT_SIZES) or failure.numbers:
        return
    for name, guess in state.items():
        if len(guess.shape) >= 4 and guess.is_float:
            for side in _SIDES:
                yield {**state, name: guess.reshaped(*guess.shape[:-2], side, side)}


def _lengths(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Round lengths, likewise."""
    if isinstance(failure.error, _NOT_ABOUT_SIZES) or failure.numbers:
        return
    for name, guess in state.items():
        if len(guess.shape) in (2, 3) and guess.content is None:
            for length in _LENGTHS:
                if not guess.is_float:
                    yield {**state, name: guess.reshaped(*guess.shape[:-1], length)}
                elif len(guess.shape) == 3:
                    yield {**state, name: guess.reshaped(guess.shape[0], guess.shape[1], length)}
                    yield {**state, name: guess.reshaped(guess.shape[0], length, guess.shape[2])}


def _rank(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """One axis more or fewer."""
    if not re.search(r"dim|unpack|shape|rank|[0-9]D|single element", failure.message):
        return
    for name, guess in state.items():
        batch, *rest = guess.shape or (2,)
        if guess.content is not None or guess.plain is not None:
            continue
        if not guess.is_float:
            if len(rest) == 1 and "mask" in name:
                yield {**state, name: guess.reshaped(batch, *rest, 1)}
            if not rest and guess.shape:
                yield {**state, **{n: g.reshaped(1, *g.shape) for n, g in state.items() if len(g.shape) == 1}}
            if len(rest) == 1 and "single element" in failure.message:
                yield {**state, name: guess.reshaped(batch)}
            continue
        if len(rest) == 1:
            yield {**state, name: guess.reshaped(batch, context.length, *rest)}
        if len(rest) == 2:
            yield {**state, name: guess.reshaped(batch, rest[1])}
        if len(rest) in (2, 3):
            yield {**state, name: guess.reshaped(batch, 1, *rest)}


def _batches(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Batches of frames or windows: another number of rows, in every input."""
    if isinstance(failure.error, _NOT_ABOUT_SIZES) or not failure.numbers:
        return
    frames = re.search(r"shape '\[0, (\d+),", failure.message)  # so many make one
    for batch in (*([int(frames[1])] if frames else []), *_BATCHES):
        batched = {name: guess.rows(batch) for name, guess in state.items() if guess.shape[:1] == (BATCH,)}
        if batched:
            yield {**state, **batched}


LAYERS = (_layer, _share)
SIZES = (_sides, _batches, _lengths, _rank)
