"""What an attempt that failed gives away: its message, the statements it failed in, the modules it was in."""

from __future__ import annotations

import linecache
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from mupc.blame import is_users

_CALLS = ("_call_impl", "_wrapped_call_impl", "__call__")
_NO_MEMBER = object()
_MACHINERY = (str(Path(torch.__file__).parent) + os.sep, str(Path(__file__).parent.parent) + os.sep)


@dataclass(frozen=True)
class Failure:
    """Read while the traceback is alive; frames are listed deepest first."""

    error: Exception

    @property
    def message(self) -> str:
        return str(self.error)

    @cached_property
    def numbers(self) -> list[int]:
        """Those that the message quotes, as in `(2x64 and 128x10)`."""
        return list(dict.fromkeys(int(n) for n in re.findall(r"\d+", self.message)))

    @cached_property
    def frames(self) -> list[tuple[FrameType, int]]:
        found = []
        traceback = self.error.__traceback__
        while traceback is not None:
            found.append((traceback.tb_frame, traceback.tb_lineno))
            traceback = traceback.tb_next
        return found[::-1]

    @cached_property
    def own_frames(self) -> list[tuple[FrameType, int]]:
        """Those of the model's code, neither torch's nor ours."""
        return [(frame, line) for frame, line in self.frames if not frame.f_code.co_filename.startswith(_MACHINERY)]

    @property
    def is_the_users_own(self) -> bool:
        """Raised by the user's code itself, not by an op that a shape did not fit."""
        return bool(self.frames) and is_users(self.frames[0][0].f_code.co_filename)

    @property
    def kind(self) -> str:
        """The same for failures that differ in numbers alone."""
        frame, line = next(iter(self.own_frames), (None, 0))
        file = frame.f_code.co_filename if frame else ""
        return f"{file}:{line}:{type(self.error).__name__}:{re.sub('[0-9]+', '#', self.message)}"

    @cached_property
    def words(self) -> list[str]:
        """Names in the message, then in the failing statements."""
        return re.findall(r"[A-Za-z_]\w*", self.message) + [word for word, _ in self._statement_names]

    @cached_property
    def absent(self) -> list[str]:
        """Names in the message; where it speaks of None, or of a condition, also those there that are None."""
        said = re.findall(r"[A-Za-z_]\w*", self.message)
        if "None" in self.message:
            return said + [word for word, value in self._statement_names if value is None]
        return said + [
            word for word, value in self._names_in(self.own_frames[:1] if self.raised else []) if value is None
        ]

    @property
    def raised(self) -> bool:
        """By a `raise` of the model's own, rather than by an op."""
        return any(_statement(f.f_code.co_filename, n).lstrip().startswith("raise") for f, n in self.own_frames[:1])

    @cached_property
    def modules(self) -> list[tuple[nn.Module, dict[str, Any]]]:
        """The modules whose forward was running, with that frame's locals."""
        return [
            (scope["self"], scope)
            for frame, _ in self.frames
            if isinstance((scope := frame.f_locals).get("self"), nn.Module) and frame.f_code.co_name not in _CALLS
        ]

    @cached_property
    def _statement_names(self) -> list[tuple[str, Any]]:
        return self._names_in(self.frames)

    @staticmethod
    def _names_in(frames: list[tuple[FrameType, int]]) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for frame, line in frames:
            scope, file = frame.f_locals, frame.f_code.co_filename
            for word in re.findall(r"[A-Za-z_]\w*", _statement(file, line) + _guards(file, line)):
                found.append((word, scope.get(word, _NO_MEMBER)))
        return found


def _statement(file: str, line: int) -> str:
    """From this line to where its brackets close."""
    text = ""
    for at in range(line, line + 12):
        text += linecache.getline(file, at)
        if text.count("(") + text.count("[") <= text.count(")") + text.count("]"):
            break
    return text


def _guards(file: str, line: int) -> str:
    """The conditions under which a `raise` is reached."""
    here = linecache.getline(file, line)
    if not here.lstrip().startswith("raise"):
        return ""
    found, depth = "", _indent(here)
    for at in range(line - 1, max(0, line - 12), -1):
        text = linecache.getline(file, at)
        if text.strip() and _indent(text) < depth:
            depth = _indent(text)
            found += _statement(file, at)
            if not text.lstrip().startswith(("if ", "elif ", "else")):
                break
    return found


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
