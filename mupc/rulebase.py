"""The knowledge in `rules/`: one TOML file an entry, validated, cited, with its own cases.

An entry that cannot be read, has an unknown key or symbol, lacks a source or can never match is a `RuleError` naming
file and line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mupc._paths import rules_dir
from mupc.errors import MupcError, RuleError
from mupc.exponents import Monomial, Setting, Symmetry

ROLES = ("input", "hidden", "output", "vector", "scalar")
SYMBOLS = frozenset({"fan_in", "fan_out", "fan_in_widest", "depth"})
Text = Annotated[str, Field(min_length=1)]
Model = TypeVar("Model", bound="Entry")


class Strict(BaseModel):
    """No key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Case(Strict):
    """What a parameter of a role must (or must not) get."""

    role: Literal["input", "hidden", "output", "vector", "scalar"]
    inward: list[str] = Field(alias="in")
    outward: list[str] = Field(alias="out")
    optimizer: str
    expect: dict[Literal["multiplier", "std", "lr", "eps", "decay"], str]


class Rule(Strict):
    """One row of a parametrization: for whom, and the exponents as monomials in fan_in, fan_out, depth and dims.

    `lr` is given per optimizer family. A rule matches where every given condition holds; later rules override, key by
    key, what earlier ones say.
    """

    roles: list[str] | None = None
    sub_roles: list[str] | None = None
    residual_branch: bool | None = None
    dim_kinds: list[str] | None = None
    multiplier: str | None = None
    std: str | None = None
    lr: dict[str, str] = {}
    eps: str | None = None
    decay: dict[str, str] = {}
    source: Text

    def matches(self, role: str, sub_role: str | None, branch: bool, kinds: Sequence[str]) -> bool:
        return (
            (self.roles is None or role in self.roles)
            and (self.sub_roles is None or sub_role in self.sub_roles)
            and (self.residual_branch is None or branch == self.residual_branch)
            and (self.dim_kinds is None or any(kind in kinds for kind in self.dim_kinds))
        )


class Entry(Strict):
    """What every file says of itself."""

    name: Text
    title: Text
    status: Literal["stable", "preview"]
    source: Text
    about: str = ""


class Parametrization(Entry):
    rule: list[Rule]
    valid: list[Case] = []
    invalid: list[Case] = []


class SymmetryTable(Strict):
    lr: str
    eps: str
    decay: str
    source: Text


class Optimizer(Entry):
    """`family` chooses the rate's column; `decay` is how weight decay enters the step."""

    family: Text
    decay: Literal["coupled", "decoupled", "none"]
    eps: bool
    symmetry: SymmetryTable

    def law(self) -> Symmetry:
        """Its abc-symmetry, exactly."""
        table = self.symmetry
        return Symmetry(Fraction(table.lr), Fraction(table.eps), Fraction(table.decay))


class RuleBase(BaseModel):
    """Everything in `rules/`, by name."""

    model_config = ConfigDict(frozen=True)
    parametrizations: dict[str, Parametrization]
    optimizers: dict[str, Optimizer]

    def setting(
        self,
        parametrization: str,
        optimizer: str,
        role: str,
        fan_in: Sequence[str],
        fan_out: Sequence[str],
        *,
        sub_role: str | None = None,
        branch: bool = False,
        kinds: Sequence[str] = (),
    ) -> Setting:
        """The exponents of one parameter. `fan_in` and `fan_out` name growing dims, the widest in-dim first.

        Decoupled decay keeps lr*decay (Wang, Aitchison 2024, arXiv:2405.13698); coupled L2 keeps its weight against the
        gradient, decay ~ gradient/weight = eps/std (derived; preview). Raises `MupcError` for unknown names.
        """
        chosen = self.find("parametrization", parametrization)
        optim = self.find("optimizer", optimizer)
        assert isinstance(chosen, Parametrization)
        assert isinstance(optim, Optimizer)
        values = symbols(fan_in, fan_out)
        said: dict[str, str] = {}
        for rule in chosen.rule:
            if rule.matches(role, sub_role, branch, kinds):
                given = {"multiplier": rule.multiplier, "std": rule.std, "eps": rule.eps}
                given |= {"lr": rule.lr.get(optim.family), "decay": rule.decay.get(optim.decay)}
                said |= {key: value for key, value in given.items() if value is not None}
        if "lr" not in said:
            raise MupcError(f"{parametrization} says no rate for a {role} parameter under {optimizer}")
        found = {key: Monomial.parse(text).substitute(values) for key, text in said.items()}
        lr, eps, std = (found.get(key, Monomial.ONE) for key in ("lr", "eps", "std"))
        matrix = role in ("hidden", "output", "input")
        decay = found.get("decay", lr**-1 if optim.decay == "decoupled" else eps / std if matrix else Monomial.ONE)
        return Setting(
            multiplier=found.get("multiplier", Monomial.ONE),
            std=std,
            lr=lr,
            eps=eps if optim.eps else Monomial.ONE,
            decay=decay,
        )

    def find(self, kind: Literal["parametrization", "optimizer"], name: str) -> Entry:
        """The entry of that name. Raises `MupcError` listing what there is."""
        table: dict[str, Entry] = {**(self.parametrizations if kind == "parametrization" else self.optimizers)}
        if name not in table:
            raise MupcError(f"no {kind} is called {name!r}; there are {', '.join(sorted(table))}")
        return table[name]

    def entries(self) -> list[tuple[str, Entry]]:
        """Every entry with its kind, in order of kind and name."""
        tables: list[tuple[str, dict[str, Entry]]] = [
            ("parametrization", {**self.parametrizations}),
            ("optimizer", {**self.optimizers}),
        ]
        return [(kind, table[name]) for kind, table in tables for name in sorted(table)]

    def explain(self, name: str) -> str:
        """An entry in words, its sources cited. Raises `MupcError` where nothing is called so."""
        found = [(kind, entry) for kind, entry in self.entries() if entry.name == name]
        if not found:
            raise MupcError(f"nothing is called {name!r}; see `mupc rules`")
        return "\n\n".join(_explained(kind, entry) for kind, entry in found)


