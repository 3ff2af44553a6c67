"""Cases as text: a row is a name, how to build it, what to feed it, and its fields; `*` marks those that grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """`fields` maps dotted names to values, `grow` names those that width scales; `hard` widths stand in the code."""

    name: str
    kind: str
    head: str
    inputs: str
    fields: dict[str, Any]
    grow: frozenset[str]
    hard: frozenset[int] = frozenset()

    def config(self, factor: int = 1) -> dict[str, Any]:
        """A nested dict, the growing fields multiplied."""
        out: dict[str, Any] = {}
        for name, value in self.fields.items():
            *path, last = name.split(".")
            inner = out
            for key in path:
                inner = inner.setdefault(key, {})
            inner[last] = times(value, factor) if name in self.grow else value
        return out


def times(value: Any, factor: int) -> Any:
    """A number, or every number in a list or dict, multiplied."""
    if isinstance(value, list):
        return [times(item, factor) for item in value]
    if isinstance(value, dict):
        return {key: times(item, factor) for key, item in value.items()}
    return value * factor if isinstance(value, (int, float)) else value


def read(path: Path) -> Iterator[Row]:
    """The rows of a file; bases are kept for the rows below them."""
    bases: dict[str, tuple[dict[str, Any], set[str]]] = {}
    for line in logical_lines(path.read_text()):
        name, head, *words = line.split()
        name, _, kind = name.partition("=")
        if head == "base":
            bases[name] = fields(words, bases)
        else:
            hard = frozenset(int(word[1:]) for word in words if word.startswith("!"))
            values, grow = fields([word for word in words[1:] if not word.startswith("!")], bases)
            yield Row(name, kind or name, "" if head == "-" else head, words[0], values, frozenset(grow), hard)


def logical_lines(text: str) -> Iterator[str]:
    """Lines without comments; an indented one belongs to the line before."""
    whole = ""
    for line in text.splitlines():
        line = line.partition("#")[0].rstrip()
        if line.startswith(" "):
            whole += line
            continue
        if whole:
            yield whole
        whole = line
    if whole:
        yield whole


def fields(words: list[str], bases: dict[str, tuple[dict[str, Any], set[str]]]) -> tuple[dict[str, Any], set[str]]:
    """Words such as `@llama`, `*hidden_size=48`, `-head_dim`, `text_config=@bert` as values and what grows."""
    values: dict[str, Any] = {}
    grow: set[str] = set()
    for word in words:
        name, _, value = word.lstrip("*").partition("=")
        if word.startswith("-"):
            values.pop(word[1:])
            grow.discard(word[1:])
        elif "@" in (name[0], value[:1]):
            prefix = f"{name}." if value else ""
            base, base_grow = bases[(value or name)[1:]]
            values |= {prefix + key: item for key, item in base.items()}
            grow |= {prefix + key for key in base_grow}
        else:
            values[name] = literal(value)
            grow |= {name} if word.startswith("*") else set()
    return values, grow


def literal(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
