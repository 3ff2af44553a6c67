"""Which sides of value-dependent branches to trace: one that finishes, then those that reach unread parameters."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from mupc.trace.capture import Capture, Forward, Trace
from mupc.trace.fallback import recorder_works, traced_by_export
from mupc.trace.guesses import TRIES, Sides
from mupc.trace.swap import Swap
from mupc.trace.templates import NotRepeatedError


def trace(
    model: nn.Module, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, *, fold_blocks: bool = True
) -> Trace:
    """Any module to a `Trace`.

    The model may be on any device; it is not changed and nothing of its size is allocated. Branches that depend on
    values are guessed, the guess recorded; where a guess makes the forward fail the other side is tried, and where a
    parameter stays unread, the other sides (and training mode) are traced too and joined to the same graph.
    Where the forward takes `use_cache` and none is given, it is False.
    Raises `TraceError`, naming the user's line, where the forward fails on every side.
    """
    forward = forward_of(model, args, kwargs or {}, fold_blocks=fold_blocks)
    with unhurried():
        return _trace(forward) if recorder_works() else traced_by_export(forward)


def forward_of(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, fold_blocks: bool, swap: Swap | None = None
) -> Forward:
    """What to run. Twins of the model's parameters, `swap`, may be kept from one run to the next."""
    model = getattr(model, "_orig_mod", model) if type(model).__name__ == "OptimizedModule" else model
    return Forward(model, swap or Swap(model), tuple(args), _without_cache(model, args, kwargs), fold_blocks)


def _without_cache(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Unless the caller asks for it, no cache of past keys is kept: it is no result, and blocks that fill it differ."""
    try:
        signature = inspect.signature(model.forward)
        given = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return dict(kwargs)
    wanted = "use_cache" in signature.parameters and "use_cache" not in given
    return {**kwargs, "use_cache": False} if wanted else dict(kwargs)


def _trace(forward: Forward) -> Trace:
    capture = _first(forward)
    guesses = list(capture.sides.made)
    tried: set[object] = {capture.sides.key}
    for sides in capture.sides.alternatives() if capture.unread() else ():
        if sides.key in tried or len(tried) > TRIES:
            continue
        tried.add(sides.key)
        before = len(capture.unread())
        extra = Capture(forward, sides, capture)
        try:
            extra.run()
        except Exception:  # an alternative that fails adds nothing
            capture.forget(extra)
            continue
        if len(capture.unread()) == before:
            _drop(capture, extra)
            continue
        guesses += sides.made
        if not capture.unread():
            break
    return capture.result(tuple(dict.fromkeys(guesses)))


def _drop(capture: Capture, extra: Capture) -> None:
    """An alternative that reaches no further parameter is not kept."""
    own = set(extra.recorder.writer.log)
    for path in [p for p, node in capture.outputs.items() if node in own and p.startswith("alternative")]:
        del capture.outputs[path]
    capture.forget(extra)


def _first(forward: Forward) -> Capture:
    """The first sides of all guesses on which the forward finishes."""
    failure: Exception | None = None
    guessed = False
    for capture, error in runs(forward):
        if error is None:
            return capture
        if isinstance(error, NotRepeatedError):
            return _first(Forward(forward.model, forward.swap, forward.args, forward.kwargs, fold=False))
        failure = failure or error
        guessed = guessed or bool(capture.sides.made)
    assert failure is not None
    raise forward.failed(failure, guessed) from failure


def runs(forward: Forward) -> Iterator[tuple[Capture, Exception | None]]:
    """One run after another, each on other sides of the guesses, and what it raised, until one finishes."""
    todo, tried = [Sides(True), Sides(False)], set[object]()
    while todo and len(tried) < TRIES:
        sides = todo.pop(0)
        if sides.key in tried:
            continue
        tried.add(sides.key)
        capture = Capture(forward, sides)
        error = _raised(capture)
        yield capture, error
        if error is None:
            return
        if "grad" in str(error) and not sides.grad:
            todo.insert(0, sides.changed(grad=True))
        elif not sides.made:
            return
        todo += sides.after_failure()


def _raised(capture: Capture) -> Exception | None:
    try:
        capture.run()
    except Exception as error:
        return error
    return None


@contextmanager
def unhurried() -> Iterator[None]:
    """No cyclic garbage collection while many objects that stay alive are made."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