def _explained(kind: str, entry: Entry) -> str:
    lines = [
        f"{entry.name} ({kind}, {entry.status}): {entry.title}",
        "",
        entry.about.strip(),
        "",
        f"Source: {entry.source}",
    ]
    if isinstance(entry, Parametrization):
        for rule in entry.rule:
            rates = ", ".join(f"lr ({family}) ~ {law}" for family, law in sorted(rule.lr.items()))
            words = [f"std ~ {rule.std}" if rule.std else "", rates, f"eps ~ {rule.eps}" if rule.eps else ""]
            who = ", ".join(rule.roles or rule.sub_roles or ["every parameter"])
            lines += ["", f"{who}: {'; '.join(w for w in words if w)}", f"  {rule.source}"]
    if isinstance(entry, Optimizer):
        table = entry.symmetry
        lines += [
            "",
            f"Decay: {entry.decay}.",
            f"Symmetry: multiplier t, init 1/t, lr t^{table.lr}, eps t^{table.eps}, decay t^{table.decay}.",
        ]
        lines += [f"  {table.source}"]
    return "\n".join(lines)


def symbols(fan_in: Sequence[str], fan_out: Sequence[str]) -> dict[str, Monomial]:
    """What the symbols of a rule stand for at one parameter."""
    return {
        "fan_in": Monomial.of((dim, Fraction(1)) for dim in fan_in),
        "fan_out": Monomial.of((dim, Fraction(1)) for dim in fan_out),
        "fan_in_widest": Monomial.of((dim, Fraction(1)) for dim in fan_in[:1]),
    }


@cache
def load_rules(extra: tuple[Path, ...] = ()) -> RuleBase:
    """The built-in rules, with a user's own folders laid over them: a file of the same name replaces."""
    folders = (rules_dir(), *extra)
    return RuleBase(
        parametrizations=_folder(folders, "parametrizations", Parametrization),
        optimizers=_folder(folders, "optimizers", Optimizer),
    )


def _folder(folders: Iterable[Path], name: str, model: type[Model]) -> dict[str, Model]:
    out: dict[str, Model] = {}
    for folder in folders:
        for path in sorted((folder / name).glob("*.toml")):
            entry = read(path, model)
            out[entry.name] = entry
    return out


def read(path: Path, model: type[Model]) -> Model:
    """One file. Raises `RuleError` with file and line."""
    text = path.read_text(encoding="utf-8")
    try:
        entry = model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"]
        raise RuleError(f"{path}:{_line(text, place)}: {'.'.join(map(str, place))}: {first['msg']}") from error
    if entry.name != path.stem:
        raise RuleError(f"{path}:{_line(text, ('name',))}: name {entry.name!r} is not the file's")
    if isinstance(entry, Parametrization):
        _check(path, text, entry)
    return entry


def _check(path: Path, text: str, entry: Parametrization) -> None:
    """Roles and symbols must exist, and every rule must be able to match and to say something."""
    for at, rule in enumerate(entry.rule):
        for role in rule.roles or ():
            if role not in ROLES:
                where = _line(text, ("rule", at, "roles"))
                raise RuleError(f"{path}:{where}: no parameter has the role {role!r}, so this can never match")
        laws = {"multiplier": rule.multiplier, "std": rule.std, "eps": rule.eps}
        laws |= {f"lr.{k}": v for k, v in rule.lr.items()} | {f"decay.{k}": v for k, v in rule.decay.items()}
        if rule.roles == [] or rule.sub_roles == [] or not any(laws.values()):
            raise RuleError(f"{path}:{_line(text, ('rule', at))}: this rule can never match, or says nothing")
        for key, law in laws.items():
            where = _line(text, ("rule", at, key.partition(".")[0]))
            try:
                strange = Monomial.parse(law).dims - SYMBOLS if law else frozenset()
            except MupcError as error:
                raise RuleError(f"{path}:{where}: {error}") from error
            if strange:
                known = ", ".join(sorted(SYMBOLS))
                raise RuleError(f"{path}:{where}: unknown symbol {sorted(strange)[0]!r} in {key}; there are {known}")


def _line(text: str, place: Sequence[object]) -> int:
    """The line of a key, by counting the tables before it: tomllib keeps no lines."""
    lines = text.splitlines()
    start, stop = 0, len(lines)
    table = [p for p in place if isinstance(p, str)]
    index = next((p for p in place if isinstance(p, int)), None)
    if index is not None:
        heads = [i for i, line in enumerate(lines) if line.strip() == f"[[{table[0]}]]"]
        if index < len(heads):
            start = heads[index]
            stop = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("[")), len(lines))
    for key in reversed(table):
        for i in range(start, stop):
            if lines[i].split("=")[0].strip() == key or lines[i].strip() == f"[{key}]":
                return i + 1
    return start + 1
