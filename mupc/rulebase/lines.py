"""Which line of a TOML file a key stands on: tomllib keeps none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Place = Sequence[str | int]


def line_of(text: str, place: Place) -> int:
    """The line of the key or table at a place such as `("rule", 1, "std")`: of the longest part of it that has one.

    tomllib keeps no lines, so the text is scanned for table heads and keys, strings of several lines passed over.
    """
    best, line = 0, 1
    for at, path in _keys(text):
        if len(path) > best and tuple(place[: len(path)]) == path:
            best, line = len(path), at
    return line


_HEAD = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([\w\"'.-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=")


def _keys(text: str) -> Iterator[tuple[int, tuple[str | int, ...]]]:
    table: tuple[str | int, ...] = ()
    counts: dict[tuple[str | int, ...], int] = {}
    quote = ""
    array: _Array | None = None
    for at, line in enumerate(text.splitlines(), 1):
        if array is not None:
            yield from ((at, path) for path in array.read(line))
            array = array if array.depth > 0 else None
            continue
        if quote:
            quote = "" if line.count(quote) % 2 else quote
            continue
        if head := _HEAD.match(line):
            table = _names(head[2])
            if head[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
            table = _indexed(table, counts)
            yield at, table
        elif key := _KEY.match(line):
            yield at, (*table, *_names(key[1]))
            if line[key.end() :].lstrip().startswith("["):
                array = _Array((*table, *_names(key[1])))
                yield from ((at, path) for path in array.read(line[key.end() :]))
                array = array if array.depth > 0 else None
                continue
            quote = next((q for q in ('"""', "'''") if line.count(q) % 2), "")


@dataclass
class _Array:
    """An array of inline tables, `rule = [{...}, ...]`, read a line at a time."""

    path: tuple[str | int, ...]
    depth: int = 0
    count: int = -1

    def read(self, line: str) -> list[tuple[str | int, ...]]:
        """The places that begin on the line: elements, and the keys in them."""
        found: list[tuple[str | int, ...]] = []
        plain = re.sub(r"\"[^\"]*\"|'[^']*'", lambda m: "_" * len(m[0]), line)
        for token in re.finditer(r"[\[\]{}]|([\w.-]+)\s*=", plain):
            if token[1]:
                found += [(*self.path, self.count, *_names(token[1]))] if self.depth == 2 else []
                continue
            opens = token[0] in "[{"
            if opens and self.depth == 1:
                self.count += 1
                found.append((*self.path, self.count))
            self.depth += 1 if opens else -1
        return found


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _indexed(table: tuple[str | int, ...], counts: dict[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """`("rule", "lr")` under the second `[[rule]]` is `("rule", 1, "lr")`."""
    out: list[str | int] = []
    for i, part in enumerate(table):
        out.append(part)
        if table[: i + 1] in counts:
            out.append(counts[table[: i + 1]])
    return tuple(out)
