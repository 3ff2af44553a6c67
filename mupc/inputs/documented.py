"""Shapes that a docstring or a message spells out: "`torch.LongTensor` of shape `(batch_size, sequence_length)`"."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from torch import nn

from mupc.inputs.context import BATCH, Context
from mupc.inputs.guess import Guess, ids

_ARGUMENT = re.compile(
    r"^\s*`{0,2}(?P<name>\w+)`{0,2}\s*\(`{0,2}(?:torch\.)?(?P<kind>\w*Tensor)`{0,2}\s*,?\s*of shape\s*"
    r"[`:obj]*\((?P<shape>[^()]*)\)",
    re.MULTILINE,
)
_STATED = re.compile(r"of shape[^(\n]*\(([a-z0-9_*, ]+)\)")
_WHOLE = re.compile(r"(sizes?|lens|lengths?|thw|shapes?|ids|indices)$")
_INTEGERS = ("LongTensor", "IntTensor", "ShortTensor", "ByteTensor")


def documented(name: str, context: Context) -> list[Guess]:
    """What the forward's docstring says of an argument; empty where it says nothing of its shape."""
    for found in _ARGUMENT.finditer(_docstring(context.model)):
        if found["name"] == name:
            shape = sizes(found["shape"].split(","), context)
            if shape is None:
                return []
            if _WHOLE.search(name) and found["kind"] not in _INTEGERS:
                return [Guess(shape, "int64")]  # "a Tensor" of sizes holds whole numbers
            if found["kind"] == "BoolTensor":
                return [Guess(shape, "bool")]
            return [ids(max(2, context.vocabulary), *shape)] if found["kind"] in _INTEGERS else [Guess(shape)]
    return []


def stated(message: str, context: Context) -> tuple[int, ...] | None:
    """The shape that an error message asks for by names: "a 5D tensor of shape (batch_size, 2, num_channels, ...)"."""
    found = _STATED.search(message)
    return sizes(found[1].split(","), context) if found and re.search("[a-z]", found[1]) else None


def sizes(words: Sequence[str], context: Context) -> tuple[int, ...] | None:
    """Each word's number: a literal, a config field, or what such words mean; None where one means nothing."""
    found = [_size(word.strip(" `'\""), context) for word in words if word.strip()]
    return None if None in found else tuple(n for n in found if n is not None)


def _size(word: str, context: Context) -> int | None:
    channels, height, width = context.image
    if word.isdigit():
        return int(word)
    if factors := [part for part in re.split(r"\s*\*\s*", word) if part] if "*" in word else []:
        parts = [_size(part, context) for part in factors]
        product = 1
        for part in parts:
            product *= part or 1
        return None if None in parts else product
    if re.match(r"(batch|bsz|bs$|b$|n$|num_(images|videos|samples|audios)$)", word):
        return BATCH
    if number := context.number(word, word.removeprefix("config.").rpartition(".")[2]):
        return min(number, 1 << 14)
    for pattern, size in (
        ("channels?$", channels),
        ("height|^h$", height),
        ("width|^w$|image_size|frame_size|crop", width),
        ("target|decoder|tgt", context.other_length),
        ("len|seq|time|frames|tokens|patches|steps|^[tls]$", context.length),
        ("dim|size|features|embed|hidden", context.number("hidden_size", "d_model", "embed_dim", default=64)),
        ("num_|max_", 4),
    ):
        if re.search(pattern, word):
            return size
    return None


def _docstring(model: nn.Module) -> str:
    return inspect.getdoc(type(model).forward) or ""
