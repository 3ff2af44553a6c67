"""A failed attempt, read: which inputs to try next."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from mupc.inputs.arguments import guesses, planted_token
from mupc.inputs.context import BATCH, Context
from mupc.inputs.documented import stated
from mupc.inputs.failure import Failure
from mupc.inputs.guess import Guess
from mupc.inputs.layers import wanted

State = dict[str, Guess]
_MANY_TOKENS = 1 << 14
_TOKENS = re.compile(r"tokens:?\s*(\d+).*?features:?\s*(?:torch\.Size\(\[)?(\d+)", re.DOTALL)
_SIDES = (32, 28, 64, 224, 96, 128, 256, 384, 512, 448, 768, 1024, 1536)
_NOT_ABOUT_SIZES = (AttributeError, NameError, KeyError, TypeError)
_LENGTHS = (8, 16, 32, 64, 128, 1024)


def repairs(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Changed states, likeliest first; each rule yields nothing where it has no opinion."""
    for rule in _RULES:
        yield from rule(failure, state, context)


def hopeless(failure: Failure) -> bool:
    """As many image tokens as features, and yet they do not match: the config's own widths do not fit each other."""
    count = _TOKENS.search(failure.message)
    return count is not None and count[1] == count[2] != "0"


def _missing(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`missing 2 required positional arguments: 'a' and 'b'`."""
    if not isinstance(failure.error, TypeError) or "missing" not in failure.message:
        return
    quoted = re.findall(r"'(\w+)'", failure.message)
    names = [name for name in quoted if name in context.parameters.names and name not in state]
    options = [guesses(name, context) for name in names]
    if names and all(options):
        yield {**state, **{name: option[0] for name, option in zip(names, options, strict=True)}}


def _tokens(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`Image features and image tokens do not match: tokens: 0, features 1152`: put so many into each row.

    Some messages count tokens, some numbers; some models want every image's tokens in one row.
    """
    count = _TOKENS.search(failure.message)
    if count is None or "input_ids" not in state:
        return
    word = next((word for word in ("image", "video", "audio", "speech") if word in failure.message.lower()), "image")
    token = planted_token(context, word, "image", "audio", "video")
    old, need = state["input_ids"], int(count[2])
    if token is None or not need:
        return
    width = context.number("hidden_size", "d_model", "n_embd", under="text", default=1)
    rows = old.shape[0]
    for scale in (1, width) if need <= _MANY_TOKENS else (width,):
        each = need // (scale * rows)
        if each * scale * rows == need and each <= _MANY_TOKENS:
            kept = tuple(pair for pair in old.planted if pair[0] != token)
            length = sum(n + 1 for _, n in kept) + each + 8
            yield {**state, "input_ids": replace(old, shape=(rows, length), planted=(*kept, (token, each)))}


def _tiles(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`split_sizes=[3, 3]`: so many tiles were expected of each image."""
    found = re.search(r"split_sizes=\[(\d+)", failure.message)
    for name, guess in state.items():
        if found is not None and name.startswith("pixel_values") and len(guess.shape) >= 4:
            yield {**state, name: guess.reshaped(guess.shape[0], int(found[1]), *guess.shape[-3:])}


def _unpack(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`not enough values to unpack (expected 5, got 4)`: the next reading of the argument's name with so many axes."""
    found = re.search(r"expected (\d+)(?:, got|\))", failure.message)
    if found is None or "unpack" not in failure.message:
        return
    rank = int(found[1])
    for name in sorted(state, key=lambda name: name not in failure.words):
        for guess in (*guesses(name, context), *_of_rank(rank, context)):
            if len(guess.shape) == rank and len(state[name].shape) != rank:
                yield {**state, name: guess}


def _stated(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """The message spells the shape out, as `(batch_size, 2, num_channels, height, width)`."""
    shape = stated(failure.message, context)
    for name in sorted(state, key=lambda name: name not in failure.words):
        if shape is not None and state[name].is_float and state[name].shape != shape:
            yield {**state, name: state[name].reshaped(*shape)}


def _lens(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`split_sizes to sum exactly to 3000, but got split_sizes=[1, 1]`: lengths that share out what there is."""
    found = re.search(r"sum exactly to (\d+).*split_sizes=\[([\d, ]+)\]", failure.message)
    if found is None:
        return
    total, parts = int(found[1]), found[2].count(",") + 1
    for name, guess in state.items():
        if not guess.is_float and guess.shape == (parts,) and total % parts == 0:
            yield {**state, name: replace(guess, content=(total // parts,) * parts)}


def _batch(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`shape '[0, 8, 768]' is invalid`: so many frames make one batch entry."""
    found = re.search(r"shape '\[0, (\d+),", failure.message)
    if found is not None and all(g.content is None and g.shape for g in state.values()):
        yield {name: guess.reshaped(int(found[1]), *guess.shape[1:]) for name, guess in state.items()}


def _unwanted(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`input_ids` is expected to be `None`: then their embeddings are wanted."""
    found = re.search(r"`?(\w+)`? is expected to be `?None", failure.message)
    if found is not None and found[1] in state:
        rest = {name: guess for name, guess in state.items() if name != found[1]}
        for name in context.parameters.names:
            if name.endswith("embeds") and name not in rest:
                for guess in guesses(name, context):
                    yield {**rest, name: guess}


def _boolean(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """A mask that selects must be boolean."""
    if "bool" not in failure.message:
        return
    for name, guess in state.items():
        if not guess.is_float and guess.dtype != "bool" and guess.below is None and guess.content is None:
            yield {**state, name: replace(guess, dtype="bool")}


def _of_rank(rank: int, context: Context) -> list[Guess]:
    """Where the name says nothing: an image, a video, rows or a grid of features."""
    width = context.number("hidden_size", "d_model", "embed_dim", default=64)
    shapes = ((context.length, width), context.image, (16, 16, width), (4, *context.image))
    return [Guess((BATCH, *shape)) for shape in shapes if len(shape) == rank - 1]


def _named(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """The message, or the statement that failed, names an argument that was not given."""
    for name in dict.fromkeys(failure.absent):
        if name in context.parameters.names and _may_add(name, state):
            for guess in guesses(name, context)[:6]:
                yield {**state, name: _beside(guess, state, context)}


def _beside(guess: Guess, state: State, context: Context) -> Guess:
    """Something said of each token is as long as the tokens are."""
    tokens = state.get("input_ids")
    if tokens is None or guess.content is not None or guess.shape[:2] != (BATCH, context.length):
        return guess
    return guess.reshaped(*tokens.shape, *guess.shape[2:])


def _may_add(name: str, state: State) -> bool:
    """Embeddings are another way to say the ids that are there already."""
    return name not in state and not (name.endswith("embeds") and any(n.endswith("ids") for n in state))


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


def _dtype(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """An index must be integer; a weight wants floats."""
    for name, guess in state.items():
        if guesses(name, context):
            continue
        if guess.is_float and re.search(r"Long|indices|integer|int64|index", failure.message):
            yield {**state, name: Guess(guess.shape, "int64", context.vocabulary)}
        if not guess.is_float and re.search(r"expected .*[Ff]loat|same dtype", failure.message):
            yield {**state, name: Guess(guess.shape)}


def _numbers(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """A size of ours that the message quotes, changed to another that it quotes: what fits is often among them."""
    numbers = [n for n in failure.numbers if 2 < n <= 4096][:8]
    for name, guess in state.items():
        for axis in reversed(range(1, len(guess.shape))):
            channels = len(guess.shape) >= 4 and axis == len(guess.shape) - 3
            if channels and guesses(name, context) and "channel" not in failure.message:
                continue  # the model said how many it takes
            if guess.shape[axis] in numbers and guess.content is None:
                for number in numbers:
                    if number != guess.shape[axis]:
                        yield {**state, name: _resized(guess, axis, number)}


def _resized(guess: Guess, axis: int, size: int) -> Guess:
    """One axis changed; the two sides of an image together."""
    sizes = list(guess.shape)
    sizes[axis] = size
    if len(sizes) >= 4 and axis % len(sizes) >= len(sizes) - 2:
        sizes[-2:] = [size, size]
    return guess.reshaped(*sizes)


def _differences(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """`[2, 316] X [280, 3]`: if our 60 is a part of the 316, then 24 makes it the 280."""
    numbers = [n for n in failure.numbers if n > 2][:4]
    for name, guess in state.items():
        if len(guess.shape) in (2, 3) and guess.is_float and guess.content is None:
            for there, fits in itertools.permutations(numbers, 2):
                size = guess.shape[-1] + fits - there
                if there > guess.shape[-1] > 0 and 0 < size != guess.shape[-1]:
                    yield {**state, name: guess.reshaped(*guess.shape[:-1], size)}


def _absent(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Something was None: give the next argument of the signature whose name says what it is."""
    if "None" not in failure.message:
        return
    for name in context.parameters.names:
        if _may_add(name, state) and not name.endswith(("mask", "labels", "position_ids")):
            for guess in guesses(name, context)[:5]:
                yield {**state, name: _beside(guess, state, context)}


def _sides(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Other usual image sizes: what flattens an image fixes its side."""
    if isinstance(failure.error, _NOT_ABOUT_SIZES):
        return
    for name, guess in state.items():
        if len(guess.shape) >= 4 and guess.is_float:
            for side in _SIDES:
                yield {**state, name: guess.reshaped(*guess.shape[:-2], side, side)}


def _lengths(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Round lengths, as windows and strides want."""
    if isinstance(failure.error, _NOT_ABOUT_SIZES):
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
    if not re.search(r"dim|unpack|shape|rank|[0-9]D", failure.message):
        return
    for name, guess in state.items():
        batch, *rest = guess.shape or (2,)
        if not guess.is_float or guess.content is not None:
            continue
        if len(rest) == 1:
            yield {**state, name: guess.reshaped(batch, context.length, *rest)}
        if len(rest) == 2:
            yield {**state, name: guess.reshaped(batch, rest[1])}
        if len(rest) in (2, 3):
            yield {**state, name: guess.reshaped(batch, 1, *rest)}


_RULES = (
    _missing, _tokens, _tiles, _lens, _batch, _unwanted, _stated, _boolean, _unpack, _named, _layer, _share, _dtype,
    _sides, _numbers, _differences, _absent, _lengths, _rank,
)  # fmt: skip
