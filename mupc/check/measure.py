"""Measure one scene: the RMS of every value, of its change after a step or some, of that change's two parts, and of its
gradient.

In the linear regime the rate and eps vanish and everything is in float64, so that a change is what the first order
says (`delta1`); in the training regime a real optimizer takes real steps (`delta`). Of a weight's product y = W x, the
effective part is dW x, by this weight's own update, and the propagating part W dx, by those before it: the refined
coordinate check of Haas et al. 2024 (arXiv:2411.00075) and Everett et al. 2024 (arXiv:2407.05872).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor, fx

from mupc.blame import blame
from mupc.check.run import Graph, Values, as_dtype, floats
from mupc.check.scene import Scene, synthetic
from mupc.check.step import direction
from mupc.diagnostics import as_matrix, spectral_scale, top_singular
from mupc.dims.facts import primary
from mupc.dims.records import DATA, WEIGHT
from mupc.errors import MupcError
from mupc.flow.verdicts import judged_nodes
from mupc.ops import tensor_nodes

RATE = 1e-7  # in the linear regime: small beside float64's digits, large beside its rounding
QUANTITIES = ("init", "change", "effective", "propagating", "grad")


@dataclass(frozen=True, slots=True)
class Sample:
    """RMS of one value's entries; the changes are over the rate in the linear regime. None where there is none."""

    init: float
    change: float
    effective: float | None = None
    propagating: float | None = None
    grad: float | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """Of one tensor: RMS of its entries, of its step (over the rate in the linear regime) and of its gradient; of
    matrices the largest singular value too, and that of the step, over sqrt(out/in): the same at every width under the
    spectral condition (arXiv:2310.17813)."""

    size: float
    step: float
    grad: float
    top: float | None = None
    top_step: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One scene's samples by node, its tensors' by name, and the loss before the first step.

    `effects`: by how much a tensor's update alone moves what it makes, by name and node, joined by a bar.
    """

    values: Mapping[str, Sample]
    weights: Mapping[str, Weighed]
    loss: float
    effects: Mapping[str, float] = field(default_factory=dict)


def measure(scene: Scene, *, steps: int | None = None, lr: float = 1e-3, seed: int = 0) -> Measured:
    """One scene in the linear regime or, with `steps`, after so many of training at rate `lr`."""
    dtype = torch.float64 if steps is None else torch.float32
    model = scene.model
    parameters = {
        n: as_dtype(p.detach(), dtype).clone().requires_grad_(p.requires_grad) for n, p in model.named_parameters()
    }
    trace = scene.analysis.trace
    inputs = {node: scene.inputs[name] for name, node in trace.inputs.items() if name in scene.inputs}
    graph = Graph(trace, dict(model.named_buffers()), inputs, dtype, scene.multipliers, scene.scales)
    before = graph.run(parameters, _keep_grad)
    loss = _loss(scene, before, seed)
    loss.backward()  # type: ignore[no-untyped-call]
    first = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    grads = {node: value.grad for node, value in floats(before) if value.grad is not None}
    before = {node: _detached(value) for node, value in before.items()}
    with torch.no_grad():
        if steps is None:
            moved = _linear(scene, parameters, first)
        else:
            moved = _trained(scene, graph, parameters, first, steps, lr, seed)
        over = RATE if steps is None else 1.0
        roles = scene.analysis.roles.parameters
        hidden = [n for n, p in parameters.items() if n in roles and roles[n].role == "hidden" and not p.is_complex()]
        weights = _weights(parameters, moved, first, over, hidden if seed == 0 else ())
        values, effects = _changes(scene, graph, before, moved, grads, over)
    return Measured(values, weights, float(loss.detach()), effects)


def rms(value: Tensor) -> float:
    """Of a tensor's finite entries: a mask's -inf has no size. 0 where there are none."""
    value = value.detach()
    size = float(torch.linalg.vector_norm(value, dtype=torch.complex128 if value.is_complex() else torch.float64))
    if not isfinite(size):
        value = value[torch.isfinite(value)]
        return rms(value) if value.numel() else 0.0
    return size / sqrt(value.numel()) if value.numel() else 0.0


def _keep_grad(node: fx.Node, value: Any) -> None:
    if isinstance(value, Tensor) and value.requires_grad and not value.is_leaf:
        value.retain_grad()


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return tuple(_detached(one) for one in value) if isinstance(value, (tuple, list)) else value


def _loss(scene: Scene, values: Values, seed: int) -> Tensor:
    trace = scene.analysis.trace
    if scene.loss is not None:
        outputs = as_returned({name: values[node] for name, node in trace.outputs.items()})
        try:
            found = scene.loss(outputs)
        except (Exception, SystemExit) as error:
            raise MupcError(f"the loss cannot be computed: {blame(error)}") from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise MupcError("the loss must be a tensor of one element")
        return found.reshape(())
    end = primary(trace)
    output = values[trace.outputs[end]] if end is not None else None
    if end is None or not isinstance(output, Tensor) or not output.requires_grad:
        raise MupcError("the model's first output does not depend on its parameters: there is nothing to train")
    return output.reshape(()) if output.numel() == 1 else synthetic(output, seed, _widens(scene, trace.outputs[end]))


def _widens(scene: Scene, node: fx.Node) -> bool:
    """Does the last axis of an output grow with width? Then it holds features, not classes."""
    dims = scene.analysis.dims_stage
    folded = dims.facts.folded
    thin = next((n for n in dims.facts.trace.graph.nodes if n.name == node.name), node)
    tensors = folded.tensors.get(thin, ())
    axis = tensors[0][-1] if tensors and tensors[0] else ()
    kinds = [dims.kinds.get(atom) for atom in folded.atoms.expand(axis)]
    return any(kind is not None and kind.grows for kind in kinds)


class Outputs(dict[str, Any]):
    """What a forward returns by name, `outputs["logits"]` or `outputs.logits`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def as_returned(outputs: Mapping[str, Any]) -> Any:
    """The forward's tensors as it returned them, from their dotted names: alone, in tuples, or by name."""
    if list(outputs) == [""]:
        return outputs[""]
    tree: dict[str, dict[str, Any]] = {}
    for name, value in outputs.items():
        first, _, rest = name.partition(".")
        tree.setdefault(first, {})[rest] = value
    made = {name: as_returned(part) for name, part in tree.items()}
    return tuple(made.values()) if all(name.isdigit() for name in made) else Outputs(made)


