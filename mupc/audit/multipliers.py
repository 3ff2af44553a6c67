"""The numbers a forward multiplies a weight's product by: read off the graph, on both sides of each use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from mupc.analysis import Analysis
from mupc.ops import signature_of, tensor_nodes
from mupc.ops.table import printed
from mupc.roles import Parameter
from mupc.subroles import Attention, SubRoles

PASSING = ("aten.to", "aten._to_copy", "aten.dropout", "aten.clone", "aten.contiguous", "aten.alias", "aten.detach")


@dataclass(frozen=True, slots=True)
class Scores:
    """Attention's: the number they are multiplied by, and over how many places their products sum.

    `paths`: by the parameters that made an operand, the number between them and the scores, which is also counted as
    theirs: part of the weight or of the scale, as the reader takes it.
    """

    factor: float
    contracted: int
    paths: Mapping[str, float] = field(default_factory=dict)

    def whole(self) -> float:
        """The scale with what stands on the operands' paths."""
        return self.factor * math.prod(self.paths.values())


@dataclass(frozen=True, slots=True)
class Multipliers:
    """`parameters`: of each parameter's leading use; `uses`: of every use, by (parameter, node); `attention`: of the
    scores, by module."""

    parameters: dict[str, float]
    uses: dict[tuple[str, str], float]
    attention: dict[str, Scores]


def multipliers(analysis: Analysis, model: nn.Module) -> Multipliers:
    """Numbers that stand between a weight's op and the next or last op that is more than layout.

    One between two matrices (`down(c * up(x))`) counts for the first, one between a gain and a matrix for the matrix.
    """
    reader = _Reader(analysis, model)
    uses = {
        (name, use.node): reader.of(reader.nodes[use.node], p)
        for name, p in analysis.roles.parameters.items()
        for use in p.uses
        if use.node in reader.nodes
    }
    main = {}
    for name, p in analysis.roles.parameters.items():
        use = next((u for u in p.uses if u.role == p.role and (name, u.node) in uses), None)
        main[name] = uses[name, use.node] if use else 1.0
    return Multipliers(main, uses, reader.attention(analysis))


