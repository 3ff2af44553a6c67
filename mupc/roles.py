"""What each parameter does, from its uses: input, hidden, output, vector, scalar; unknown is a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dim:
    """One named dim of the model: a factor of at least one axis of at least one parameter."""

    name: str
    size: int
    kind: str  # data, lookup, kernel, width, inner, count, rank, experts, heads, depth, unknown
    grows: bool | None  # None: unknown
    why: str


@dataclass(frozen=True, slots=True)
class Use:
    """One contraction, product or sum that a parameter takes part in; one word per axis of the parameter.

    Words: `in` (contracted with data), `out` (new), `batch` (in both), `lookup` (indexed), `kernel`, `one` (size 1).
    """

    node: str
    op: str
    module: str
    source: str | None  # "file.py:41"
    axes: tuple[str, ...]
    role: str


@dataclass(frozen=True, slots=True)
class Part:
    """A range of one axis of a parameter that has a role of its own (fused qkv, Mamba's x_proj)."""

    axis: int
    start: int
    stop: int
    role: str
    fan_in: tuple[str, ...]  # growing dims this part contracts over
    fan_out: tuple[str, ...]  # growing dims this part creates
    fan_in_size: int
    sub_role: str | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """Everything inferred about one parameter. Shapes are in elements; names are FQNs."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[tuple[str, ...], ...]  # per axis: its dims, major to minor; () for an axis of size 1
    infinite: tuple[bool | None, ...]  # per axis: does it grow with width? None: unknown
    role: str  # input, hidden, output, vector, scalar, unused, unknown
    sub_role: str | None
    parts: tuple[Part, ...]
    uses: tuple[Use, ...]
    fan_in: tuple[str, ...]  # growing dims contracted with data; () when fan-in is finite
    fan_out: tuple[str, ...]  # growing dims created (or carried along by a vector)
    fan_in_size: int  # product of all contracted sizes, finite ones and kernels included; 1 for vectors and lookups
    fan_out_size: int
    residual_branch: bool
    why: tuple[str, ...]
    source: str | None  # "file.py:41": the user's line where it is first used


@dataclass(frozen=True, slots=True)
class Roles:
    """The result of the roles stage: dims in order of first appearance, parameters by FQN, and what is not known."""

    dims: tuple[Dim, ...]
    parameters: dict[str, Parameter]
    tied: tuple[tuple[str, ...], ...]
    assumed: tuple[str, ...]  # ops without a signature, guesses by size: what the verdicts rest on
