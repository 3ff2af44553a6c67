"""Which line of the user's own code an exception came from, as one line a person can act on."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

_PACKAGE = str(Path(__file__).resolve().parent)
_FOREIGN = tuple(
    {os.path.realpath(path) + os.sep for key in ("stdlib", "platstdlib") if (path := sysconfig.get_path(key))}
    | {_PACKAGE + os.sep}
)
_LONGEST = 400


def blame(error: BaseException, own: str = "") -> str:
    """`model.py:41: ValueError: what it says`: the deepest frame in the user's files, or under the folder `own`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno}: {type(error).__name__}: {error.msg}"
    place = user_line(error.__traceback__, own)
    return f"{place}: {describe(error)}" if place else describe(error)


def describe(error: BaseException) -> str:
    """The exception's type and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0][:_LONGEST] if lines else ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def user_line(traceback: TracebackType | None, own: str = "") -> str | None:
    """`file.py:41` of the deepest frame that is the user's, or None."""
    found = None
    while traceback is not None:
        if is_users(traceback.tb_frame.f_code.co_filename, own):
            found = f"{shown(traceback.tb_frame.f_code.co_filename)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def running_line(frame: FrameType | None, own: str = "") -> str | None:
    """`file.py:41` of the deepest of the user's frames that is being run, or None."""
    for each in _outwards(frame):
        if is_users(each.f_code.co_filename, own):
            return f"{shown(each.f_code.co_filename)}:{each.f_lineno}"
    return None


def is_users(file: str, own: str = "") -> bool:
    """Neither Python's, nor installed, nor ours; anything under `own` is the user's wherever it lies."""
    if file.startswith("<"):
        return False
    path = os.path.realpath(file)
    if own and path.startswith(own):
        return True
    return not (path.startswith(_FOREIGN) or "site-packages" in path or "dist-packages" in path)


def shown(file: str) -> str:
    """The path as the user would write it from where they stand."""
    path = os.path.realpath(file)
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
