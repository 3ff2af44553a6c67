"""Structure of the graph and the module tree: residual branches, repeated blocks, depth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import fx, nn

from mupc.ops import signature_of
from mupc.ops.table import printed, shapes
from mupc.trace import Trace

Add = tuple[fx.Node, fx.Node, fx.Node]  # the sum and its two terms


@dataclass(frozen=True, slots=True)
class Residual:
    """`add` adds to `stream` a value computed from it; `branch` holds the nodes on the way."""

    add: fx.Node
    stream: fx.Node
    branch: frozenset[fx.Node]


def reaching(trace: Trace, numbers: Container[fx.Node] = ()) -> frozenset[fx.Node]:
    """The nodes whose values reach an output other than through integers and booleans, which carry no gradient.

    Nor through `numbers`, which are computed from parameters and constants alone: a weight's norm is no use of it.
    """
    found = set(trace.outputs.values())
    todo = list(found)
    while todo:
        for source in todo.pop().all_input_nodes:
            if source not in found and _carries(source, numbers):
                found.add(source)
                todo.append(source)
    return frozenset(found)


def _carries(node: fx.Node, numbers: Container[fx.Node]) -> bool:
    dtype = getattr(node.meta.get("val"), "dtype", None)
    return node not in numbers and (dtype is None or dtype.is_floating_point or dtype.is_complex)


def additions(calls: Mapping[fx.Node, list[fx.Node]], is_data: Callable[[fx.Node], bool]) -> Iterator[Add]:
    """Adds of two different activations, among calls with their operands."""
    for node, sources in calls.items():
        if printed(node.target).startswith("aten.add"):
            pair = [s for s in sources if is_data(s)]
            if len(pair) == 2 and pair[0] is not pair[1]:
                yield node, pair[0], pair[1]


def residuals(graph: fx.Graph, adds: Iterable[Add], is_data: Callable[[fx.Node], bool]) -> tuple[Residual, ...]:
    """Every add of two activations of one shape, one of which is an ancestor of the other, or both are branches of one
    stream (`x + f(x) + g(x)`)."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    found: dict[fx.Node, Residual] = {}
    for node, *pair in adds:
        early, late = sorted((origin(s, is_data) for s in pair), key=order.__getitem__)
        if early is late or shapes(early.meta.get("val")) != shapes(late.meta.get("val")):
            continue
        branch = between(early, late, order)
        if not branch and (gated := _gated(early, is_data)):
            early, branch = gated, between(gated, late, order)
        for stream, other in ((early, late), (late, early)) if not branch else ():
            if stream in found and (branch := between(found[stream].stream, other, order)):
                early = stream
                break
        if branch:
            found[node] = Residual(node, early, branch)
    return tuple(found.values())


def _gated(node: fx.Node, is_data: Callable[[fx.Node], bool]) -> fx.Node | None:
    """The stream behind a bounded gate, `sigmoid(g) * x` (a highway): the operand that is no gate."""
    data = [s for s in node.all_input_nodes if is_data(s)]
    if not printed(node.target).startswith("aten.mul") or len(data) != 2:
        return None
    streams = [s for s in data if not _bounded(s, is_data)]
    return origin(streams[0], is_data) if len(streams) == 1 else None


def _bounded(node: fx.Node, is_data: Callable[[fx.Node], bool]) -> bool:
    """Does it come out of a bounded function, perhaps through `1 - g`?"""
    for _ in range(4):
        if node.op != "call_function" or getattr(node.target, "_schema", None) is None:
            return False
        signature, data = signature_of(node), [s for s in node.all_input_nodes if is_data(s)]
        if signature.bounded or signature.kind not in ("additive", "layout") or len(data) != 1:
            return signature.bounded
        node = data[0]
    return False


def merges(adds: Iterable[Add], is_data: Callable[[fx.Node], bool], layers: set[fx.Node]) -> tuple[fx.Node, ...]:
    """Adds of two values each of which comes straight from a layer of its own, through norms, gains and layout only."""
    found = []
    for node, *pair in adds:
        ends = [_maker(s, is_data, layers) for s in pair]
        if None not in ends and ends[0] is not ends[1]:
            found.append(node)
    return tuple(found)


def _maker(node: fx.Node, is_data: Callable[[fx.Node], bool], layers: set[fx.Node]) -> fx.Node | None:
    """The layer whose value this is, behind ops with a single activation among their operands."""
    for _ in range(8):
        if node in layers:
            return node
        data = [s for s in node.all_input_nodes if is_data(s)]
        if node.op != "call_function" or len(data) != 1:
            return None
        node = data[0]
    return None


PASSING = (
    "aten.to",
    "aten._to_copy",
    "aten.dropout",
    "aten.clone",
    "aten.contiguous",
    "aten.alias",
    "aten.detach",
    "aten.mul",
    "aten.div",
)


def origin(node: fx.Node, is_data: Callable[[fx.Node], bool]) -> fx.Node:
    """The value behind casts, copies, dropout and factors that are numbers or parameters."""
    while node.op == "call_function" and printed(node.target).startswith(PASSING):
        data = [s for s in node.all_input_nodes if is_data(s)]
        if len(data) != 1:
            break
        node = data[0]
    return node


def between(early: fx.Node, late: fx.Node, order: Mapping[fx.Node, int]) -> frozenset[fx.Node]:
    """The nodes on paths from `early` (left out) to `late`; empty where there is none."""
    bound, back, todo = order[early], {late}, [late]
    reached = False
    while todo:
        for source in todo.pop().all_input_nodes:
            if source is early:
                reached = True
            elif source not in back and order[source] > bound:
                back.add(source)
                todo.append(source)
    if not reached:
        return frozenset()
    forward, todo = set[fx.Node](), [early]
    while todo:
        for user in todo.pop().users:
            if user in back and user not in forward:
                forward.add(user)
                todo.append(user)
    return frozenset(forward)


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile's, DataParallel's or DistributedDataParallel's wrapper."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


def blocks(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Groups of sibling modules that hold the same parameters in the same shapes, in order: `("h.0", "h.1", ...)`."""
    layouts: dict[nn.Module, tuple[object, ...]] = {}
    siblings: list[dict[object, dict[nn.Module, str]]] = []

    def layout(module: nn.Module, path: str) -> tuple[object, ...]:
        """The parameters' shapes by name, then the layouts of those children that hold any."""
        held: list[object] = [(name, p.shape) for name, p in module._parameters.items() if p is not None]
        alike: dict[object, dict[nn.Module, str]] = defaultdict(dict)
        siblings.append(alike)
        for name, child in module._modules.items():
            if child is None:
                continue
            inner = layouts.get(child)
            if inner is None:
                inner = layouts[child] = layout(child, f"{path}{name}.")
            if inner:
                held.append((name, inner))
                if name.isdigit():
                    alike[inner].setdefault(child, f"{path}{name}")
        return tuple(held)

    layout(model, "")
    return tuple(tuple(names.values()) for alike in siblings for names in alike.values() if len(names) > 1)
