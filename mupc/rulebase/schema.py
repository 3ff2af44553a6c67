"""What a rule file may say: the schema of `rules/parametrizations/` and `rules/optimizers/`."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mupc.errors import MupcError
from mupc.exponents import Law, Monomial, Symmetry

RoleName = Literal["input", "hidden", "output", "vector", "scalar"]
SubRole = Literal[
    "embedding",
    "positional",
    "query",
    "key",
    "value",
    "attn_out",
    "mlp_in",
    "mlp_out",
    "router",
    "expert_in",
    "expert_out",
    "gain",
    "bias",
    "ssm_state",
    "lora_a",
    "lora_b",
    "conv",
]
DimKind = Literal["data", "lookup", "kernel", "width", "inner", "count", "rank", "experts", "heads", "depth"]
Quantity = Literal["multiplier", "std", "lr", "eps", "decay", "clip"]

GROWING_KINDS = ("width", "heads", "experts", "rank")  # the only kinds of dims that may grow

# Where a sub-role can only be met under some roles: a rule that asks for another pair can never match.
ROLES_OF: dict[str, tuple[str, ...]] = {
    "embedding": ("input",),
    "positional": ("input",),
    "gain": ("vector", "scalar"),
    "bias": ("vector", "scalar"),
    "ssm_state": ("vector", "scalar"),
}

DIM_SYMBOLS = frozenset({"fan_in", "fan_in_widest", "fan_out", "fan_max", "batch", "entries", "depth"})
SIZES = frozenset({"multiplier", "std", "grad", "update"})  # said by parametrizations
RATES = frozenset({"lr", "eps"})  # derived by optimizers from the sizes
SYMBOLS: dict[str, frozenset[str]] = {
    **dict.fromkeys(SIZES, DIM_SYMBOLS),
    **dict.fromkeys(RATES, DIM_SYMBOLS | SIZES),
    **dict.fromkeys(("decay", "clip"), DIM_SYMBOLS | SIZES | RATES),
    "attention": frozenset({"contracted"}),
}


def _law(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty law; 1 is what does not scale")
    try:
        Law.parse(text)
    except MupcError as error:
        raise ValueError(str(error)) from error
    return text


def _monomial(text: str) -> str:
    try:
        Monomial.parse(text)
    except MupcError as error:
        raise ValueError(str(error)) from error
    return text


Words = Annotated[str, Field(pattern=r"\S")]
LawText = Annotated[str, AfterValidator(_law)]
MonomialText = Annotated[str, AfterValidator(_monomial)]
PowerText = Annotated[str, Field(pattern=r"^-?\d+(/[1-9]\d*)?$")]


class Strict(BaseModel):
    """No key that is not known, no change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Case(Strict):
    """A claim about one parameter: true in `[[valid]]`, false in `[[invalid]]`.

    `in` lists the growing dims of each contracted axis (`["n"]`, `["n", "m"]` for two axes, `["n * m"]` for one axis of
    two dims); `out` and `batch` are products. The file's own entry is one of parametrization and optimizer.
    """

    role: RoleName
    sub_role: SubRole | None = None
    inward: tuple[MonomialText, ...] = Field(default=(), alias="in")
    outward: MonomialText = Field(default="1", alias="out")
    batch: MonomialText = "1"
    residual_branch: bool = False
    ends_branch: bool = False
    tied: bool = False
    kinds: dict[str, DimKind] = {}
    depth: str | None = None  # what the model's depth is called, if it has one
    parametrization: str | None = None
    optimizer: str | None = None
    expect: dict[Quantity, MonomialText] = {}
    decays: bool = True  # is it decayed at all?

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.expect and self.decays:
            raise ValueError("a case expects something")
        return self


class Rule(Strict):
    """One row of a parametrization: for whom, and what.

    It matches where every given condition holds; a list holds where one of its words does (`kinds`: of the dims of the
    parameter's axes; `growing_kinds`: of those that grow). `residual_branch`: on a branch of repeated blocks;
    `ends_branch`: a factor on it, and on all else that ends the branch, is a factor on the branch. Later rules override
    earlier ones, quantity by quantity.

    The values are laws in `fan_in`, `fan_out`, `batch` (products of the growing dims contracted, created, and carried),
    `fan_in_widest` (of the widest in-axis), `fan_max` (the larger of both fans as they are), `entries` (of all),
    `depth` and the file's own `symbols`: `multiplier` a, `std` b, `grad` the size of a gradient entry, `update` the
    size of a step's entry, all in the tensor's own units. From these each optimizer derives lr, eps and decay by the
    laws of its file; `lr`, `eps` and `decay` here overrule that, keyed by optimizer, family (for decay: form) or `any`.
    """

    roles: Annotated[tuple[RoleName, ...], Field(min_length=1)] | None = None
    sub_roles: Annotated[tuple[SubRole, ...], Field(min_length=1)] | None = None
    ops: Annotated[tuple[Words, ...], Field(min_length=1)] | None = None
    kinds: Annotated[tuple[DimKind, ...], Field(min_length=1)] | None = None
    growing_kinds: Annotated[tuple[DimKind, ...], Field(min_length=1)] | None = None
    residual_branch: bool | None = None
    ends_branch: bool | None = None
    tied: bool | None = None

    multiplier: LawText | None = None
    std: LawText | None = None
    grad: LawText | None = None
    update: LawText | None = None
    lr: dict[str, LawText] = {}
    eps: dict[str, LawText] = {}
    decay: dict[str, LawText] = {}
    clip: LawText | None = None

    source: Words
    basis: Literal["paper", "code", "derived", "measured"] = "paper"

    def laws(self) -> dict[tuple[str, ...], str]:
        """Every law it holds, by its place: `("std",)`, `("lr", "adam")`."""
        plain = {"multiplier": self.multiplier, "std": self.std, "grad": self.grad}
        plain |= {"update": self.update, "clip": self.clip}
        out: dict[tuple[str, ...], str] = {(key,): law for key, law in plain.items() if law is not None}
        for key, table in (("lr", self.lr), ("eps", self.eps), ("decay", self.decay)):
            out |= {(key, who): law for who, law in table.items()}
        return out


