"""A failed forward as one line: the user's own file and line, the exception, what to do."""

from __future__ import annotations

import os
import traceback

from mupc.errors import TraceError
from mupc.trace.writer import OURS, TORCH


def blame(error: BaseException, guessed: bool) -> TraceError:
    """The innermost frame outside torch and mupc carries the blame."""
    if isinstance(error, TraceError):
        return error
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((TORCH, OURS, "<"))]
    where = ""
    if frames:
        near = os.path.relpath(frames[-1].filename)
        where = f"{frames[-1].filename if near.startswith('..') else near}:{frames[-1].lineno}: "
    text = " ".join(str(error).split())
    values = guessed or "meta" in text
    hint = "; the forward branches on values: pass real inputs (--input, example_inputs)" if values else ""
    return TraceError(f"{where}{type(error).__name__}{': ' if text else ''}{text[:300]}{hint}")
