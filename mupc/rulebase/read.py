"""Reading `rules/`: every mistake is a `RuleError` that names file and line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import ValidationError

from mupc._paths import rules_dir
from mupc.errors import MupcError, RuleError
from mupc.exponents import Law
from mupc.rulebase.base import RuleBase, failure
from mupc.rulebase.lines import Place, line_of
from mupc.rulebase.schema import (
    GROWING_KINDS,
    ROLES_OF,
    SYMBOLS,
    Case,
    Claims,
    Entry,
    Initializer,
    Mistake,
    Optimizer,
    Parametrization,
    Rule,
    WeightDecay,
)

E = TypeVar("E", bound=Entry)
OTHERS = (".toml", ".yaml", ".yml", ".json")  # what may be meant for rules
FOLDERS = ("parametrizations", "optimizers", "weight_decay", "initializers", "hardware", "lint")


def load_rules(extra_dirs: Sequence[str | Path] = ()) -> RuleBase:
    """The built-in rules with a user's own folders laid over them: a file of the same kind and name replaces.

    Raises `RuleError`, with file and line, for an unknown key or symbol, a law that cannot be read, an uncited rule, a
    rule that can never match or has no effect, a reference to an entry that is not there.
    """
    return _load(tuple(Path(folder) for folder in extra_dirs))


@cache
def _load(extra: tuple[Path, ...]) -> RuleBase:
    folders = (rules_dir(), *extra)
    for folder in extra:
        _check_folder(folder)
    parametrizations = _files(folders, "parametrizations", Parametrization)
    optimizers = _files(folders, "optimizers", Optimizer)
    decays = _files(folders, "weight_decay", WeightDecay)
    initializers = _files(folders, "initializers", Initializer)
    mistakes = _files(folders, "lint", Mistake)
    base = RuleBase(
        parametrizations={name: file.entry for name, file in parametrizations.items()},
        optimizers={name: file.entry for name, file in optimizers.items()},
        weight_decays={name: file.entry for name, file in decays.items()},
        initializers={name: file.entry for name, file in initializers.items()},
        mistakes={file.entry.name: file.entry for file in mistakes.values()},
    )
    for parametrization in parametrizations.values():
        _check_parametrization(parametrization, base)
    for optimizer in optimizers.values():
        _check_optimizer(optimizer, base)
    for decay in decays.values():
        _check_decay(decay, base)
    files: list[File[Any]] = [*parametrizations.values(), *optimizers.values(), *decays.values()]
    for file in files:
        if not file.path.is_relative_to(rules_dir()):  # the tests hold the built-in files' cases
            _check_cases(file, base)
    return base


@dataclass(frozen=True, slots=True)
class File(Generic[E]):
    """An entry with the text it came from, so that a mistake found late still has a line."""

    path: Path
    text: str
    entry: E

    def wrong(self, place: Place, message: str) -> NoReturn:
        raise RuleError(f"{self.path}:{line_of(self.text, place)}: {message}")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise RuleError(f"{folder}: there is no such folder of rules")
    for inside in sorted(folder.iterdir()):
        stray = inside.name not in FOLDERS if inside.is_dir() else inside.suffix == ".toml"
        if stray and not inside.name.startswith((".", "_")):
            raise RuleError(f"{inside}: rules lie in folders named {', '.join(FOLDERS)}")
        odd = (
            [p for p in inside.iterdir() if p.suffix.lower() in OTHERS and p.suffix != ".toml"]
            if inside.is_dir()
            else []
        )
        if odd:
            raise RuleError(f"{min(odd)}: rules are files named NAME.toml")
        nested = sorted(path for path in inside.glob("*/**/*.toml")) if inside.is_dir() else []
        if nested:
            raise RuleError(f"{nested[0]}: rules lie in {inside} itself, not in folders below it")


def _files(folders: Sequence[Path], kind: str, model: type[E]) -> dict[str, File[E]]:
    paths = {path.stem: path for folder in folders for path in sorted((folder / kind).glob("*.toml"))}
    return {name: read(paths[name], model) for name in sorted(paths)}


def read(path: Path, model: type[E]) -> File[E]:
    """One file, checked as far as it can be alone."""
    try:
        text = path.read_text(encoding="utf-8")
        entry = model.model_validate(tomllib.loads(text))
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RuleError(_toml_message(path, str(error))) from error
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo also lacks the right key
        message = f"{_spelled(first['loc'])}: {_said(first['type'], first['msg'])}"
        raise RuleError(f"{path}:{line_of(text, first['loc'])}: {message}") from error
    file = File(path, text, entry)
    if entry.name != path.stem and not (model is Mistake and path.stem.startswith(f"{entry.name}-")):
        file.wrong(("name",), f"the name is {entry.name!r}, the file's is {path.stem!r}: they must agree")
    return file


def _toml_message(path: Path, message: str) -> str:
    at = re.search(r" ?\(at (?:line (\d+), column \d+|end of document)\)", message)
    line = at[1] if at and at[1] else str(path.read_text(encoding="utf-8").count("\n") + 1)
    return f"{path}:{line}: not TOML: {message[: at.start()] if at else message}"


def _said(kind: str, message: str) -> str:
    return {"extra_forbidden": "no such key", "missing": "this key is missing"}.get(kind, message)


def _spelled(place: Place) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", ".".join(str(p) for p in place)) or "file"


def _check_parametrization(file: File[Parametrization], base: RuleBase) -> None:
    entry = file.entry
    families = {o.family for o in base.optimizers.values()}
    forms = {o.weight_decay.form for o in base.optimizers.values() if o.weight_decay}
    known = {"lr": {"any"} | families | set(base.optimizers), "decay": {"any"} | forms | set(base.optimizers)}
    known["eps"] = known["lr"]
    for family in set(entry.families or ()) - families:
        file.wrong(("families",), f"no optimizer is of the family {family!r}; there are {', '.join(sorted(families))}")
    for name, symbol in entry.symbols.items():
        if name in SYMBOLS["decay"] or (symbol.kind is None) == (symbol.name is None):
            file.wrong(("symbols", name), f"symbol {name!r}: give one of kind and name, under a name of its own")
    if entry.attention:
        _check_symbols(file, ("attention", "scale"), entry.attention.scale, SYMBOLS["attention"])
    for at, rule in enumerate(entry.rule):
        for keys, law in rule.laws().items():
            _check_symbols(file, ("rule", at, *keys), law, SYMBOLS[keys[0]] | set(entry.symbols))
            if len(keys) > 1 and keys[1] not in known[keys[0]]:
                words = ", ".join(sorted(known[keys[0]]))
                file.wrong(("rule", at, *keys), f"{keys[1]!r} can never match: {keys[0]} is for one of {words}")
        _check_effect(file, at)
    for place, case in _cases(entry):
        if case.optimizer not in base.optimizers or case.parametrization not in (None, entry.name):
            file.wrong(place, f"a case here names its optimizer, one of {', '.join(base.optimizers)}")


def _check_symbols(file: File[E], place: Place, law: str, known: frozenset[str]) -> None:
    strange = sorted(Law.parse(law).symbols - known)
    if strange:
        file.wrong(place, f"unknown dim or symbol {strange[0]!r} in {law!r}; there are {', '.join(sorted(known))}")


def _check_effect(file: File[Parametrization], at: int) -> None:
    """A rule must be able to match, say something, and not be overridden wherever it matches."""
    rule = file.entry.rule[at]
    if not rule.laws():
        file.wrong(("rule", at), "this rule says nothing")
    possible = [
        sub for sub in rule.sub_roles or () if not rule.roles or set(ROLES_OF.get(sub, rule.roles)) & set(rule.roles)
    ]
    if rule.sub_roles and not possible:
        subs = " or ".join(rule.sub_roles)
        file.wrong(("rule", at, "sub_roles"), f"this rule can never match: no {subs} has role {rule.roles}")
    for key, growable in (("kinds", None), ("growing_kinds", GROWING_KINDS)):
        words = getattr(rule, key) or ()
        possible_kinds = [w for w in words if w != "depth" and (growable is None or w in growable)]
        if words and not possible_kinds:
            why = "no axis of a parameter is the depth" if growable is None else f"those are {', '.join(GROWING_KINDS)}"
            file.wrong(("rule", at, key), f"this rule can never match: no dim of kind {' or '.join(words)} grows; {why}"
                       if growable else f"this rule can never match: {why}")  # fmt: skip
    theirs = not file.path.is_relative_to(rules_dir())  # to look an op up takes torch, which ours do without
    strange = [op for op in rule.ops or () if theirs and not _is_op(op)]
    if strange and len(strange) == len(rule.ops or ()):
        file.wrong(("rule", at, "ops"), f"this rule can never match: torch has no op {' or '.join(strange)}")
    if rule.ends_branch and rule.residual_branch is False:
        file.wrong(("rule", at, "ends_branch"), "this rule can never match: what ends a branch is on one")
    for later in range(at + 1, len(file.entry.rule)):
        if _overrides(file.entry.rule[later], rule):
            line = line_of(file.text, ("rule", later))
            file.wrong(("rule", at), f"this rule has no effect: the one at line {line} overrides all of it")


def _is_op(name: str) -> bool:
    """An op that a trace may hold: one of torch's, or one that a signature is given for."""
    from importlib.util import find_spec

    if find_spec("torch") is None:  # the linter alone: nothing is traced
        return True
    import torch

    return hasattr(torch.ops.aten, name) or name in _own_ops()


