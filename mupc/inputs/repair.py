"""A failed attempt, read: which inputs to try next."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from mupc.inputs.arguments import guesses, planted_token
from mupc.inputs.context import Context, failing_modules
from mupc.inputs.guess import Guess
from mupc.inputs.layers import wanted

State = dict[str, Guess]
_MANY_TOKENS = 1 << 14


def repairs(error: Exception, state: State, context: Context) -> Iterator[State]:
    """Changed states, likeliest first; each rule yields nothing where it has no opinion."""
    for rule in (_missing, _tokens, _named, _layer, _dtype, _numbers, _sizes, _rank, _absent):
        yield from rule(error, state, context)


def _with(state: State, name: str, guess: Guess) -> State:
    return {**state, name: guess}


def _missing(error: Exception, state: State, context: Context) -> Iterator[State]:
    """`missing 2 required positional arguments: 'a' and 'b'`."""
    if not isinstance(error, TypeError) or "missing" not in str(error):
        return
    names = [
        name for name in re.findall(r"'(\w+)'", str(error)) if name in context.parameters.names and name not in state
    ]
    options = [guesses(name, context) for name in names]
    if names and all(options):
        yield {**state, **{name: option[0] for name, option in zip(names, options, strict=True)}}


def _tokens(error: Exception, state: State, context: Context) -> Iterator[State]:
    """`Image features and image tokens do not match: tokens: 0, features 1152`: put so many into each row."""
    message = str(error)
    count = re.search(r"tokens:?\s*(\d+).*?features:?\s*(?:torch\.Size\(\[)?(\d+)", message, re.DOTALL)
    if count is None or "input_ids" not in state:
        return
    word = next((word for word in ("image", "video", "audio", "speech") if word in message.lower()), "image")
    token = planted_token(context, word, *(("image", "audio", "video")))
    old = state["input_ids"]
    batch = old.shape[0]
    need, width = int(count[2]), context.number("hidden_size", "d_model", under="text", default=1)
    if token is None or not need or count[1] == count[2]:
        return
    # Some messages count tokens, some numbers; some models want all images in one row.
    divisors = dict.fromkeys((batch, 1) if need <= _MANY_TOKENS else (batch * width, width))
    for divisor in divisors:
        if need % divisor == 0 and need // divisor <= _MANY_TOKENS:
            each, rows = need // divisor, max(1, batch if divisor % batch == 0 else 1)
            kept = tuple(pair for pair in old.planted if pair[0] != token)
            length = sum(n + 1 for _, n in kept) + each + 8
            below = max(old.below or 2, token + 1) if token < (old.below or 2) else old.below
            yield _with(
                state, "input_ids", replace(old, shape=(rows, length), below=below, planted=(*kept, (token, each)))
            )


def _named(error: Exception, state: State, context: Context) -> Iterator[State]:
    """The message, or the line that failed, names an argument that was not given."""
    said = re.findall(r"\w+", str(error))
    lines = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        text = linecache.getline(code.co_filename, traceback.tb_lineno)
        lines.append([w for w in re.findall(r"\w+", text) if traceback.tb_frame.f_locals.get(w, 0) is None])
        traceback = traceback.tb_next
    words = [*said, *(word for line in reversed(lines) for word in line)]
    for name in dict.fromkeys(word for word in words if word in context.parameters.names and word not in state):
        for guess in guesses(name, context)[:3]:
            yield _with(state, name, guess)


def _layer(error: Exception, state: State, context: Context) -> Iterator[State]:
    """The layer that failed says what it wants, if what it was given is one of the inputs."""
    for module, scope in failing_modules(error):
        wishes = wanted(module, context)
        if not wishes:
            continue
        given = [value for value in scope.values() if isinstance(value, Tensor)]
        for name, guess in state.items():
            if any(tuple(tensor.shape) == guess.shape for tensor in given):
                for wish in wishes:
                    yield _with(state, name, wish)
        return


def _dtype(error: Exception, state: State, context: Context) -> Iterator[State]:
    """An index must be integer; a weight wants floats."""
    message = str(error)
    if re.search(r"Long|indices|integer|int64|index", message):
        for name, guess in state.items():
            if guess.is_float:
                yield _with(state, name, Guess(guess.shape, "int64", context.vocabulary))
    if re.search(r"expected .*(Float|float)|same dtype|must have the same dtype", message):
        for name, guess in state.items():
            if not guess.is_float:
                yield _with(state, name, Guess(guess.shape))


def _numbers(error: Exception, state: State, context: Context) -> Iterator[State]:
    """A size of ours that the message quotes, changed to another number it quotes: what fits is usually among them."""
    numbers = list(
        dict.fromkeys(
            int(n)
            for n in re.findall(r"(?<![\w.])\d+(?![\w.])|(?<=\d)x(\d+)|(\d+)(?=x\d)", str(error))
            if isinstance(n, str) and n
        )
    )
    numbers = list(dict.fromkeys([*numbers, *(int(n) for n in re.findall(r"\d+", str(error)))]))
    numbers = [n for n in numbers if 0 < n <= 4096][:12]
    for name, guess in state.items():
        for axis in reversed(range(1, len(guess.shape))):
            if guess.shape[axis] not in numbers:
                continue
            for number in numbers:
                if number != guess.shape[axis] and number > 1:
                    shape = list(guess.shape)
                    if len(shape) >= 4 and axis >= len(shape) - 2:
                        shape[-2:] = [number, number]
                    else:
                        shape[axis] = number
                    yield _with(state, name, guess.reshaped(*shape))


def _sizes(error: Exception, state: State, context: Context) -> Iterator[State]:
    """Other usual sizes: a flattened image fixes its side, windows and strides want round lengths."""
    if isinstance(error, (AttributeError, NameError, KeyError)):
        return
    for name, guess in state.items():
        if len(guess.shape) in (4, 5) and guess.is_float:
            for side in (32, 28, 64, 224, 96, 128, 256, 384, 512, 16):
                if side != guess.shape[-1]:
                    yield _with(state, name, guess.reshaped(*guess.shape[:-2], side, side))
        elif len(guess.shape) in (2, 3) and not guess.content:
            axis = 1 if not guess.is_float else len(guess.shape) - 1
            for length in (8, 16, 32, 64, 128, 1024):
                if axis == 1 and guess.shape[1] != length:
                    yield _with(state, name, guess.reshaped(guess.shape[0], length, *guess.shape[2:]))


def _rank(error: Exception, state: State, context: Context) -> Iterator[State]:
    """One axis more or fewer."""
    if not re.search(r"dim|unpack|shape|rank|[0-9]D", str(error)):
        return
    for name, guess in state.items():
        if len(guess.shape) == 2 and guess.is_float:
            yield _with(state, name, guess.reshaped(guess.shape[0], context.length, guess.shape[1]))
        if len(guess.shape) == 3 and guess.is_float:
            yield _with(state, name, guess.reshaped(guess.shape[0], guess.shape[2]))
            yield _with(state, name, guess.reshaped(guess.shape[0], 1, *guess.shape[1:]))
        if len(guess.shape) == 4:
            yield _with(state, name, guess.reshaped(*guess.shape[:1], 1, *guess.shape[1:]))


def _absent(error: Exception, state: State, context: Context) -> Iterator[State]:
    """Something was None: give the next argument of the signature whose name says what it is."""
    if "None" not in str(error):
        return
    for name in context.parameters.names:
        if name not in state and not name.endswith(("mask", "labels", "embeds", "position_ids")):
            for guess in guesses(name, context)[:2]:
                yield _with(state, name, guess)
