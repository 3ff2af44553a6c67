"""The inputs of a model's forward: given by spec, by `example_inputs()`, or inferred from the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mupc.blame import blame
from mupc.errors import TargetError
from mupc.inputs.guess import Guess, show
from mupc.inputs.search import infer
from mupc.inputs.signature import forward_parameters
from mupc.inputs.spec import parse_input

__all__ = ["Guess", "Inputs", "find_inputs", "from_example", "parse_input"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to call the model with. `how` is a sentence on where it came from."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    how: str


def find_inputs(
    model: nn.Module,
    specs: Sequence[str] = (),
    example_inputs: Callable[[], Any] | None = None,
    own: str = "",
) -> Inputs:
    """Specs win over `example_inputs()`, which wins over inference. Raises `TargetError`."""
    if specs:
        return _from_specs(model, [parse_input(spec) for spec in specs])
    if example_inputs is not None:
        return _from_example(example_inputs, own)
    found = infer(model, own)
    how = "inferred" if found.attempt.error is None else "inferred, though values may refuse them"
    return Inputs((), {name: guess.value() for name, guess in found.state.items()}, f"{how}: {show(found.state)}")


def _from_specs(model: nn.Module, specs: Sequence[tuple[str | None, Guess]]) -> Inputs:
    parameters = forward_parameters(model)
    args: list[Tensor] = []
    kwargs: dict[str, Tensor] = {}
    for name, guess in specs:
        if name is None:
            if kwargs:
                raise TargetError("--input: one without a name comes after one with a name")
            args.append(guess.tensor())
        elif name in kwargs:
            raise TargetError(f"--input {name} is given twice")
        elif name not in parameters.names and not parameters.takes_any:
            raise TargetError(f"--input {name}: {type(model).__name__}.forward takes {', '.join(parameters.names)}")
        else:
            kwargs[name] = guess.tensor()
    return Inputs(tuple(args), kwargs, "given by --input")


def _from_example(example_inputs: Callable[[], Any], own: str) -> Inputs:
    try:
        made = example_inputs()
    except (Exception, SystemExit) as error:
        raise TargetError(blame(error, own)) from error
    return from_example(made, "given by example_inputs()")


def from_example(made: Any, how: str) -> Inputs:
    """A tensor, a tuple of arguments, a dict of named ones, or a tuple and a dict. Raises `TargetError`."""
    match made:
        case Tensor():
            return Inputs((made,), {}, how)
        case (tuple() | list() as args, dict() as kwargs):
            return Inputs(tuple(args), dict(kwargs), how)
        case Mapping():
            return Inputs((), dict(made), how)
        case tuple() | list():
            return Inputs(tuple(made), {}, how)
    given = how.removeprefix("given by ")
    raise TargetError(f"{given} returned a {type(made).__name__}; return a tensor, a tuple or a dict")
