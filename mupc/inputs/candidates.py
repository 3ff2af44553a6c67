"""Where a search begins: the arguments that must be given, and what each of them may be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from mupc.inputs.arguments import guesses
from mupc.inputs.context import BATCH, Context
from mupc.inputs.guess import Guess, unique
from mupc.inputs.layers import first_wanted

State = dict[str, Guess]


def starts(context: Context, main: Sequence[str]) -> Iterator[State]:
    """First states, likeliest first: what the library says is the main input, what names say, what layers want."""
    parameters = context.parameters
    wanted = dict.fromkeys((*parameters.required, *main))
    if not wanted and parameters.names:
        wanted = dict.fromkeys(parameters.names[:1])
    if not wanted:
        yield {}
        return
    choices = [candidates(name, context) for name in wanted]
    combined = sorted(
        itertools.product(*(range(min(len(c), 8)) for c in choices)),
        key=lambda at: (sum(at), max(at)) if at else (0, 0),
    )
    for at in combined[:64]:
        yield {name: choice[i] for name, choice, i in zip(wanted, choices, at, strict=True)}


def main_name(context: Context) -> str:
    """The one input that everything else goes with: the text where there is some."""
    main = getattr(context.model, "main_input_name", None)
    return "input_ids" if "input_ids" in context.parameters.names else main if isinstance(main, str) else ""


def main_names(context: Context) -> list[str]:
    """What the model itself calls its main input, and what goes with it."""
    names = set(context.parameters.names)
    main = getattr(context.model, "main_input_name", None)
    found = [main] if isinstance(main, str) else list(main or ())
    config = getattr(context.model, "config", None)
    modalities = getattr(context.model, "input_modalities", ())
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities or ())
    if found and "text" in modalities and "input_ids" in names:
        found.append("input_ids")
    if found and "image" in modalities and "pixel_values" in names:
        found.append("pixel_values")
    if found and getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        found.append("decoder_input_ids")
    return [name for name in found if name in names]


def candidates(name: str, context: Context) -> list[Guess]:
    """By name where the name says something, then by annotation, then by the model's layers."""
    named = guesses(name, context)
    if named and (named[0].plain is not None or hasattr(context.model, "main_input_name")):
        return named  # a library's names mean what they say
    return unique([*named, *_annotated(context.parameters.annotations.get(name, ""), context), *first_wanted(context)])


def _annotated(annotation: str, context: Context) -> list[Guess]:
    several = 1 if annotation.lower().startswith(("list[", "tuple[", "sequence[")) else 0
    shape = (BATCH, context.length)
    if "Long" in annotation or "Int" in annotation:
        return [Guess(shape, "int64", context.vocabulary, several=several)]
    if "Bool" in annotation:
        return [Guess(shape, "bool", several=several)]
    if several:
        return [Guess((*shape, context.number("hidden_size", "d_model", "hidden_dim", default=64)), several=several)]
    return []
