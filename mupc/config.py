"""`[tool.mupc]` in pyproject.toml: defaults for the commands. An unknown key is an error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from mupc.errors import MupcError
from mupc.target.settings import near_names


class Config(BaseModel):
    """What may stand under `[tool.mupc]`; what is left out keeps the command's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    parametrization: str | None = None
    optimizer: str | None = None
    weight_decay: str | None = None  # a rule of its own, by name
    base: dict[str, PositiveInt] = {}
    fixed: list[str] = []
    scaling: list[str] = []
    rules: list[str] = []  # folders of rules laid over the built-in ones, from the pyproject.toml's own folder
    timeout: PositiveFloat | None = None
    memory: PositiveFloat | None = None

    def defaults(self) -> dict[str, Any]:
        """As the options of `mupc analyze` take them."""
        given = self.model_dump(exclude_none=True, exclude={"base", "rules"}, exclude_defaults=True)
        return given | ({"base": [f"{dim}={size}" for dim, size in self.base.items()]} if self.base else {})


def rule_folders(folder: Path | None = None) -> tuple[str, ...]:
    """The user's own folders of rules, absolute."""
    return tuple(find_config(folder or Path.cwd()).rules)


def find_config(folder: Path) -> Config:
    """From the nearest pyproject.toml at or above `folder` that has the table. Raises `MupcError` with the key."""
    for path in (parent / "pyproject.toml" for parent in (folder, *folder.parents)):
        if path.is_file() and (table := _table(path)) is not None:
            return _read(path, table)
    return Config()


def _table(path: Path) -> dict[str, Any] | None:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MupcError(f"{path}: {error}") from error
    table = document.get("tool", {}).get("mupc")
    if table is not None and not isinstance(table, dict):
        raise MupcError(f"{path}: tool.mupc is not a table")
    return table


def _read(path: Path, table: dict[str, Any]) -> Config:
    try:
        config = Config.model_validate(table)
        return config.model_copy(update={"rules": [str(path.parent.resolve() / inner) for inner in config.rules]})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise MupcError(f"{path}: [tool.mupc] has no {key!r}{near_names(key, list(Config.model_fields))}") from None
        raise MupcError(f"{path}: [tool.mupc] {key} = {first['input']!r}: {first['msg'].lower()}") from None
