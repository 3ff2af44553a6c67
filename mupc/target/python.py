"""`model.py`, `model.py:factory` and `pkg.mod:factory`: the user's own code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from mupc.blame import blame, shown
from mupc.errors import MupcError, TargetError
from mupc.groups import optimizers
from mupc.target.build import build
from mupc.target.call import bind, numbers
from mupc.target.candidates import find_factory
from mupc.target.load import Built
from mupc.target.settings import near_names
from mupc.target.torchvision_ops import with_torchvision_ops


def build_target(name: str, settings: Mapping[str, Any]) -> Built:
    """Import the file or module, find the factory, call it on meta."""
    place, factory_name = _split(name)
    module = import_place(place, name)
    where = shown(module.__file__) if module.__file__ else module.__name__
    own = _own_folder(module)
    factory = _attribute(module, factory_name, where) if factory_name else find_factory(module, where, settings)

    def make(changes: Mapping[str, Any]) -> Any:
        if isinstance(factory, nn.Module):
            if settings or changes:
                raise TargetError(f"{where}:{factory_name} is a model already built: settings need a factory")
            return factory
        call = bind(factory, {**settings, **changes}, module, where)
        try:
            return build(call)
        except TargetError:
            raise
        except (Exception, SystemExit) as error:
            raise TargetError(blame(error, own)) from error

    def pair(changes: Mapping[str, Any]) -> tuple[nn.Module, object | None]:
        return _model_of(make(changes), where, factory)

    def make_model(changes: Mapping[str, Any]) -> nn.Module:
        return pair(changes)[0]

    model, optimizer = pair({})
    fields = {} if isinstance(factory, nn.Module) else numbers(factory, settings, module)
    named = {name: size for name, size in fields.items() if isinstance(size, int)}
    examples = getattr(module, "example_inputs", None)
    return Built(model, make_model, optimizer, examples, where, own, named, pair, fields)


def _split(name: str) -> tuple[str, str]:
    """`file.py:factory` -> both; a drive letter or a bare path has no factory."""
    place, colon, factory = name.rpartition(":")
    if not colon or os.sep in factory:
        return name, ""
    return place, factory


def import_place(place: str, name: str) -> ModuleType:
    """The module at a path or under a dotted name; what its import raises becomes one line."""
    is_file = place.endswith(".py") or os.sep in place or Path(place).is_file()
    if is_file and not Path(place).is_file():
        raise TargetError(f"{place}: {'a folder, not a file' if Path(place).is_dir() else 'no such file'}")
    if not is_file and not all(part.isidentifier() for part in place.split(".")):
        kinds = "model.py, model.py:factory, pkg.mod:factory, hf:TYPE, timm:NAME"
        raise TargetError(f"{name}: neither a file nor a module; targets are {kinds}")
    try:
        return with_torchvision_ops(lambda: _import_file(Path(place)) if is_file else _import_name(place))
    except TargetError:
        raise
    except (Exception, SystemExit) as error:
        raise TargetError(blame(error, _folder_of(place))) from error


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    root, dotted = path.parent, path.stem
    while (root / "__init__.py").is_file():  # a file of a package may import its siblings relatively
        root, dotted = root.parent, f"{root.name}.{dotted}"
    sys.path.insert(0, str(root))
    sys.argv[:] = [str(path)]
    if "." in dotted:
        return importlib.import_module(dotted)
    name = (
        dotted
        if (dotted.isidentifier() and importlib.util.find_spec(dotted) is None) or _is_at(dotted, path)
        else f"_target_{dotted}"
    )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_at(name: str, path: Path) -> bool:
    """Importing `name` would give this very file."""
    if name in sys.modules:
        return False
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    return spec is not None and spec.origin is not None and Path(spec.origin) == path


def _import_name(dotted: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(dotted)
        if module.__file__ is None:
            raise TargetError(f"{dotted}: a folder; name a file in it")
        return module
    except ModuleNotFoundError as error:
        if error.name is not None and (dotted == error.name or dotted.startswith(error.name + ".")):
            raise TargetError(f"{dotted}: no module named {error.name!r} in this folder or installed") from error
        raise


def function_at(place: str, option: str) -> Callable[..., Any]:
    """`train.py:configure` as an option names it: a function of the user's. Raises `MupcError` where there is none."""
    where, colon, name = place.rpartition(":")
    if not colon or not name.isidentifier():
        raise MupcError(f"{option} {place!r}: write train.py:function or pkg.mod:function")
    module = import_place(where, place)
    found: Any = getattr(module, name, None)
    if not callable(found):
        have = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise MupcError(f"{where} has no function {name!r}; it has {', '.join(have) or 'none'}")
    return found  # type: ignore[no-any-return]


def _folder_of(place: str) -> str:
    spec = None
    try:
        spec = None if place.endswith(".py") else importlib.util.find_spec(place.partition(".")[0])
    except (ImportError, ValueError):
        return ""
    return str(Path(spec.origin).resolve().parent) + os.sep if spec and spec.origin else ""


def _own_folder(module: ModuleType) -> str:
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    return str(Path(top.__file__).resolve().parent) + os.sep if top.__file__ else ""


def _attribute(module: ModuleType, dotted: str, where: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            names = [
                name
                for name, value in vars(found).items()
                if callable(value)
                and not name.startswith("_")
                and getattr(value, "__module__", None) == module.__name__
            ]
            raise TargetError(f"{where} has no {dotted!r}{near_names(part, sorted(names))}")
        found = getattr(found, part)
    if not callable(found):
        raise TargetError(
            f"{where}:{dotted} is a {type(found).__name__}; name a Module class or a function that returns one"
        )
    return found


def _model_of(made: Any, where: str, factory: Callable[..., Any]) -> tuple[nn.Module, object | None]:
    """A factory returns a Module, or a tuple that begins with one; the optimizers in the rest of it are the model's."""
    if isinstance(made, nn.Module):
        return made, None
    if isinstance(made, tuple) and made and isinstance(made[0], nn.Module):
        found = optimizers(made[1:])
        return made[0], found[0] if len(found) == 1 else found or None
    line = getattr(getattr(factory, "__code__", None), "co_firstlineno", None)
    place = f"{where}:{line}" if line else where
    name = getattr(factory, "__name__", "the factory")
    raise TargetError(f"{place}: {name} returned a {type(made).__name__}, not a Module")