@cache
def _own_ops() -> frozenset[str]:
    tables = tomllib.loads((rules_dir() / "ops.toml").read_text(encoding="utf-8")).values()
    return frozenset(key.rpartition("::")[2] for table in tables if isinstance(table, dict) for key in table)


def _check_cases(file: File[Any], base: RuleBase) -> None:
    """What a user's own file claims of itself must hold."""
    for place, case in _cases(file.entry):
        try:
            wrong = failure(base, file.entry, case)
        except MupcError as error:
            file.wrong(place, str(error))
        if (place[0] == "valid") == bool(wrong):
            said = f"this is not so: {wrong}" if wrong else "this is so, and stands under [[invalid]]"
            file.wrong(place, said)


def _overrides(later: Rule, earlier: Rule) -> bool:
    """Does `later` match wherever `earlier` does, and say all that it says?"""
    for key in ("roles", "sub_roles", "ops", "kinds", "growing_kinds"):
        wide, narrow = getattr(later, key), getattr(earlier, key)
        if wide is not None and (narrow is None or not set(narrow) <= set(wide)):
            return False
    for key in ("residual_branch", "ends_branch", "tied"):
        if getattr(later, key) not in (None, getattr(earlier, key)):
            return False
    said = set(later.laws())
    return all(place in said or (place[0], "any") in said for place in earlier.laws())


