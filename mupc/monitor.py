"""`mupc.Monitor`: what a coordinate check looks at, during a real training run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mupc.diagnostics import as_matrix, eps_share, equilibrium, rms, spectral_scale, top_singular
from mupc.errors import MupcError
from mupc.plan import Plan
from mupc.structure import unwrapped

INTERVAL = 100  # steps between two samples
Sink = Callable[[int, dict[str, float]], None]
LARGE, SMALL = 0.1, 1e-6  # of a weight, in one step: beyond these an update is worth a word
SHARE = 0.1  # of entries under eps


class Monitor:
    """Samples a training run every `interval` optimizer steps; between samples it costs one comparison a step.

        monitor = mupc.Monitor(model, plan, optimizer)
        for batch in data:
            ...; optimizer.step()
        monitor.history[-1]

    A sample holds, by parameter: `weight` (RMS), `update` (RMS of the step over that of the weight), `grad` (RMS),
    `sigma` (top singular value, times sqrt(n_in/n_out)), `sigma_update`, `eps` (share of entries where eps rules),
    `equilibrium` (the weight's RMS over the one that decay leads to); by module: `activation` (RMS of its output).
    Keys are `weight/blocks.0.up.weight`, all values floats. The model's training is not changed, bit for bit.

    `sink` is called with (step, sample), or has TensorBoard's `add_scalar`; samples are kept in `history` too, the last
    `keep` of them. `activations=False` leaves modules alone: hooks on a compiled model recompile it, so there they are
    left off. Under FSDP and DDP each rank sees its own shards. Raises `MupcError` where the plan is of another model.
    """

    def __init__(
        self, model: nn.Module, plan: Plan, optimizer: torch.optim.Optimizer, *, interval: int = INTERVAL,
        sink: Sink | Any = None, activations: bool | None = None, keep: int = 1000,
    ) -> None:  # fmt: skip
        if interval < 1:
            raise MupcError(f"interval: {interval} steps; at least 1")
        inner = unwrapped(model)
        self.parameters = dict(inner.named_parameters())
        known = {p.name for p in plan.parameters} | {name for group in plan.model.tied for name in group}
        if missing := [name for name in self.parameters if name not in known]:
            raise MupcError(f"the plan is of another model: it has no {missing[0]}")
        self.plan, self.interval, self.keep = plan, interval, keep
        self.sink = _sink(sink)
        compiled = model is not inner or any(type(m).__name__ == "OptimizedModule" for m in inner.modules())
        self.activations = not compiled if activations is None else activations
        self.modules = [(n, m) for n, m in inner.named_modules() if n and not any(m.children())]
        self.step, self.history = 0, list[dict[str, float]]()
        self._before: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._optimizer = weakref.ref(optimizer)
        self._owned = [
            optimizer.register_step_pre_hook(self._on_pre), optimizer.register_step_post_hook(self._on_post)
        ]  # fmt: skip
        if interval == 1 or self._due(0):
            self._watch()

    def close(self) -> None:
        """Take every hook off."""
        for handle in (*self._owned, *self._handles):
            handle.remove()
        self._owned, self._handles = [], []

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warnings(self) -> list[str]:
        """What the last sample says is off, in words."""
        return list(_warned(self.history[-1])) if self.history else []

    # Hooks.

    def _due(self, step: int) -> bool:
        return step % self.interval == 0

    def _watch(self) -> None:
        """Look at the next forward."""
        if not self.activations:
            return
        for name, module in self.modules:
            self._handles.append(module.register_forward_hook(self._looker(name)))

    def _looker(self, name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and torch.is_grad_enabled():
                self._seen[name] = rms(output)

        return look

    def _on_pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._due(self.step):
            with torch.no_grad():
                self._before = {n: p.detach().clone() for n, p in self.parameters.items() if p.grad is not None}

    def _on_post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._before:
            with torch.no_grad():
                self._sample(optimizer)
            for handle in self._handles:
                handle.remove()
            self._handles, self._before, self._seen = [], {}, {}
        self.step += 1
        if self._due(self.step):
            self._watch()

    def _sample(self, optimizer: torch.optim.Optimizer) -> None:
        """Everything on the device first, then one transfer."""
        found: dict[str, Tensor] = {f"activation/{n}": v for n, v in self._seen.items()}
        moved = {n: self.parameters[n].detach() - before for n, before in self._before.items()}
        groups = dict(_groups(optimizer))
        for name, before in self._before.items():
            p = self.parameters[name]
            found[f"weight/{name}"] = rms(before)
            found[f"update/{name}"] = rms(moved[name]) / rms(before).clamp_min(1e-30)
            found[f"step/{name}"] = rms(moved[name])
            if p.grad is not None:
                found[f"grad/{name}"] = rms(p.grad)
            state, group = optimizer.state.get(p, {}), groups.get(id(p), {})
            if "exp_avg_sq" in state and isinstance(group.get("eps"), float) and "betas" in group:
                found[f"eps/{name}"] = eps_share(state["exp_avg_sq"], group["eps"], _correction(state, group))
        matrices = {n: b for n, b in self._before.items() if as_matrix(b).ndim >= 2}
        found |= {f"sigma/{n}": v for n, v in top_singular(matrices).items()}
        found |= {f"sigma_update/{n}": v for n, v in top_singular({n: moved[n] for n in matrices}).items()}
        sample = _fetched(found)
        for name, matrix in matrices.items():
            for kind in ("sigma", "sigma_update"):
                key = f"{kind}/{name}"
                sample[key] = spectral_scale(sample[key], as_matrix(matrix).shape)
        for name in self._before:
            group, step = groups.get(id(self.parameters[name]), {}), sample.pop(f"step/{name}")
            rest = equilibrium(step, float(group.get("lr", 0.0)), float(group.get("weight_decay") or 0.0))
            if rest:
                sample[f"equilibrium/{name}"] = sample[f"weight/{name}"] / rest
        self.history.append(sample)
        del self.history[: -self.keep]
        if self.sink is not None:
            self.sink(self.step, sample)


def _sink(given: Any) -> Sink | None:
    if given is None or not hasattr(given, "add_scalar"):
        return given  # type: ignore[no-any-return]

    def write(step: int, sample: dict[str, float]) -> None:
        for key, value in sample.items():
            given.add_scalar(f"mupc/{key}", value, step)

    return write


def _groups(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, dict[str, Any]]]:
    for group in optimizer.param_groups:
        for p in group["params"]:
            yield id(p), group


def _correction(state: Mapping[str, Any], group: Mapping[str, Any]) -> float:
    """1 - beta2^t, by which Adam divides its second moment."""
    step = state.get("step", 1)
    t = float(step) if not isinstance(step, Tensor) or step.device.type == "cpu" else 1e9
    return float(1 - group["betas"][1] ** max(t, 1.0))


def _fetched(found: Mapping[str, Tensor]) -> dict[str, float]:
    """One transfer for all."""
    if not found:
        return {}
    values = [v.to_local() if hasattr(v, "to_local") else v for v in found.values()]
    device = values[0].device
    return dict(zip(found, torch.stack([v.float().to(device) for v in values]).tolist(), strict=True))


def _warned(sample: Mapping[str, float]) -> Iterator[str]:
    for key, value in sample.items():
        kind, _, name = key.partition("/")
        if kind == "update" and sample.get(f"weight/{name}", 0.0) > 0:
            if value > LARGE:
                yield f"{name}: one step moves it by {value:.2g} of its size"
            elif value < SMALL:
                yield f"{name}: one step moves it by {value:.2g} of its size: it has all but stopped"
        elif kind == "eps" and value > SHARE:
            yield f"{name}: eps is larger than the gradient in {value:.0%} of its entries"
