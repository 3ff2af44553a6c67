"""Which Module of a file is the model, when the target names none."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from mupc.errors import TargetError
from mupc.target.call import return_type, why_not


def find_factory(module: ModuleType, where: str, settings: Mapping[str, Any]) -> Any:
    """The one Module class of the file that no other of its classes is made from and that can be built; where none can
    be, the one function that says it returns a Module."""
    classes = [
        value for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    ]  # fmt: skip
    classes = list(dict.fromkeys(classes))
    if not classes:
        functions = _annotated(module, settings)
        return functions[0] if len(functions) == 1 else _sole_instance(module, where)
    parts = _parts(module)
    whole = [
        c for c in classes if c.__name__ not in parts and not any(c is not d and issubclass(d, c) for d in classes)
    ]
    reasons = {c: why_not(c, {}, module) for c in whole or classes}
    buildable = [c for c, reason in reasons.items() if reason is None]
    if not buildable and len(functions := _annotated(module, settings)) == 1:
        return functions[0]  # before settings complete a class: a size must not change which model is meant
    if not buildable and settings:
        buildable = [c for c in reasons if why_not(c, settings, module) is None]
    if len(buildable) == 1:
        return buildable[0]
    base = where.partition(":")[0]
    if buildable:
        names = ", ".join(c.__name__ for c in buildable)
        raise TargetError(f"{where}: several models ({names}): name one, for example {base}:{buildable[-1].__name__}")
    if len(reasons) == 1:
        return next(iter(reasons))  # calling it says what it lacks
    listed = "; ".join(str(reason) for reason in reasons.values())
    raise TargetError(f"{where}: no model can be built as it is ({listed}); name a factory: {base}:FACTORY")


def _sole_instance(module: ModuleType, where: str) -> Any:
    """A file that only assembles a model, `model = nn.Sequential(...)`, is its own factory."""
    models = {name: value for name, value in vars(module).items() if isinstance(value, nn.Module)}
    if len(models) == 1:
        return next(iter(models.values()))
    if models:
        raise TargetError(
            f"{where}: several models ({', '.join(models)}): name one, for example {where}:{next(iter(models))}"
        )
    functions = _functions(module)
    hint = f"; is one of its functions a factory? {where}:{next(iter(functions))}" if functions else ""
    raise TargetError(f"{where}: no nn.Module is defined here{hint}")


def _annotated(module: ModuleType, settings: Mapping[str, Any]) -> list[Any]:
    """The file's functions that are declared to return a Module and can be called as they are."""
    found = [(function, return_type(function)) for function in _functions(module).values()]
    modules = [function for function, made in found if inspect.isclass(made) and issubclass(made, nn.Module)]
    return [function for function in modules if why_not(function, settings, module) is None]


def _functions(module: ModuleType) -> dict[str, Any]:
    """The file's own public functions."""
    return {
        name: value for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }  # fmt: skip


def _parts(module: ModuleType) -> set[str]:
    """Names that the file's classes use to build themselves, through its functions too."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return set()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    used: set[str] = set()
    for node in classes:
        names = set().union(*(_names(part) for part in node.body), set())
        seen: set[str] = set()
        while helpers := [name for name in names if name in functions and name not in seen]:
            seen.update(helpers)
            for helper in helpers:
                names |= _names(functions[helper])
        used |= names - {node.name}
    return used


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
