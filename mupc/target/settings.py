"""`key=value` arguments after a target: literals by Python's own rules, anything else a string."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mupc.errors import TargetError

_WORDS = {"true": True, "false": False, "null": None, "none": None}


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["n_layer=2", "act=gelu"]` -> `{"n_layer": 2, "act": "gelu"}`; keys may be dotted."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise TargetError(f"bad setting {pair!r}: write key=value, for example n_layer=2")
        if key in settings:
            raise TargetError(f"{key} is set twice: {settings[key]!r} and {value}")
        settings[key] = parse_value(value)
    return settings


def parse_value(text: str) -> Any:
    """A Python literal, `true`/`false`/`null` in any case, or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"text.width": 2}` -> `{"text": {"width": 2}}`."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise TargetError(f"{key}: {part} is set to a value and to a group")
        branch[last] = value
    return tree


def unknown_setting(key: str, known: Iterable[str], where: str) -> TargetError:
    """The error for a key that nothing takes, with the nearest names that something does."""
    names = sorted({name for name in known if not name.startswith("_")})
    return TargetError(f"{where} has no setting {key!r}{near_names(key, names)}")


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()


def near_names(name: str, known: Sequence[str], all_below: int = 16) -> str:
    """`; did you mean a, b?`, else all the names where they are few, else nothing."""
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.55)
    if close:
        best = _likeness(name, close[0])
        close = [each for each in close if _likeness(name, each) > best - 0.2]
        return f"; did you mean {', '.join(close)}?"
    return f"; it has {', '.join(known)}" if 0 < len(known) <= all_below else ""
