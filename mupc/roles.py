"""What each parameter does, from its uses: input, hidden, output, vector, scalar; unknown is a value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

from mupc.branches import Branches
from mupc.dims import Dims, Kind
from mupc.dims.atoms import Atom, Axis
from mupc.dims.records import RawUse
from mupc.subroles import SubRoles


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
    stacked: bool = False  # on a residual branch of a block that is one of several
    ends_branch: bool = False  # such a branch is linear in it, and in what else ends the branch


@dataclass(frozen=True, slots=True)
class Roles:
    """The result of the roles stage: dims in order of first appearance, parameters by FQN, and what is not known."""

    dims: tuple[Dim, ...]
    parameters: dict[str, Parameter]
    tied: tuple[tuple[str, ...], ...]
    assumed: tuple[str, ...]  # ops without a signature, guesses by size: what the verdicts rest on


NO_BRANCHES = Branches()
UNKNOWN = Kind("count", False, "an axis of a parameter that no op reads")
MATRIX = ("in", "kernel", "lookup")


def infer_roles(dims: Dims, names: Mapping[Atom, str], stack: Branches = NO_BRANCHES) -> dict[str, Parameter]:
    """Dims -> a role for every parameter, from its uses alone; `stack` are the branches of repeated blocks."""
    uses: dict[str, list[RawUse]] = defaultdict(list)
    for use in dims.facts.folded.uses:
        if use.node in dims.facts.live:
            uses[use.parameter].append(use)
    branches = frozenset(node for residual in dims.facts.residuals for node in residual.branch)
    judge = _Judge(dims, names, stack)
    return {
        name: judge.parameter(name, node, uses[name], any(use.node in branches for use in uses[name]))
        for name, node in dims.facts.trace.parameters.items()
    }


class _Judge:
    """Holds what every verdict needs: the dims, their names. Axes are expanded to unsplit atoms where they enter."""

    def __init__(self, dims: Dims, names: Mapping[Atom, str], stack: Branches) -> None:
        self.dims, self.names = dims, names
        self.inside, self.ends = stack.inside, stack.names()
        self.finer = SubRoles(dims)
        self.atoms = dims.facts.folded.atoms
        self.grows, self.named, self.kind_of = cache(self._grows), cache(self._named), cache(self._kind_of)
        self.size, self.told = cache(self.atoms.length), cache(self._told)

    def kind(self, atom: Atom) -> Kind:
        return self.dims.kinds.get(atom, UNKNOWN)

    def lost(self, name: str) -> bool:
        """A parameter that something live reads, though no use was understood."""
        node = self.dims.facts.trace.parameters[name]
        return any(user in self.dims.facts.live for user in node.users)

    def _grows(self, axis: Axis) -> bool | None:
        """Does any factor grow? None: not known."""
        verdicts = [self.kind(atom).grows for atom in axis]
        return True if True in verdicts else None if None in verdicts else False

    def _named(self, axis: Axis) -> tuple[str, ...]:
        return tuple([self.names[atom] for atom in axis])

    def growing(self, axes: Sequence[Axis]) -> tuple[str, ...]:
        """The growing dims of some axes; a sum gives its growing parts' first."""
        return tuple(dict.fromkeys([self.names[a] for axis in axes for a in axis if self.kind(a).grows]))

    def parameter(self, name: str, node: object, uses: list[RawUse], branch: bool) -> Parameter:
        axes = tuple(map(self.atoms.expand, self.dims.facts.folded.tensors[node][0]))  # type: ignore[index]
        shape = tuple(node.meta["val"].shape)  # type: ignore[attr-defined]
        uses = [self.complete(name, self.final(use), axes) for use in uses]
        judged = [(use, self.role(use, axes)) for use in uses]
        role = self.settle([r for _, r in judged]) if judged else "unused" if not self.lost(name) else "unknown"
        infinite = tuple(map(self.grows, axes))
        if role != "unused" and None in infinite:
            role = "unknown"
        main = next((u for u, r in judged if r == role), uses[0] if uses else None)
        ins, outs = (
            self.side(main, axes, MATRIX[:2]),
            self.side(main, axes, ("out", "batch") if role in ("vector", "scalar") else ("out",)),
        )
        sub = self.finer.of(main, role, len(shape), self.kinds_of(axes), branch) if main else None
        return Parameter(
            name=name,
            shape=shape,
            axes=tuple(map(self.named, axes)),
            infinite=infinite,
            role=role,
            sub_role=sub,
            parts=self.parts(main, axes, role) if main else (),
            uses=tuple(self.use(u, r, axes) for u, r in judged),
            fan_in=self.growing(ins),
            fan_out=self.growing(outs),
            fan_in_size=prod(map(self.size, ins)),
            fan_out_size=prod(map(self.size, outs)),
            residual_branch=branch,
            stacked=any(use.node in self.inside for use in uses),
            ends_branch=name in self.ends,
            why=self.why(judged, axes, role, sub),
            source=str(main.node.meta["source"]) if main and main.node.meta.get("source") else None,
        )

    def final(self, use: RawUse) -> RawUse:
        """What data scales, or contracts along what is fixed, is used where it is contracted afterwards."""
        then = self.dims.facts.folded.then.get((use.parameter, use.node))
        if then is None or then.node not in self.dims.facts.live:
            return use
        expand = self.atoms.expand
        read = (expand(axis) for entries in use.axes for word, axis in entries if word == "in")
        mixed = any(self.grows(axis) is not False for axis in read)
        return use if mixed else then

    def complete(self, name: str, use: RawUse, axes: tuple[Axis, ...]) -> RawUse:
        """Give a word to axes that were contracted between parameters alone: a factor of one weight (LoRA's rank)."""
        entries = [tuple([(word, self.atoms.expand(axis)) for word, axis in pairs]) for pairs in use.axes]
        entries += [()] * (len(axes) - len(use.axes))
        for at, pairs in enumerate(entries):  # under another size (frequencies) it is still the parameter's own axis
            if any(atom not in self.names for _, axis in pairs for atom in axis):
                entries[at] = tuple((word, axes[at]) for word, _ in pairs[:1])
        words = {word for entry in entries for word, _ in entry}
        for at, axis in enumerate(axes):
            if not entries[at] and (name, at) in self.dims.facts.folded.factors:
                entries[at] = (("out" if words & set(MATRIX) else "in", axis),)
        return RawUse(use.parameter, use.node, use.op, tuple(entries), use.contracts)

    def role(self, use: RawUse, axes: tuple[Axis, ...]) -> str:
        """The role table of DESIGN.md section 5: which sides of the contraction grow."""
        grown: dict[str, set[bool | None]] = defaultdict(set)
        for entries in use.axes:
            for word, axis in entries:
                grown[word].add(self.grows(axis))
        words = set(grown)
        f, g, b = True in grown["in"], True in grown["out"], True in grown["batch"]
        if None in grown["in"] | grown["out"] | grown["batch"]:
            return "unknown"
        if use.contracts and words & set(MATRIX):
            if f:
                return "hidden" if g or (b and "out" not in words) else "output"
            if g:
                return "input"
            return "vector" if b else "scalar"
        if not (g or b):
            return "scalar"
        table = any(
            self.grows(axis) is False and self.kind_of(axis) in ("data", "count", "lookup") for axis in axes if axis
        )
        norm = use.op.endswith("_norm") or use.op in ("mul", "div")
        if norm and "inner" in self.kinds_of(axes):
            return "vector"  # a state per channel
        layer = use.contracts and g and len(axes) > 1
        return "input" if (table and not norm) or layer else "vector"

    def settle(self, roles: list[str]) -> str:
        """One label for several uses: a tied embedding is an input; otherwise the use with the larger fan-in leads."""
        for role in ("unknown", "hidden") if "input" not in roles else ("unknown", "input"):
            if role in roles:
                return role
        for role in ("output", "input", "vector", "scalar"):
            if role in roles:
                return role
        return "unknown"

    def side(self, use: RawUse | None, axes: tuple[Axis, ...], words: tuple[str, ...]) -> list[Axis]:
        return [axis for entries in use.axes for word, axis in entries if word in words] if use else []

    def _kind_of(self, axis: Axis) -> str:
        if not axis:
            return "one"
        return next((self.kind(a).kind for a in axis if self.kind(a).grows), self.kind(axis[0]).kind)

    def kinds_of(self, axes: tuple[Axis, ...]) -> tuple[str, ...]:
        return tuple(map(self.kind_of, axes))

    def parts(self, use: RawUse, axes: tuple[Axis, ...], role: str) -> tuple[Part, ...]:
        """The ranges of a fused axis, each with a role of its own."""
        out: list[Part] = []
        for at, axis in enumerate(axes):
            word = next((w for w, _ in use.axes[at]), "") if at < len(use.axes) else ""
            ranges = self.ranges(axis) if word in ("in", "out") else []
            if len(ranges) < 2:
                continue
            start = 0
            for part, repeat in ranges:
                stop = start + self.atoms.length(part) * repeat
                entries = tuple(((word, part),) if i == at else e for i, e in enumerate(use.axes))
                one = RawUse(use.parameter, use.node, use.op, entries, use.contracts)
                ins = self.side(one, axes, MATRIX[:2])
                outs = self.side(one, axes, ("out",))
                size = prod(map(self.size, ins))
                out.append(Part(at, start, stop, self.role(one, axes), self.growing(ins), self.growing(outs), size))
                start = stop
        return tuple(out)

    def ranges(self, axis: Axis) -> list[tuple[Axis, int]]:
        """The parts laid end to end along an axis: of its major factor, repeated by the minor ones."""
        if not axis:
            return []
        minor = self.atoms.length(axis[1:])
        head = axis[0]
        if self.kind(head).kind == "count" and minor > 1 and self.atoms.size[head] <= 8 and len(axis) > 1:
            return [(axis[1:], 1)] * self.atoms.size[head]
        ways = self.atoms.sums[head]
        if not ways or self.kind(head).kind in ("data", "lookup", "kernel"):
            return []
        flat: list[tuple[Axis, int]] = []
        for part in ways[0]:
            whole = self.atoms.expand(part) + axis[1:]
            flat += (self.ranges(whole) if len(part) == 1 and self.kind(whole[0]).kind != "inner" else []) or [
                (whole, 1)
            ]
        return flat

    def use(self, use: RawUse, role: str, axes: tuple[Axis, ...]) -> Use:
        words = tuple(_word(entries) if axis else "one" for entries, axis in zip(use.axes, axes, strict=False))
        meta = use.node.meta
        return Use(
            use.node.name,
            use.op,
            str(meta.get("module", "")),
            str(meta["source"]) if meta.get("source") else None,
            words,
            role,
        )

    def why(
        self, judged: list[tuple[RawUse, str]], axes: tuple[Axis, ...], role: str, sub: str | None
    ) -> tuple[str, ...]:
        lines = [f"{r}: {u.op} at {u.node.meta.get('source') or u.node.name}" for u, r in judged]
        for axis in axes:
            lines += self.told(axis)
        if role == "output" and sub in ("key", "value"):
            lines.append("one kv head of a fixed size: nothing that it makes grows, so it is output-like")
        if len({r for _, r in judged}) > 1:
            lines.append(f"several uses ({', '.join(dict.fromkeys(r for _, r in judged))}): treated as {role}")
        return tuple(dict.fromkeys(lines))

    def _told(self, axis: Axis) -> list[str]:
        """Why each factor grows, or does not."""
        state = {True: "grows", False: "fixed", None: "unknown"}
        verdicts = ((self.names[atom], self.kind(atom)) for atom in axis)
        return [f"{name} ({kind.kind}, {state[kind.grows]}): {kind.why}" for name, kind in verdicts]


def _word(entries: tuple[tuple[str, Axis], ...]) -> str:
    words = [word for word, axis in entries]
    return next((w for w in ("in", "out", "lookup", "kernel", "batch") if w in words), "factor")
