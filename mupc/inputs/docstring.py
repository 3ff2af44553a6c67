"""What a forward's docstring says of its arguments: `(batch_size, sequence_length, 4)` with the config's sizes."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from mupc.inputs.guess import Guess

if TYPE_CHECKING:
    from mupc.inputs.context import Context

BATCH = 2
_ENTRY = re.compile(r"^[ \t]*`?(\w+)`?[ \t]*(\(.*\))?[ \t]*:", re.MULTILINE)
_RESULTS = re.compile(r"^\s*(?:Returns?|Yields?|Examples?):", re.MULTILINE)
_SHAPE = re.compile(r"[\[(]((?:[\w.*+/ -]+,)+[\w.*+/ -]*)[\])]")
_STATED = re.compile(r"of shape[^(\n]*\(([a-z0-9_*, ]+)\)")
_INTEGERS = re.compile(r"LongTensor|IntTensor|int64|\b[Ii]ndices|\bids\b")
_BOOLEANS = re.compile(r"BoolTensor|\bbool\b")
_LIST = re.compile(
    r"\b[Ll]ist\[(?:torch\.)?\w*Tensor|\btuple\[(?:torch\.)?\w*Tensor|\b[Ll]ist of .*(?:[Tt]ensor|features)"
)

# Words for sizes that no config holds.
_BATCH = ("batch_size", "batch", "b", "bsz", "bs", "n", "text_batch_size", "image_batch_size")
_LENGTHS = ("length", "seq_len", "len", "num_tokens", "num_words", "t", "l", "seq", "timesteps", "num_patches")
_OTHERS = ("target_sequence_length", "tgt_len", "text_len", "text_length", "text_seq_len", "text_sequence_length")
_SIDES = ("height", "width", "image_size", "h", "w", "frame_size", "crop_height", "crop_width", "image_height")
_CHANNELS = ("num_channels", "channels", "c", "in_channels")
_WIDTHS = ("hidden_size", "hidden_dim", "embed_dim", "dim", "d_model", "embedding_size", "feature_dim", "d", "e")
_COUNTED = ("ids", "idx", "index", "indices", "lengths", "lens", "sizes", "shapes", "grid_thw", "labels")
_SOME = 4  # of what has no word of its own: queries, points, images


def documented(context: Context) -> dict[str, list[Guess]]:
    """Per argument, what its entry in the docstring describes."""
    return {
        name: list(_described(name, head, entry, context)) for name, (head, entry) in _entries(context.model).items()
    }


def _entries(model: nn.Module) -> dict[str, tuple[str, str]]:
    """Per argument, its type as written and its whole entry."""
    text = inspect.getdoc(type(model).forward) or ""
    text = text[: found.start()] if (found := _RESULTS.search(text)) else text
    begins = list(_ENTRY.finditer(text))
    ends = [*(begin.start() for begin in begins[1:]), len(text)][: len(begins)]
    entries: dict[str, tuple[str, str]] = {}
    for begin, end in zip(begins, ends, strict=True):
        entries.setdefault(begin[1], (begin[2] or "", text[begin.start() : end]))
    return entries


def _described(name: str, head: str, entry: str, context: Context) -> Iterator[Guess]:
    for shape in _SHAPE.finditer(entry):
        words = [word for word in re.split(r"\s*,\s*", shape[1].strip()) if word]
        sizes = [_size(word, words, context) for word in words]
        if all(sizes):
            guess = Guess(tuple(sizes), *_type(name, head, entry, context))
            yield replace(guess, several=1) if _LIST.search(head or entry) else guess


def _type(name: str, head: str, entry: str, context: Context) -> tuple[str, int | None]:
    """The dtype, and what bounds it."""
    said = head if "Tensor" in head and "torch.Tensor" not in head else entry.partition(".")[0]
    if _BOOLEANS.search(said):
        return "bool", None
    if "mask" in name:
        return "int64", None
    whole = name.endswith(_COUNTED) or (_INTEGERS.search(said) and not name.endswith("embeds"))
    return ("int64", min(2, context.vocabulary)) if whole else ("float32", None)


def stated(message: str, context: Context) -> tuple[int, ...] | None:
    """The shape that an error message asks for by names: "a 5D tensor of shape (batch_size, 2, num_channels, ...)"."""
    found = _STATED.search(message)
    if found is None or not re.search("[a-z]", found[1]):
        return None
    words = [word for word in re.split(r"\s*,\s*", found[1]) if word]
    shape = tuple(_size(word, words, context) for word in words)
    return shape if all(shape) else None


def _size(word: str, words: list[str], context: Context) -> int:
    """One axis; 0 where the word says nothing."""
    word = word.strip().strip("`")
    if "*" in word or " x " in word:
        return math.prod(_size(part, words, context) for part in re.split(r"\*| x ", word))
    if "+" in word:
        return sum(_size(part, words, context) for part in word.split("+"))
    if word.isdigit():
        return int(word)
    return _named_size(word.removeprefix("self.").removeprefix("config.").rpartition(".")[2], words, context)


def _named_size(word: str, words: list[str], context: Context) -> int:
    low = word.lower().strip()
    if not low.replace("_", "a").isidentifier():
        return _SOME if " " in low else 0
    if low in _BATCH:
        return BATCH
    if low in _SIDES and len(words) > 2:
        return context.image[2 if "w" in low else 1]
    if low in _CHANNELS and any(other.lower() in _SIDES for other in words):
        return context.image[0]
    if found := context.number(low):
        return found
    if low in _WIDTHS:
        return context.number(*_WIDTHS, default=64)
    if low in _OTHERS:
        return context.other_length
    if low.endswith(_LENGTHS):
        return context.length
    return BATCH if word == words[0].lower() else _SOME