class _Reader:
    def __init__(self, analysis: Analysis, model: nn.Module) -> None:
        self.trace = analysis.trace
        self.nodes = {node.name: node for node in self.trace.graph.nodes}
        self.buffers = {node: name for name, node in self.trace.buffers.items()}
        self.values = dict(model.named_buffers())
        self.weights = {*self.trace.parameters.values(), *self.trace.buffers.values()}
        self.contracting = {
            use.node for p in analysis.roles.parameters.values() for use in p.uses if p.role not in ("vector", "scalar")
        }

    def of(self, node: fx.Node, p: Parameter) -> float:
        """Around its op; what is added there meets only what stands behind."""
        return self.after(node) if p.sub_role == "bias" else self.around(node)

    def around(self, node: fx.Node) -> float:
        return self.after(node) * math.prod(self.before(source) for source in self._data(node))

    def after(self, node: fx.Node) -> float:
        """The numbers that the op's result is multiplied by before anything else reads it."""
        factor, here = 1.0, node
        while len(here.users) == 1:
            (user,) = here.users
            number = self.number(user, here)
            if node.name not in self.contracting and user.name in self.contracting:
                return 1.0  # behind a gain, before a matrix: the matrix's
            if number is None and not self._passes(user):
                alpha = user.kwargs.get("alpha") if printed(user.target).startswith(("aten.add", "aten.sub")) else None
                second = len(user.args) > 1 and user.args[1] is here
                return factor * (float(alpha) if second and isinstance(alpha, (int, float)) else 1.0)
            factor *= 1.0 if number is None else number
            here = user
        return factor

    def before(self, node: fx.Node) -> float:
        """The numbers that an operand was multiplied by; those that another weight's result was are that one's."""
        factor, here, alone = 1.0, node, True
        while here.op == "call_function":
            alone &= len(here.users) == 1
            if here.name in self.contracting:
                return 1.0 if alone else factor
            data = self._data(here)
            number = self.number(here, data[0]) if len(data) == 1 else None
            if number is None and not (self._passes(here) and len(data) == 1):
                return factor
            factor *= 1.0 if number is None else number
            here = data[0]
        return factor

    def number(self, node: fx.Node, operand: fx.Node) -> float | None:
        """The number that a node multiplies this operand by; None where it does something else."""
        name = printed(node.target)
        if node.op != "call_function" or not name.startswith(("aten.mul", "aten.div")) or len(node.args) < 2:
            return None
        left, right = node.args[:2]
        if left is operand:
            value = self._value(right)
            if value is None:
                return None
            return value if name.startswith("aten.mul") else (1 / value if value else None)
        return self._value(left) if right is operand and name.startswith("aten.mul") else None

    def _value(self, value: Any) -> float | None:
        """A number in the code, a constant tensor of one element, or such a buffer."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        while isinstance(value, fx.Node) and value.op == "call_function" and self._passes(value):
            value = value.all_input_nodes[0] if len(value.all_input_nodes) == 1 else None
        if not isinstance(value, fx.Node):
            return None
        tensor = value.meta.get("value", self.values.get(self.buffers.get(value, "")))
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != 1 or tensor.is_meta:
            return None
        return float(tensor)

    def _passes(self, node: fx.Node) -> bool:
        if node.op != "call_function" or getattr(node.target, "_schema", None) is None:
            return False
        return printed(node.target).startswith(PASSING) or signature_of(node).kind == "layout"

    def _data(self, node: fx.Node) -> list[fx.Node]:
        """The operands that are no parameters, buffers or numbers."""
        return [s for s in dict.fromkeys(tensor_nodes(node)) if s not in self.weights and s.op != "get_attr"
                and s.meta.get("kind") not in ("parameter", "buffer", "constant")]  # fmt: skip

    def attention(self, analysis: Analysis) -> dict[str, Scores]:
        """By the module they run in and their place in it: whole ops by their scale, products by what stands around."""
        found: dict[str, Scores] = {}
        seen: Counter[str] = Counter()
        finer = SubRoles(analysis.dims_stage)
        for one in {a.scores: a for a in finer.attentions()}.values():
            node = self.nodes.get(one.scores.name)
            if node is None:
                continue
            if one.scores is one.out:
                scale, query = node.kwargs.get("scale"), self.nodes[one.query.name]
                contracted = query.meta["val"].shape[-1]
                given = float(scale) if isinstance(scale, (int, float)) else contracted**-0.5
                factor = given * math.prod(self.before(s) for s in node.args[:2] if isinstance(s, fx.Node))
            else:
                factor, contracted = self.around(node), _contracted(analysis, one.scores)
            paths = {name: factor_ for name, factor_ in self.paths(finer, one) if factor_ != 1.0}
            module = str(node.meta.get("module", ""))
            seen[module] += 1
            found[module if seen[module] == 1 else f"{module}#{seen[module]}"] = Scores(factor, contracted, paths)
        return found

    def paths(self, finer: SubRoles, one: Attention) -> Iterator[tuple[str, float]]:
        """The maker of each operand of the scores, where it makes nothing else, and the numbers behind it."""
        for operand in (one.query, one.key):
            names = sorted(finer.makers_of(operand))
            if len(names) == 1 and len(finer.attention[names[0]]) == 1 and operand.name in self.nodes:
                yield names[0], self.behind(self.nodes[operand.name])

    def behind(self, node: fx.Node) -> float:
        """The numbers between a value and the matrix that made it."""
        factor, here = 1.0, node
        while here.op == "call_function" and here.name not in self.contracting:
            data = self._data(here)
            number = self.number(here, data[0]) if len(data) == 1 else None
            if len(data) != 1 or (number is None and not self._passes(here)):
                break
            factor *= 1.0 if number is None else number
            here = data[0]
        return factor


def _contracted(analysis: Analysis, node: fx.Node) -> int:
    """Over how many places a product sums."""
    folded, signature = analysis.dims_stage.facts.folded, signature_of(node)
    summed = frozenset[str]().union(*(signature.held[i] for i in signature.terms[0])) - signature.out
    labels = folded.labels[node]
    return math.prod(folded.atoms.length(folded.atoms.expand(labels[x])) for x in summed if x in labels)
