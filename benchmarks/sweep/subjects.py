"""The models of the sweep: every type, architecture or case that a library lists, with a config that can be varied."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from mupc.inputs import find_inputs
from mupc.target.build import build as on_meta
from mupc.target.torchvision_ops import import_timm, import_torchvision, import_transformers

Call = tuple[tuple[Any, ...], dict[str, Any], str]


@dataclass(frozen=True)
class Subject:
    """A model that can be built from any variant of its config; `wide` where a person wrote the widths down."""

    library: str
    name: str
    config: Any
    build: Callable[[Any], nn.Module]
    call: Callable[[nn.Module], Call]
    wide: Any = None
    hard: frozenset[int] = frozenset()


def inferred(model: nn.Module) -> Call:
    """The arguments that mupc infers, and how it says it found them."""
    found = find_inputs(model)
    return found.args, found.kwargs, found.how


class UnbuildableError(Exception):
    """The library itself cannot build this from its defaults."""


# transformers: one model class a type, the one that `mupc analyze hf:TYPE` takes.


def transformers_names() -> list[str]:
    import_transformers()
    return sorted(importlib.import_module("transformers").CONFIG_MAPPING)


def transformers_subject(name: str) -> Subject:
    transformers = import_transformers()
    transformers.logging.set_verbosity_error()
    from mupc.target import hf

    config = transformers.CONFIG_MAPPING[name]()
    kind = type(hf.build_target(name, {}).model)

    def build(config: Any) -> nn.Module:
        return on_meta(lambda: kind._from_config(copy.deepcopy(config))).eval()

    return Subject("transformers", name, config, build, inferred)


# Libraries whose models are classes with keyword arguments: what the outermost constructor was given is the config.


@dataclass(frozen=True)
class Arguments:
    """What a constructor was called with, defaults filled in; `kind` is called again to build a variant."""

    kind: type
    values: Mapping[str, Any]
    rest: tuple[Any, ...] = ()  # where it takes any number of arguments: all that stand by their place


def _own(value: Any) -> Any:
    return copy.copy(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


class _Calls:
    """Remembers what every module was constructed with. There is no undoing it: run it in a process of its own."""

    def __init__(self) -> None:
        self.of: dict[int, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {}

        def new(cls: type, *args: Any, **kwargs: Any) -> Any:
            made = object.__new__(cls)
            kept, named = tree_map(_own, (args, kwargs))  # a constructor may take its arguments apart
            self.of[id(made)] = (made, kept, named)
            return made

        nn.Module.__new__ = staticmethod(new)  # type: ignore[method-assign]

    def arguments(self, model: nn.Module) -> Arguments:
        _, args, kwargs = self.of[id(model)]
        signature = inspect.signature(type(model).__init__)
        bound = signature.bind(model, *args, **kwargs)
        bound.apply_defaults()
        values: dict[str, Any] = {}
        rest: tuple[Any, ...] = ()
        for name, value in list(bound.arguments.items())[1:]:
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                values |= value
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                rest = (*values.values(), *(self._value(one) for one in value))
                values = {}
            else:
                values[name] = self._value(value)
        return Arguments(type(model), values, rest)

    def _value(self, value: Any) -> Any:
        """A module that was passed in is built again from its own arguments."""
        if isinstance(value, nn.Module) and id(value) in self.of:
            return self.arguments(value)
        return value


def constructed(value: Any) -> Any:
    """Build what `Arguments` describe."""
    if isinstance(value, Arguments):
        return value.kind(
            *map(constructed, value.rest), **{name: constructed(inner) for name, inner in value.values.items()}
        )
    return copy.deepcopy(value) if isinstance(value, (list, dict)) else value


def from_constructor(library: str, name: str, make: Callable[[], nn.Module]) -> Subject:
    calls = _Calls()
    try:
        model = on_meta(make)
    except Exception as error:
        raise UnbuildableError(f"{type(error).__name__}: {error}") from error
    config = calls.arguments(model)
    calls.of.clear()
    return Subject(library, name, config, lambda given: on_meta(lambda: constructed(given)).eval(), inferred)


def timm_names() -> list[str]:
    """One architecture of each family that timm's own modules define: the first listed, and the last (the newest)."""
    timm = import_timm()
    chosen = []
    for module in sorted(timm.list_modules()):
        models = sorted(timm.list_models(module=module), key=lambda n: (len(n), n))
        chosen += dict.fromkeys([*models[:2], *models[-1:]])
    return chosen


