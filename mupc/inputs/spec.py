"""`--input 'idx:int64[2,128]<50257'`: name (optional), dtype, shape, exclusive upper bound."""

from __future__ import annotations

import re

from mupc.errors import TargetError
from mupc.inputs.guess import Guess
from mupc.target.settings import near_names

DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64",
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_SHORT = {"long": "int64", "int": "int32", "float": "float32", "double": "float64", "half": "float16"}


def parse_input(text: str) -> tuple[str | None, Guess]:
    """The name, or None for a positional input, and what to pass. An error points at the column."""
    at = 0
    name = None
    if (named := re.match(r"\s*([A-Za-z_]\w*)\s*:", text)) is not None:
        name, at = named[1], named.end()
    at = _skip(text, at)
    word = re.compile(r"\w+").match(text, at)
    if word is None:
        raise _bad(text, at, "a dtype such as int64 or float32")
    dtype = _SHORT.get(word[0], word[0])
    if dtype not in DTYPES:
        raise _bad(text, at, "a dtype", f"{word[0]!r}{near_names(word[0], DTYPES, 0)}")
    at = _skip(text, word.end())
    shape, at = _shape(text, at)
    at = _skip(text, at)
    below = None
    if text[at : at + 1] == "<":
        number = re.compile(r"\s*(\d+)").match(text, at + 1)
        if number is None or int(number[1]) == 0:
            raise _bad(text, at + 1, "a whole number above 0")
        if "int" not in dtype:
            raise _bad(text, at, "the end, for only integers have a bound")
        below, at = int(number[1]), number.end()
    if _skip(text, at) < len(text):
        raise _bad(text, _skip(text, at), "the end" if below else "the end, or '<' and an exclusive upper bound")
    return name, Guess(shape, dtype, below)


def _shape(text: str, at: int) -> tuple[tuple[int, ...], int]:
    if text[at : at + 1] != "[":
        raise _bad(text, at, "'[' and a shape such as [2,128]")
    at = _skip(text, at + 1)
    sizes: list[int] = []
    while text[at : at + 1] != "]":
        number = re.compile(r"\d+").match(text, at)
        if number is None:
            raise _bad(text, at, "a size, or ']'")
        sizes.append(int(number[0]))
        at = _skip(text, number.end())
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise _bad(text, at, "',' or ']'")
    return tuple(sizes), at + 1


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _bad(text: str, at: int, wanted: str, found: str = "") -> TargetError:
    found = found or (repr(text[at]) if at < len(text) else "the end")
    return TargetError(f"--input {text!r}: column {at + 1}: expected {wanted}; found {found}")
