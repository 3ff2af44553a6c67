"""Try inputs on meta, and let each failure say what to try next."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from torch import nn

from mupc.blame import blame
from mupc.errors import TargetError, TraceError
from mupc.inputs.arguments import guesses
from mupc.inputs.context import Context
from mupc.inputs.failure import Failure
from mupc.inputs.guess import Guess
from mupc.inputs.layers import first_wanted
from mupc.inputs.probe import attempt
from mupc.inputs.repair import hopeless, repairs
from mupc.target.build import needs_values
from mupc.trace import trace

State = dict[str, Guess]
_TRIES, _LAST_TRIES, _SECONDS = 120, 12, 25.0
_STARTS, _REPAIRS, _SAME = 24, 40, 3


def infer(model: nn.Module, own: str = "") -> State:
    """Inputs that `model.forward` accepts on meta. Raises `TargetError`, which quotes the likeliest failure.

    Best first: what repairs the failure that came latest in the forward is tried before anything else.
    """
    context = Context(model)
    whole = main_names(context)
    alone = [name for name in whole if name == _main(context)]
    if not alone or alone == whole:
        return _search(model, context, whole, own)[0]
    failed: TargetError | None = None
    found: State = {}
    try:
        found, sure = _search(model, context, whole, own)
        if sure or _traceable(model, found):
            return found
    except TargetError as error:
        failed = error
    try:  # a part's own widths need not fit, by default, the model that it feeds
        return _search(model, context, alone, own)[0]
    except TargetError:
        if failed is None:
            return found
        raise failed from None


def _traceable(model: nn.Module, state: State) -> bool:
    """Whether inputs that are right as far as shapes tell go through the tracer, which knows more values."""
    try:
        trace(model, (), {name: guess.tensor() for name, guess in state.items()})
    except TraceError:
        return False
    return True


def _search(model: nn.Module, context: Context, main: Sequence[str], own: str) -> tuple[State, bool]:
    """Best first from the starts that these main inputs, and what is required, allow; and whether that is sure."""
    deadline = time.monotonic() + _SECONDS
    best: tuple[tuple[bool, int], Exception] | None = None
    plausible: State | None = None  # its shapes fit as far as meta tensors, which hold no values, can tell
    until = _TRIES
    seen: set[str] = set()
    kinds: Counter[str] = Counter()
    order = itertools.count()
    waiting = [(0, next(order), start) for start in itertools.islice(starts(context, main), _STARTS)]
    while waiting and len(seen) < until and time.monotonic() < deadline:
        _, _, state = heapq.heappop(waiting)
        if repr(state) in seen:
            continue
        seen.add(repr(state))
        tried = attempt(model, state)
        if tried.error is None:
            return state, True
        failure = Failure(tried.error)
        if hopeless(failure):
            best, plausible = ((True, tried.ops), tried.error), None
            break
        kinds[failure.kind] += 1
        if kinds[failure.kind] <= _SAME:  # else the repair changed nothing, and nor will repairs of it
            for repaired in itertools.islice(repairs(failure, state, context), _REPAIRS):
                heapq.heappush(waiting, (-tried.ops, next(order), repaired))
        reached = failure.is_the_users_own, tried.ops
        if best is None or reached > best[0]:
            best = reached, tried.error
        if plausible is None and (needs_values(tried.error) or tried.guessed):
            plausible, until = state, len(seen) + _LAST_TRIES
    if plausible is not None:
        return plausible, False
    names = ", ".join(context.parameters.names)
    said = blame(best[1], own) if best is not None else "no input to try"
    example = context.parameters.names[0] if context.parameters.names else "x"
    raise TargetError(
        f"{said} (from {type(model).__name__}.forward({names}), {len(seen)} guesses at its inputs tried; "
        f"give them with --input '{example}:float32[2,64]')"
    )


def starts(context: Context, main: Sequence[str]) -> Iterator[State]:
    """First states, likeliest first: what the library says is the main input, what names say, what layers want."""
    parameters = context.parameters
    wanted = dict.fromkeys((*parameters.required, *main))
    if not wanted and parameters.names:
        wanted = dict.fromkeys(parameters.names[:1])
    if not wanted:
        yield {}
        return
    choices = [candidates(name, context) for name in wanted]
    combined = sorted(
        itertools.product(*(range(min(len(c), 8)) for c in choices)),
        key=lambda at: (sum(at), max(at)) if at else (0, 0),
    )
    for at in combined[:64]:
        yield {name: choice[i] for name, choice, i in zip(wanted, choices, at, strict=True)}


def _main(context: Context) -> str:
    """The one input that everything else goes with: the text where there is some."""
    names = context.parameters.names
    main = getattr(context.model, "main_input_name", None)
    return "input_ids" if "input_ids" in names else main if isinstance(main, str) else ""


def main_names(context: Context) -> list[str]:
    """What the model itself calls its main input, and what goes with it."""
    names = set(context.parameters.names)
    main = getattr(context.model, "main_input_name", None)
    found = [main] if isinstance(main, str) else list(main or ())
    config = getattr(context.model, "config", None)
    modalities = getattr(context.model, "input_modalities", ())
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities or ())
    if found and "text" in modalities and "input_ids" in names:
        found.append("input_ids")
    if found and "image" in modalities and "pixel_values" in names:
        found.append("pixel_values")
    if found and getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        found.append("decoder_input_ids")
    return [name for name in found if name in names]


def candidates(name: str, context: Context) -> list[Guess]:
    """By name where the name says something, then by the model's layers."""
    named = guesses(name, context)
    if named and hasattr(context.model, "main_input_name"):
        return named  # a library's names mean what they say
    annotated = context.parameters.annotations.get(name, "")
    if annotated in ("int", "float", "bool", "str"):
        return named
    return _unique(named + list(first_wanted(context)))


def _unique(guessed: list[Guess]) -> list[Guess]:
    found: list[Guess] = []
    for guess in guessed:
        if guess not in found:
            found.append(guess)
    return found
