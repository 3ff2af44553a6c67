"""A coordinate check as a document: every slope predicted and measured, the curves, the verdict."""

from __future__ import annotations

import json
from typing import Literal

from mupc.plan.document import Frozen

Verdict = Literal["ok", "off", "unknown"]
AGREEING = 0.95  # of the judged values, for a check to pass


class Series(Frozen):
    """One quantity of one value: `points` are (width, RMS over seeds); `slope` with half its 95 % interval."""

    quantity: str
    predicted: str | None
    slope: float | None
    half: float | None
    points: tuple[tuple[int, float], ...]
    verdict: Verdict
    why: str = ""


class Row(Frozen):
    """One judged value: grows, stable or vanishes, as predicted and as measured.

    `why` says how both may be true where they differ: the slope lies between those of a sum's terms, which have not
    parted at these widths, or what is bounded has stopped growing.
    """

    name: str
    source: str | None
    series: tuple[Series, ...]
    predicted: str
    measured: str
    verdict: Verdict
    why: str = ""

    @property
    def ill(self) -> bool:
        """Does it grow or vanish, by its slope or, where that lies between, in the end?"""
        return (self.predicted if self.why else self.measured) in ("grows", "vanishes")


class Tensor(Frozen):
    """One parameter: slopes of its size, of its first update over the rate, of its gradient; and of its own effect, how
    far its update alone moves what it makes. `verdict`: what flow says of that effect, where the measurement agrees.

    `top` and `top_update`: slopes of a matrix's largest singular value and of its update's, over sqrt(out/in); none
    under the spectral condition (arXiv:2310.17813). `equilibrium`: that of the size at which decoupled decay holds the
    tensor, its update over sqrt(2 lr decay) (arXiv:2305.17212, Section 3); `eps`: by which power Adam's eps gains on
    the gradient. These two in the linear regime, where it is known how the settings go with width.
    """

    name: str
    source: str | None
    size: float | None
    update: float | None
    grad: float | None
    effect: float | None
    half: float | None
    predicted: str | None
    verdict: str
    top: float | None = None
    top_update: float | None = None
    equilibrium: float | None = None
    eps: float | None = None


class Check(Frozen):
    """`passed`: measured and predicted agree, nothing grows or vanishes, and few values are unclear."""

    schema_version: Literal[1] = 1
    target: str
    setup: str
    regime: Literal["linear", "training"]
    widths: tuple[int, ...]
    said: str  # how the widths were made: `n_embd=64..512, n_head=...`
    seeds: int
    steps: int
    rows: tuple[Row, ...]
    tensors: tuple[Tensor, ...]
    judged: int
    agreeing: int
    unclear: int  # values whose seeds differ too much to tell
    healthy: bool
    passed: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Indented, keys in the schema's order, a newline at the end."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Check:
        """Raises pydantic's `ValidationError` where the text is no check of this version."""
        return cls.model_validate_json(text)
