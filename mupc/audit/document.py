"""What an audit says, as a document: JSON in and out, the same byte for byte from run to run."""

from __future__ import annotations

import json
from typing import Literal

from mupc.plan.document import Frozen

Verdict = Literal["ok", "off", "unknown"]


class Held(Frozen):
    """One quantity of one tensor at two sizes. `factor` is what it is over what it should be: 1 is right, 2 twice.

    `wanted` is the value at the larger size that would be right, all else of the tensor as it is.
    """

    what: Literal["init", "lr", "eps", "weight_decay", "multiplier", "optimizer"]
    base: float | str | None
    size: float | str | None
    wanted: float | str | None = None
    factor: float | None = None
    law: str = ""  # how it should go with the dims: "n_embd^-1"
    verdict: Verdict = "ok"
    note: str = ""


class Row(Frozen):
    """One tensor, or a part of one."""

    name: str
    part: tuple[int, int, int] | None = None  # axis, start, stop
    role: str
    sub_role: str | None = None
    source: str | None = None
    held: tuple[Held, ...]

    @property
    def off(self) -> tuple[Held, ...]:
        return tuple(h for h in self.held if h.verdict == "off")

    def agrees(self, *quantities: str) -> bool | None:
        """Are those of these quantities that are known right? None where none is known."""
        known = [h.verdict for h in self.held if h.what in quantities and h.verdict != "unknown"]
        return None if not known else "off" not in known


class Match(Frozen):
    """How many rows agree with a parametrization in init and rate."""

    parametrization: str
    agree: int
    of: int


class Moved(Frozen):
    """A dim at both sizes."""

    name: str
    base: int
    size: int
    grows: bool | None


class Audit(Frozen):
    """A set-up held against a parametrization. `matches` has the best first."""

    schema_version: Literal[1] = 1
    target: str
    parametrization: str
    optimizer: str | None
    dims: tuple[Moved, ...]
    rows: tuple[Row, ...]
    matches: tuple[Match, ...]
    regime: str | None = None  # the infinite-width limit, for SGD (TP4, arXiv:2011.14522)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Indented, keys in the schema's order, a newline at the end."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Audit:
        """Raises pydantic's `ValidationError` where the text is no audit of this version."""
        return cls.model_validate_json(text)
