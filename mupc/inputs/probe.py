"""A forward under the tracer's recorder: does the model accept these inputs, and which parameters does it then read?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from torch import nn

from mupc.inputs.guess import Guess
from mupc.trace.capture import Capture, Forward
from mupc.trace.fallback import recorder_works, traced_by_export
from mupc.trace.search import forward_of, runs, unhurried

_SIDES = 4  # sides of branches on values that one attempt takes


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the forward raised, or None if it returned; the parameters that it then left unread.

    `ops` were run by then, a measure of how far it got; `guessed` says that values were made up on the way.
    """

    error: Exception | None
    ops: int = 0
    guessed: bool = False
    unread: frozenset[str] = frozenset()


class Probe:
    """A model to be tried again and again. It is left as it was found, whatever its forward writes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward = forward_of(model, (), {}, fold_blocks=False)

    def attempt(self, inputs: Mapping[str, Guess]) -> Attempt:
        """Call the model's forward on meta, in eval mode; of several sides, the one that got furthest is told."""
        given = {name: guess.value() for name, guess in inputs.items()}
        forward = forward_of(self.model, (), given, fold_blocks=False, swap=self.forward.swap)
        if not recorder_works():
            return _exported(forward)
        with unhurried():
            tried = [_told(capture, error) for capture, error in islice(runs(forward), _SIDES)]
        return max(tried, key=lambda one: (one.error is None, one.ops))


def _told(capture: Capture, error: Exception | None) -> Attempt:
    unread = frozenset() if error is not None else frozenset(capture.unread())
    return Attempt(error, len(capture.recorder.writer.log), bool(capture.sides.made), unread)


def _exported(forward: Forward) -> Attempt:
    try:
        return Attempt(None, unread=frozenset(traced_by_export(forward).unused))
    except Exception as error:
        return Attempt(error)