def _linear(scene: Scene, parameters: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    moved = dict(parameters)
    for name, knobs in scene.knobs.items():
        if name in grads:
            step = direction(knobs.rule, grads[name], parameters[name].detach(), knobs.words)
            moved[name] = parameters[name].detach() - RATE * knobs.lr * step
    return {name: value.detach() for name, value in moved.items()}


def _trained(
    scene: Scene, graph: Graph, parameters: Mapping[str, Tensor], grads: Mapping[str, Tensor], steps: int, lr: float,
    seed: int,
) -> dict[str, Tensor]:  # fmt: skip
    """After so many steps; the gradients of the first are at hand."""
    from mupc.check.optimizers import optimizer_of

    with torch.enable_grad():
        live = {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in parameters.items()}
        optimizer = optimizer_of(live, scene.knobs, lr)
        for at in range(steps):
            if at == 0:
                for name, grad in grads.items():
                    live[name].grad = grad.clone()
            else:
                optimizer.zero_grad()
                _loss(scene, graph.run(live), seed).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: value.detach() for name, value in live.items()}


def _weights(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], grads: Mapping[str, Tensor], over: float,
    matrices: Collection[str],
) -> dict[str, Weighed]:  # fmt: skip
    steps = {name: after[name] - value.detach() for name, value in before.items() if name in grads}
    shapes = {name: as_matrix(before[name]).shape for name in matrices if name in steps}
    tops = top_singular({name: before[name].detach() for name in shapes})
    moved = top_singular({name: steps[name] / over for name in shapes})
    sizes = {name: [spectral_scale(float(found[name]), shape) for found in (tops, moved)]
             for name, shape in shapes.items()}  # fmt: skip
    return {
        name: Weighed(rms(before[name]), rms(step) / over, rms(grads[name]), *sizes.get(name, ()))
        for name, step in steps.items()
    }


def _changes(
    scene: Scene, graph: Graph, before: Values, moved: Mapping[str, Tensor], grads: Mapping[fx.Node, Tensor],
    over: float,
) -> tuple[dict[str, Sample], dict[str, float]]:  # fmt: skip
    """Run again with the new weights; products of weights and data once more with either alone new.

    And what each tensor's update moves by itself, where an op has it as an operand.
    """
    status = scene.analysis.dims_stage.facts.folded.status
    judged = {node.name for node in judged_nodes(scene.analysis)}
    judged |= {node.name for node in graph.nodes if "scaled_dot_product" in str(node.target)}  # for their scores
    kept = {node.name: node for node in scene.analysis.dims_stage.facts.trace.graph.nodes}
    after: Values = {}
    samples: dict[str, Sample] = {}
    effects: dict[str, float] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            name = graph.parameters.get(node)
            after[node] = graph.fresh(node) if name is None else graph.weight(moved, name)
            continue
        after[node] = value = graph.call(node, after)
        old = before[node]
        if not _compares(old, value) or node.name not in kept:
            continue
        sources = tensor_nodes(node)
        weights = [s for s in sources if status.get(kept.get(s.name, s)) == WEIGHT]
        data = [s for s in sources if status.get(kept.get(s.name, s)) == DATA]
        own = other = None
        if weights and data:
            own = rms(graph.call(node, {**_of(sources, before), **_of(weights, after)}) - old) / over
            if node.name in judged:
                other = rms(graph.call(node, {**_of(sources, after), **_of(weights, before)}) - old) / over
            for weight in weights:
                if len(weights) == 1 and weight in graph.parameters:
                    effects[f"{graph.parameters[weight]}|{node.name}"] = own
                elif weight in graph.parameters and before[weight].shape == after[weight].shape:
                    alone = {**_of(sources, before), weight: after[weight]}
                    effects[f"{graph.parameters[weight]}|{node.name}"] = rms(graph.call(node, alone) - old) / over
        if node.name not in judged:
            continue
        grad = rms(grads[node]) if node in grads else None
        samples[node.name] = Sample(rms(old), rms(value - old) / over, own, other, grad)
    return samples, effects


def _compares(old: Any, new: Any) -> bool:
    if not isinstance(old, Tensor) or not isinstance(new, Tensor) or old.shape != new.shape or not old.numel():
        return False
    return old.is_floating_point() or old.is_complex()


def _of(nodes: list[fx.Node], values: Values) -> Values:
    return {node: values[node] for node in nodes}
