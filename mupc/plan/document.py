"""The Plan as a document: frozen, versioned, JSON in and out, the same byte for byte from run to run."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

from mupc.exponents import Monomial

SCHEMA_VERSION: Literal[1] = 1


def _canonical(powers: dict[str, str]) -> dict[str, str]:
    return Monomial.from_json(powers).to_json()


Powers = Annotated[dict[str, str], AfterValidator(_canonical)]


class Frozen(BaseModel):
    """No key that is not known, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Exponent(Frozen):
    """`exponent` maps dims to exact powers, as text (`{"n_embd": "-1/2"}`).

    For an init std, `value` is the plain recipe's number at this size: 1/sqrt(fan_in) at the base, fan_in counting
    every contracted place, finite ones and kernels too, moved by (size/base)^exponent. It is null where no recipe is
    common to all (gains, biases). The user's own init need not be the recipe: `init_` scales what the code draws.
    For a multiplier, `value` is (size/base)^exponent: 1 at the base.
    """

    exponent: Powers = {}
    value: float | None = None

    @property
    def monomial(self) -> Monomial:
        return Monomial.from_json(self.exponent)


class Scale(Frozen):
    """A factor on the user's own number: `scale` is (size/base)^exponent, 1 where every growing dim is at its base."""

    exponent: Powers = {}
    scale: float = 1.0

    @property
    def monomial(self) -> Monomial:
        return Monomial.from_json(self.exponent)


class Dim(Frozen):
    """A dim of the model. `grows` is null where it is not known; `base` is the size hyperparameters were tuned at."""

    name: str
    size: int
    base: int
    kind: str
    grows: bool | None
    why: str


class Part(Frozen):
    """Elements [start, stop) of one axis, with a role and an init of their own; no init where the role is unknown."""

    axis: int
    range: tuple[int, int]
    role: str
    init_std: Exponent | None


class Use(Frozen):
    """One use: the op, the user's line, a word for each axis of the parameter, and the role that makes.

    `multiplier` is what this use alone still needs where the tensor is settled for another (a tied readout: 1/fan_in).
    """

    op: str
    module: str
    source: str | None
    axes: tuple[str, ...]
    role: str
    multiplier: Exponent | None = None


class Parameter(Frozen):
    """Everything said of one parameter. Settings are null where the role is unknown or the parameter unused."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[tuple[str, ...], ...]
    infinite: tuple[bool | None, ...]
    role: str
    sub_role: str | None
    parts: tuple[Part, ...]
    uses: tuple[Use, ...]
    fan_in: tuple[str, ...]
    fan_out: tuple[str, ...]
    residual_branch: bool
    init_std: Exponent | None
    multiplier: Exponent | None
    lr: Scale | None
    weight_decay: Scale | None
    eps: Scale | None
    clip_weight: Scale | None
    optimizer: str | None
    why: tuple[str, ...]
    source: str | None


class Model(Frozen):
    """The target, its number of elements and of tensors, and the names that hold one tensor."""

    target: str
    parameters: int
    tensors: int
    tied: tuple[tuple[str, ...], ...]


class Coverage(Frozen):
    """What the verdicts rest on, and what is not known.

    `assumed_ops` are ops without a signature, and branches or numbers that depend on values, each with its place.
    """

    classified: int
    unknown: int
    assumed_ops: tuple[str, ...] = ()
    literals: dict[str, JsonValue] = {}


class Activation(Frozen):
    """One judged value of the graph: exponents of its size, its change, its gradient (from the static check)."""

    name: str
    source: str | None
    init: str | None = None
    delta1: str | None = None
    delta: str | None = None
    grad: str | None = None
    verdict: str | None = None


class Movement(Frozen):
    """One parameter's own update at its use: with which power of the width it moves what it makes.

    Or a residual stream along the depth, with its powers at init and by a step.
    """

    name: str
    source: str | None
    verdict: str
    power: str
    init: str | None = None
    delta1: str | None = None


class Standing(Frozen):
    """The user's set-up as it stands, under its own init and rates; a plan's activations are judged under it.

    `causes` are the names of those whose verdict is not that of a value before them.

    `init` says how its exponents were read; `shown`: its rates go with width, so a parametrization is meant. `rate` is
    the power with which the largest stable rate goes (empty where none is: the init grows); `frozen` are the parameters
    that then stop learning.
    """

    init: str
    optimizer: str
    shown: bool
    regime: str
    rate: str
    causes: tuple[str, ...] = ()
    moved: tuple[Movement, ...] = ()
    frozen: tuple[Movement, ...] = ()
    depth: tuple[Movement, ...] = ()
    notes: tuple[str, ...] = ()


class Finding(Frozen):
    """A mistake with evidence in the user's set-up; of severity `info`, what will happen and is no mistake."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    source: str | None = None
    parameter: str | None = None
    fix: str | None = None


class Plan(Frozen):
    """`Plan.from_json(plan.to_json()) == plan`, and its text depends on the model and the choices alone."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: Model
    coverage: Coverage
    dims: tuple[Dim, ...]
    parametrization: str
    optimizer: str
    hardware: str
    gauge: str
    parameters: tuple[Parameter, ...]
    activations: tuple[Activation, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> str:
        """Indented, keys in the schema's order, a newline at the end."""
        document: dict[str, Any] = self.model_dump(mode="json")
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Raises pydantic's `ValidationError` where the text is no plan of this version."""
        return cls.model_validate_json(text)

    def parameter(self, name: str) -> Parameter:
        """By FQN, tied names included. Raises `KeyError`."""
        group = next((names for names in self.model.tied if name in names), (name,))
        for parameter in self.parameters:
            if parameter.name in group:
                return parameter
        raise KeyError(name)
