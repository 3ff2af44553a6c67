"""Try inputs on meta, and let each failure say what to try next."""

from __future__ import annotations

import functools
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from mupc.blame import blame
from mupc.errors import TargetError
from mupc.inputs.arguments import OPTIONAL, guesses
from mupc.inputs.candidates import main_name, main_names, starts
from mupc.inputs.context import Context
from mupc.inputs.failure import Failure
from mupc.inputs.guess import Guess
from mupc.inputs.probe import Attempt, Probe
from mupc.inputs.repair import attempts, hopeless, readings, repairs
from mupc.inputs.solve import moving, solved, usual
from mupc.target.build import needs_values

State = dict[str, Guess]
_STARTS, _REPAIRS, _SAME, _MEASURED, _LAST_TRIES = 24, 60, 3, 2, 40


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one search may cost."""

    tries: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """Inputs, and what became of the attempt with them."""

    state: State
    attempt: Attempt


@dataclass(slots=True)
class Outcome:
    """Where a search ended: `found`, else what looked right as far as meta tensors can tell, and the best failure."""

    found: Found | None = None
    plausible: Found | None = None
    best: Exception | None = None
    tried: int = 0


_MAIN, _WIDER = Budget(120, 25.0), Budget(12, 4.0)
_NO_MODALITY = ("mask", "labels", "position_ids", "embeds", "past_key_values", "outputs", "type_ids")
_WIDENING = 12.0  # seconds for all optional arguments together


def infer(model: nn.Module, own: str = "") -> Found:
    """Inputs that `model.forward` accepts on meta. Raises `TargetError`, which quotes the likeliest failure."""
    context, probe = Context(model), Probe(model)
    whole = main_names(context)
    outcome = _from(probe, context, whole)
    alone = [name for name in whole if name == main_name(context)]
    if outcome.found is None and alone and alone != whole:
        part = _from(probe, context, alone)  # another part's own widths need not fit, by default, the model it feeds
        outcome = part if part.found is not None else outcome
    if outcome.found is not None:
        return widened(outcome.found, probe, context)
    if outcome.plausible is None:
        raise _no_inputs(outcome, context, own)
    return outcome.plausible


def _from(probe: Probe, context: Context, main: Sequence[str]) -> Outcome:
    return search(probe, context, itertools.islice(starts(context, main), _STARTS), _MAIN)


def search(
    probe: Probe,
    context: Context,
    begin: Iterable[State],
    budget: Budget,
    enough: Callable[[Attempt], bool] = lambda attempt: True,
) -> Outcome:
    """Surest first, and of those what repairs the failure that came latest in the forward."""
    outcome = Outcome()
    deadline, until = time.monotonic() + budget.seconds, budget.tries
    furthest = (False, -1)
    seen: set[str] = set()
    kinds: Counter[str] = Counter()
    measured: Counter[str] = Counter()
    order = itertools.count()
    waiting: list[tuple[int, int, int, State, Failure | None]] = []

    def push(ops: int, rank: int, states: Iterable[State]) -> None:
        for state in itertools.islice(states, _REPAIRS):
            heapq.heappush(waiting, (rank, -ops, next(order), state, None))

    first, *others = begin
    push(0, 0, [first])
    push(0, 2, others)
    while waiting and outcome.tried < until and time.monotonic() < deadline:
        _, ops, _, state, failed = heapq.heappop(waiting)
        if failed is not None:  # what it said itself is tried: now measure it, then try all sorts of things
            movings = moving(failed, state, probe) if measured[failed.kind] < _MEASURED else []
            measured[failed.kind] += 1
            push(-ops, 0, solved(state, movings))
            push(-ops, 3, itertools.chain(attempts(failed, state, context), usual(state, movings)))
            continue
        if repr(state) in seen:
            continue
        seen.add(repr(state))
        outcome.tried += 1
        attempt = probe.attempt(state)
        if attempt.error is None:
            if enough(attempt):
                outcome.found = Found(state, attempt)
                break
            continue
        failure = Failure(attempt.error)
        if hopeless(failure):
            outcome.best, outcome.plausible = attempt.error, None
            break
        kinds[failure.kind] += 1
        if kinds[failure.kind] <= _SAME:  # else the repair changed nothing, and nor will repairs of it
            push(attempt.ops, 0, repairs(failure, state, context))
            push(attempt.ops, 2, readings(failure, state, context))
            heapq.heappush(waiting, (1, -attempt.ops, next(order), state, failure))
        reached = failure.is_the_users_own, attempt.ops
        if reached > furthest:
            furthest, outcome.best = reached, attempt.error
        if outcome.plausible is None and (needs_values(attempt.error) or attempt.guessed):
            outcome.plausible, until = Found(state, attempt), outcome.tried + _LAST_TRIES
    return outcome


def widened(found: Found, probe: Probe, context: Context) -> Found:
    """With optional inputs added, one after another, that make the model read more of its parameters."""
    deadline = time.monotonic() + _WIDENING
    for name in optional(context, found.state):
        if not found.attempt.unread or time.monotonic() > deadline:
            break
        begin = [{**found.state, name: guess} for guess in guesses(name, context)[:3] if guess.plain is None]
        fewer = functools.partial(_reads_more, than=found.attempt)
        found = (begin and search(probe, context, begin, _WIDER, fewer).found) or found
    return found


def _reads_more(attempt: Attempt, than: Attempt) -> bool:
    return len(attempt.unread) < len(than.unread)


def optional(context: Context, state: State) -> Iterator[str]:
    """Arguments that may hold another modality: neither masks and labels, nor another way to say what is there."""
    for name in context.parameters.names:
        if name not in state and not name.endswith(_NO_MODALITY) and name not in OPTIONAL:
            yield name


def _no_inputs(outcome: Outcome, context: Context, own: str) -> TargetError:
    names = context.parameters.names
    said = blame(outcome.best, own) if outcome.best is not None else "no input to try"
    return TargetError(
        f"{said} (from {type(context.model).__name__}.forward({', '.join(names)}), {outcome.tried} guesses at its "
        f"inputs tried; give them with --input '{names[0] if names else 'x'}:float32[2,64]')"
    )
