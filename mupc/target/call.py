"""Fill a factory's arguments: the user's settings, its defaults, a config object made from its annotation."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from mupc.errors import TargetError
from mupc.target.settings import nested, unknown_setting

Size = int | tuple[int, ...]
_CONFIG_NAMES = ("config", "cfg", "args", "hparams", "params", "opt")


def bind(factory: Callable[..., Any], settings: Mapping[str, Any], module: ModuleType, where: str) -> Callable[[], Any]:
    """A call with nothing left open, or the error that says which argument is."""
    arguments = _arguments(factory, nested(settings), module, where)
    return lambda: factory(**arguments)


def numbers(factory: Callable[..., Any], settings: Mapping[str, Any], module: ModuleType) -> dict[str, Size]:
    """The whole numbers, and lists of them, that the factory is called with, defaults and config fields included."""
    arguments = _arguments(factory, nested(settings), module, "")
    defaults = {key: p.default for key, p in _parameters(factory).items() if p.default is not p.empty}
    found: dict[str, Size] = {}
    for key, value in (defaults | arguments).items():
        fields = {field: getattr(value, field, None) for field in _fields(value)} if _is_config(value) else {key: value}
        found |= {name: size for name, one in fields.items() if (size := whole(one)) is not None}
    return found


def whole(value: Any) -> Size | None:
    """A whole number, or a list of them as a tuple; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)) and value:
        parts = tuple(value)
        return parts if all(isinstance(one, int) and not isinstance(one, bool) for one in parts) else None
    return None


def why_not(factory: Callable[..., Any], settings: Mapping[str, Any], module: ModuleType) -> str | None:
    """Why `factory` cannot be called with these settings alone, or None."""
    try:
        _arguments(factory, nested(settings), module, "")
    except TargetError as error:
        return str(error).lstrip(": ")
    return None


def return_type(function: Callable[..., Any]) -> Any:
    """What its annotation says it returns, or None."""
    return _hints(function).get("return")


def _arguments(factory: Callable[..., Any], settings: dict[str, Any], module: ModuleType, where: str) -> dict[str, Any]:
    """Settings by argument name first; what is left goes into config objects; an argument still open is an error."""
    name = getattr(factory, "__name__", type(factory).__name__)
    place = f"{where}: {name}".lstrip(": ")
    parameters = _parameters(factory)
    named = {key: p for key, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    arguments = {key: value for key, value in settings.items() if key in named and not _is_group(value, named[key])}
    rest = {key: value for key, value in settings.items() if key not in arguments}
    required = [key for key, p in named.items() if p.default is p.empty and key not in arguments]
    hints = _hints(factory)
    known = set(named)
    for key, parameter in named.items():
        if key in arguments or not (key in required or rest):
            continue
        config = _config_for(key, hints.get(key), parameter.default, module, required == [key])
        if config is None:
            continue
        known = (known - {key}) | set(_fields(config))
        taken = {field: rest.pop(field) for field in list(rest) if _has(config, field)} | rest.pop(key, {})
        if key in required or taken:
            arguments[key] = _changed(config, taken, f"{place} {key}")
    if rest and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise unknown_setting(next(iter(rest)), known, place)
    if missing := [key for key in required if key not in arguments]:
        names = ", ".join(missing)
        raise TargetError(
            f"{place} needs {names}: add {missing[0]}=VALUE after the target, or name a function that builds it"
        )
    return arguments | rest


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    function = factory.__init__ if inspect.isclass(factory) else factory
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation may name what was never imported
        return dict(getattr(function, "__annotations__", {}))


def _is_group(value: Any, parameter: inspect.Parameter) -> bool:
    """`config.n_layer=2` sets a field of the argument `config`, unless the argument is a dict itself."""
    return isinstance(value, dict) and not isinstance(parameter.default, dict)


def _config_for(key: str, hint: Any, default: Any, module: ModuleType, only: bool) -> Any:
    """A config object for the argument: its default, one of its annotated type, or the file's only dataclass."""
    if _is_config(default):
        return default
    for kind in (hint, *typing.get_args(hint)):
        if inspect.isclass(kind) and _is_config_class(kind):
            instances = [value for value in vars(module).values() if type(value) is kind]
            return instances[0] if len(instances) == 1 else _default(kind)
    if hint is not None or default is not inspect.Parameter.empty or not (only and key in _CONFIG_NAMES):
        return None
    here = [
        value for name, value in vars(module).items() if name.lower() in _CONFIG_NAMES and not inspect.isclass(value)
    ]
    if len(here) == 1:
        return here[0]
    kinds = [
        v
        for v in vars(module).values()
        if inspect.isclass(v) and v.__module__ == module.__name__ and _is_config_class(v)
    ]
    return _default(kinds[0]) if len(kinds) == 1 else None


def _is_config_class(kind: type) -> bool:
    named = kind.__name__.lower().endswith(("config", "args", "cfg", "hparams", "options", "settings"))
    return dataclasses.is_dataclass(kind) or hasattr(kind, "model_fields") or named


def _is_config(value: Any) -> bool:
    return (
        value is not None
        and not inspect.isclass(value)
        and value is not inspect.Parameter.empty
        and _is_config_class(type(value))
    )


def _default(kind: type) -> Any:
    try:
        return kind()
    except Exception:  # it has fields without a default: the argument stays open
        return None


def _has(config: Any, key: str) -> bool:
    return hasattr(config, key) if not isinstance(config, dict) else key in config


def _fields(value: Any) -> list[str]:
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    return list(vars(value)) if _is_config(value) and hasattr(value, "__dict__") else []


def _changed(config: Any, changes: Mapping[str, Any], where: str) -> Any:
    """A copy of the config with `changes` in it."""
    for key in changes:
        if not _has(config, key):
            raise unknown_setting(key, _fields(config), where)
    if not changes:
        return config
    values = {
        k: _changed(getattr(config, k), v, where) if isinstance(v, dict) and _is_config(getattr(config, k)) else v
        for k, v in changes.items()
    }
    if isinstance(config, dict):
        return config | values
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return dataclasses.replace(config, **values)
    if hasattr(config, "model_copy"):
        return config.model_copy(update=values)
    import copy

    config = copy.copy(config)
    for key, value in values.items():
        setattr(config, key, value)
    return config
