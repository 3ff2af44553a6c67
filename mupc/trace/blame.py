"""A failed forward as one line: the user's own file and line, the exception, what to do."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import torch

from mupc.errors import TraceError

TORCH = str(Path(torch.__file__).parent) + os.sep
OURS = str(Path(__file__).resolve().parent.parent) + os.sep


def blame(error: BaseException, guessed: bool) -> TraceError:
    """The innermost frame outside torch and mupc carries the blame."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((TORCH, OURS, "<"))]
    where = f"{os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""
    if frames and where.startswith(".."):
        where = f"{frames[-1].filename}:{frames[-1].lineno}: "
    text = " ".join(str(error).split()) or type(error).__name__
    hint = "; the forward branches on values: pass real inputs (--input, example_inputs)" if guessed else ""
    return TraceError(f"{where}{type(error).__name__}: {text[:300]}{hint}")
