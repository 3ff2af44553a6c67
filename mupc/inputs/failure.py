"""What an attempt that failed gives away: its message, the statements it failed in, the modules it was in."""

from __future__ import annotations

import linecache
import re
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any

from torch import nn

from mupc.blame import is_users

_CALLS = ("_call_impl", "_wrapped_call_impl", "__call__")
_NO_MEMBER = object()


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

    @property
    def is_the_users_own(self) -> bool:
        """Raised by the user's code itself, not by an op that a shape did not fit."""
        return bool(self.frames) and is_users(self.frames[0][0].f_code.co_filename)

    @property
    def kind(self) -> str:
        """The same for failures that differ in numbers alone."""
        frame, line = self.frames[0] if self.frames else (None, 0)
        file = frame.f_code.co_filename if frame else ""
        return f"{file}:{line}:{type(self.error).__name__}:{re.sub('[0-9]+', '#', self.message)}"

    @cached_property
    def words(self) -> list[str]:
        """Names in the message, then in the failing statements."""
        return re.findall(r"[A-Za-z_]\w*", self.message) + [word for word, _ in self._statement_names]

    @cached_property
    def absent(self) -> list[str]:
        """Names in the message; where it speaks of None, also those of the failing statements that are None."""
        said = re.findall(r"[A-Za-z_]\w*", self.message) + self._asked
        return said + [word for word, value in self._statement_names if value is None and "None" in self.message]

    @cached_property
    def _asked(self) -> list[str]:
        """What an `if x is None:` just above an explicit `raise` asks about."""
        if not self.frames:
            return []
        frame, line = self.frames[0]
        file = frame.f_code.co_filename
        if not linecache.getline(file, line).lstrip().startswith("raise"):
            return []
        above = "".join(linecache.getline(file, at) for at in range(max(1, line - 4), line))
        return re.findall(r"(\w+) is None", above)

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
        found: list[tuple[str, Any]] = []
        for frame, line in self.frames:
            scope = frame.f_locals
            for word in re.findall(r"[A-Za-z_]\w*", _statement(frame.f_code.co_filename, line)):
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