def _check_optimizer(file: File[Optimizer], base: RuleBase) -> None:
    entry = file.entry
    _check_symbols(file, ("lr", "law"), entry.lr.law, SYMBOLS["lr"])
    if entry.eps:
        _check_symbols(file, ("eps", "law"), entry.eps.law, SYMBOLS["eps"])
    if entry.weight_decay:
        _check_symbols(file, ("weight_decay", "law"), entry.weight_decay.law, SYMBOLS["decay"])
    if (entry.roles is None) != (entry.fallback is None):
        file.wrong(("roles",), "an optimizer for some roles names a fallback for the others")
    seen, at = {entry.name}, entry
    while at.fallback is not None:
        if at.fallback not in base.optimizers or at.fallback in seen:
            file.wrong(("fallback",), f"no optimizer {at.fallback!r} to fall back to")
        seen.add(at.fallback)
        at = base.optimizers[at.fallback]
    for place, case in _cases(entry):
        if case.parametrization not in base.parametrizations or case.optimizer not in (None, entry.name):
            file.wrong(place, f"a case here names its parametrization, one of {', '.join(base.parametrizations)}")


def _check_decay(file: File[WeightDecay], base: RuleBase) -> None:
    for at, rule in enumerate(file.entry.rule):
        if rule.law is not None:
            _check_symbols(file, ("rule", at, "law"), rule.law, SYMBOLS["decay"])
        if any(later.roles is None or set(rule.roles or ()) & set(later.roles) == set(rule.roles or ("all",))
               for later in file.entry.rule[at + 1 :]):  # fmt: skip
            file.wrong(("rule", at), "this rule has no effect: a later one overrides it")
    for what in ("batch", "tokens"):
        _check_symbols(file, (what,), getattr(file.entry, what), frozenset({what}))
    for place, case in _cases(file.entry):
        if case.parametrization not in base.parametrizations or case.optimizer not in base.optimizers:
            file.wrong(place, "a case here names a parametrization and an optimizer")


def _cases(entry: Claims) -> Iterator[tuple[Place, Case]]:
    for key in ("valid", "invalid"):
        yield from (((key, at), case) for at, case in enumerate(getattr(entry, key)))