def timm_subject(name: str) -> Subject:
    timm = import_timm()
    return from_constructor("timm", name, lambda: timm.create_model(name, pretrained=False))


def torchvision_names() -> list[str]:
    import_torchvision()
    return sorted(importlib.import_module("torchvision.models").list_models())


def torchvision_subject(name: str) -> Subject:
    import_torchvision()
    models = importlib.import_module("torchvision.models")
    extra = {"weights_backbone": None} if "weights_backbone" in _parameters(models.get_model_builder(name)) else {}
    return from_constructor("torchvision", name, lambda: models.get_model(name, weights=None, **extra))


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


# Libraries without a list of models: cases that tests/oracle writes down, with their widths.


def case_names(library: str) -> list[str]:
    from tests.oracle.cases_libs import CASES, library_of

    return [name for name in CASES if library_of(name) == library]


def case_subject(library: str, name: str) -> Subject:
    from tests.oracle.cases_libs import CASES

    case = CASES[name]
    return Subject(
        library, name, case.base(), case.meta, lambda _: (*case.call(case.base()), "given"), case.wide(), case.hard
    )


LISTED: dict[str, tuple[Callable[[], list[str]], Callable[[str], Subject]]] = {
    "transformers": (transformers_names, transformers_subject),
    "timm": (timm_names, timm_subject),
    "torchvision": (torchvision_names, torchvision_subject),
}
WRITTEN = ("diffusers", "neuraloperator", "x-transformers", "torch.nn")
LIBRARIES = (*LISTED, *WRITTEN)


def names(library: str) -> list[str]:
    """What the library has to offer."""
    return LISTED[library][0]() if library in LISTED else case_names(library)


def subject(library: str, name: str) -> Subject:
    """One of them; raises `UnbuildableError`, or what the library raises."""
    return LISTED[library][1](name) if library in LISTED else case_subject(library, name)


def preload(libraries: tuple[str, ...]) -> None:
    """Import what every child needs, once, before they are forked."""
    torch.set_num_threads(1)
    import_timm()
    if "transformers" in libraries:
        import_transformers()
    importlib.import_module("mupc.analysis")


def walk(config: Any) -> Iterator[tuple[Any, Any]]:
    """The fields of whatever kind of config this is: an object, a mapping, a dataclass, a constructor's arguments."""
    if isinstance(config, Arguments):
        yield from config.values.items()
        yield from enumerate(config.rest)
    elif isinstance(config, Mapping):
        yield from config.items()
    elif isinstance(config, (list, tuple)):
        yield from enumerate(config)
    elif hasattr(config, "to_dict") and hasattr(config, "__dict__"):
        yield from vars(config).items()
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        yield from ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))


def put(config: Any, key: Any, value: Any) -> Any:
    """A copy with one field replaced."""
    if isinstance(config, Arguments):
        if isinstance(key, int):
            return dataclasses.replace(config, rest=(*config.rest[:key], value, *config.rest[key + 1 :]))
        return dataclasses.replace(config, values={**config.values, key: value})
    if isinstance(config, Mapping):
        return {**config, key: value}
    if isinstance(config, tuple) and hasattr(config, "_replace"):
        return config._replace(**{config._fields[key]: value})
    if isinstance(config, (list, tuple)):
        return type(config)([value if at == key else item for at, item in enumerate(config)])
    if dataclasses.is_dataclass(config) and not hasattr(config, "to_dict"):
        return dataclasses.replace(config, **{key: value})
    changed = copy.deepcopy(config)
    setattr(changed, key, value)
    return changed