class Symbol(Strict):
    """A dim that a file's laws may name: by kind (of the parameter's own axes), or by its name in the model.

    An `optional` one is that of the parameter's own axes, and 1 where they lack it.
    """

    kind: DimKind | None = None
    name: Words | None = None
    optional: bool = False


class Entry(Strict):
    """What every file says of itself, and how it shows that it is right."""

    name: Words
    title: Words
    status: Literal["stable", "preview"]
    source: Words
    about: str = ""


class Claims(Entry):
    """An entry about settings shows by cases that it is right."""

    valid: Annotated[tuple[Case, ...], Field(min_length=1)]
    invalid: Annotated[tuple[Case, ...], Field(min_length=1)]


class Attention(Strict):
    """What a dot product of two activations over `contracted` growing dims must be multiplied by."""

    scale: LawText
    source: Words


class Parametrization(Claims):
    """`families` limits it to optimizers of some families, where the literature does."""

    families: Annotated[tuple[Words, ...], Field(min_length=1)] | None = None
    symbols: dict[str, Symbol] = {}
    attention: Attention | None = None
    rule: Annotated[tuple[Rule, ...], Field(min_length=1)]

    def names(self, symbol: str) -> bool:
        """Does any law name this symbol?"""
        return any(symbol in Law.parse(law).symbols for rule in self.rule for law in rule.laws().values())


class CitedLaw(Strict):
    """A law of an optimizer, in the sizes that a parametrization gives: `multiplier`, `std`, `grad`, `update`."""

    law: LawText
    source: Words


class DecayLaw(CitedLaw):
    """`form` is how decay enters a step: with the gradient (coupled), or beside it as lr*decay (decoupled)."""

    form: Literal["coupled", "decoupled", "independent"]
    basis: Literal["paper", "code", "derived", "measured"] = "paper"


class DecayRule(Strict):
    """For parameters of these roles: a law in an optimizer's symbols, or no decay. Later rules override earlier."""

    roles: Annotated[tuple[RoleName, ...], Field(min_length=1)] | None = None
    law: LawText | None = None
    decays: bool = True
    source: Words

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.decays == (self.law is None):
            raise ValueError("give a law, or decays = false")
        return self


class WeightDecay(Claims):
    """A rule of its own for weight decay, over what optimizer and parametrization say, in torch's convention lr*decay.

    `forms` are those of optimizers' decay that it is stated for; none: any. `batch` and `tokens` are laws for a run's
    other batch (`batch`) and length (`tokens`), as ratios to those it was tuned at.
    """

    forms: Annotated[tuple[Literal["coupled", "decoupled", "independent"], ...], Field(min_length=1)] | None = None
    batch: MonomialText = "1"
    tokens: MonomialText = "1"
    rule: Annotated[tuple[DecayRule, ...], Field(min_length=1)]

    def run(self) -> Monomial:
        """What batch and tokens do to it."""
        return Monomial.parse(self.batch) * Monomial.parse(self.tokens)


Distribution = Literal[
    "normal", "truncated_normal", "uniform", "orthogonal", "generalized_gaussian", "zeros",
    "s4d_lin", "s4d_inv", "s4d_legs", "s4d_real", "s4d_dt",
]  # fmt: skip


class Initializer(Entry):
    """A distribution of `mupc.initializers` with its knobs; `kurtosis` is E w^4 / (E w^2)^2 where it is one number."""

    distribution: Distribution
    knobs: dict[str, float] = {}
    kurtosis: float | None = None


class Mistake(Entry):
    """A code under which findings are told: why it matters, and what to do `instead`."""

    instead: Words


class SymmetryTable(Strict):
    """Powers of t: see `mupc.exponents.Symmetry`."""

    lr: PowerText
    eps: PowerText
    decay: PowerText
    others: dict[str, PowerText] = {}
    source: Words


class Optimizer(Claims):
    """`roles` limits it to parameters that it is made for; `fallback` names the optimizer of the others."""

    family: Words
    roles: Annotated[tuple[RoleName, ...], Field(min_length=1)] | None = None
    fallback: Words | None = None
    lr: CitedLaw
    eps: CitedLaw | None = None
    weight_decay: DecayLaw | None = None
    symmetry: SymmetryTable

    def law(self) -> Symmetry:
        """Its abc-symmetry, exactly."""
        table = self.symmetry
        others = {knob: Fraction(power) for knob, power in table.others.items()}
        return Symmetry(Fraction(table.lr), Fraction(table.eps), Fraction(table.decay), others)
