"""Real optimizers for a rule's name: torch's own, else pytorch_optimizer's where that is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mupc.check.scene import Knobs
from mupc.check.step import direction
from mupc.errors import MupcError
from mupc.rulebase import Optimizer

TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}), "adam": ("Adam", {}), "adamw": ("AdamW", {"weight_decay": 0.0}), "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}), "adagrad": ("Adagrad", {}), "rmsprop": ("RMSprop", {}), "adafactor": ("Adafactor", {}),
}  # fmt: skip
OTHERS = {"adopt": "ADOPT", "lion": "Lion", "lamb": "Lamb", "soap": "SOAP", "shampoo": "ScalableShampoo"}


class Muon(torch.optim.Optimizer):
    """Jordan's update with an exact orthogonal factor, for tensors of any number of axes and any named scaling."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                kept = self.state[p].setdefault("momentum", torch.zeros_like(p))
                kept.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(kept, group["momentum"])
                p.sub_(group["lr"] * direction(group["rule"], ahead, p, group["words"]))


class Several:
    """Optimizers that step together."""

    def __init__(self, each: list[torch.optim.Optimizer]) -> None:
        self.each = each

    def step(self) -> None:
        for one in self.each:
            one.step()

    def zero_grad(self) -> None:
        for one in self.each:
            one.zero_grad()


def optimizer_of(parameters: Mapping[str, Tensor], knobs: Mapping[str, Knobs], lr: float) -> Several:
    """One for each rule; every tensor in a group of its own rate and eps. No decay: it moves no feature by itself.

    Raises `MupcError` for a rule that neither torch nor an installed pytorch_optimizer has.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    rules: dict[str, Optimizer] = {}
    for name, k in knobs.items():
        if name in parameters and parameters[name].requires_grad:
            rules[k.rule.name] = k.rule
            group = {"params": [parameters[name]], "lr": lr * k.lr, "eps": k.eps, "rule": k.rule, "words": k.words}
            groups.setdefault(k.rule.name, []).append(group)
    return Several([_one(rules[name], found, lr) for name, found in groups.items()])


def _one(rule: Optimizer, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    if rule.family == "muon" and rule.name not in OTHERS:
        return Muon(groups, lr)
    made, more = _class(rule.name)
    plain = [{"params": g["params"], "lr": g["lr"]} for g in groups]
    found: torch.optim.Optimizer = made(plain, lr=lr, **more)
    for group, given in zip(found.param_groups, groups, strict=True):
        if isinstance(group.get("eps"), float):
            group["eps"] *= given["eps"]
    return found


def _class(name: str) -> tuple[Any, dict[str, Any]]:
    if name in TORCH:
        kind, more = TORCH[name]
        return getattr(torch.optim, kind), more
    if name in OTHERS:
        try:
            return getattr(importlib.import_module("pytorch_optimizer"), OTHERS[name]), {}
        except ImportError as error:
            raise MupcError(f"training with {name} needs pytorch_optimizer: pip install pytorch_optimizer") from error
    raise MupcError(f"{name} cannot be trained with here; those that can: {', '.join((*TORCH, 'muon', *OTHERS))}")
