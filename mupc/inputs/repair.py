"""A failed attempt, read: which inputs to try next."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from mupc.inputs.arguments import OPTIONAL, guesses, planted_token
from mupc.inputs.candidates import candidates
from mupc.inputs.context import BATCH, Context
from mupc.inputs.docstring import stated
from mupc.inputs.failure import Failure
from mupc.inputs.guess import Guess
from mupc.inputs.layers import first_wanted
from mupc.inputs.resize import LAYERS, SIZES, dtypes

State = dict[str, Guess]
_MANY_TOKENS = 1 << 14
_TOKENS = re.compile(r"tokens:?\s*(\d+).*?features:?\s*(?:torch\.Size\(\[)?(\d+)", re.DOTALL)


def repairs(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """What the failure itself says to change."""
    for rule in _TOLD:
        yield from rule(failure, state, context)


def attempts(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """What else might help, likeliest first; each rule yields nothing where it has no opinion."""
    for rule in _TRIED:
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
    options = [candidates(name, context) for name in names]
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
        for guess in [*guesses(name, context), *first_wanted(context), *_of_rank(rank, context)]:
            if len(guess.shape) == rank != len(state[name].shape) and guess.is_float == state[name].is_float:
                yield {**state, name: guess}


def _of_rank(rank: int, context: Context) -> list[Guess]:
    """Where the name says nothing: an image, a video, rows or a grid of features."""
    width = context.number("hidden_size", "d_model", "embed_dim", default=64)
    shapes = ((context.length, width), context.image, (16, 16, width), (4, *context.image))
    return [Guess((BATCH, *shape)) for shape in shapes if len(shape) == rank - 1]


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


def _named(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """The message, or the statement that failed, names an argument that was not given."""
    for name in dict.fromkeys(failure.absent):
        if name in context.parameters.names and _may_add(name, state):
            for guess in guesses(name, context)[:3]:
                yield {**state, name: _beside(guess, state, context)}
    yield from _embedded(failure, state, context)


def _embedded(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Embeddings in place of the tokens, where the failing statement wants them or the message refuses the tokens."""
    refused = re.search(r"input_ids\W+(is expected to be|must be|should be)\W+None", failure.message)
    for name in ("inputs_embeds", *context.parameters.names) if refused else ("inputs_embeds",):
        wanted = refused is not None or name in failure.absent
        if wanted and name in context.parameters.names and name.endswith("embeds") and "input_ids" in state:
            for guess in guesses(name, context)[:1]:
                yield {name: guess, **{other: given for other, given in state.items() if other != "input_ids"}}


def _beside(guess: Guess, state: State, context: Context) -> Guess:
    """Something said of each token is as long as the tokens are."""
    tokens = state.get("input_ids")
    if tokens is None or guess.content is not None or guess.shape[:2] != (BATCH, context.length):
        return guess
    return guess.reshaped(*tokens.shape, *guess.shape[2:])


def _may_add(name: str, state: State) -> bool:
    """Embeddings are another way to say the ids that are there already."""
    if name in OPTIONAL or name.endswith("_outputs"):
        return False
    return name not in state and not (name.endswith("inputs_embeds") and any(n.endswith("input_ids") for n in state))


def readings(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Another reading of an argument that the failing statement names, else of any."""
    for name in sorted(state, key=lambda name: name not in failure.words):
        for guess in guesses(name, context)[:9]:
            if guess.shape != state[name].shape or guess.dtype != state[name].dtype:
                yield {**state, name: guess}


def _first_layers(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """What the model's first layers want, whatever the argument's name says."""
    for name, guess in state.items():
        if guess.is_float and guess.content is None and guess.plain is None:
            for wish in itertools.islice(first_wanted(context), 6):
                if wish.is_float:
                    yield {**state, name: wish}


def _absent(failure: Failure, state: State, context: Context) -> Iterator[State]:
    """Something was None: give the next argument of the signature whose name says what it is."""
    if "None" not in failure.message:
        return
    for name in context.parameters.names:
        if _may_add(name, state) and not name.endswith(("mask", "labels", "position_ids")):
            for guess in guesses(name, context)[:2]:
                yield {**state, name: _beside(guess, state, context)}


_TOLD = (_missing, _tokens, _tiles, _lens, _stated, _unpack, _named, dtypes)
_TRIED = (*LAYERS, *SIZES, _absent, _first_layers)
