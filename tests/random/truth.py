"""What a random model's parameters are, without looking at its graph: two builds, and the modules' own kinds."""

from __future__ import annotations

import torch
from torch import nn

from mupc.analysis import Analysis, analyze
from tests.random.models import Random, Recipe, inputs

Growth = tuple[bool, ...]


def built(recipe: Recipe, times: int = 1) -> Random:
    with torch.device("meta"):
        return Random(recipe, recipe.width * times)


def growth(recipe: Recipe) -> dict[str, Growth]:
    """Which axes are longer where the width is twice as large."""
    wide = dict(built(recipe, 2).named_parameters(remove_duplicate=False))
    small = built(recipe).named_parameters(remove_duplicate=False)
    return {name: tuple(n != m for n, m in zip(p.shape, wide[name].shape, strict=True)) for name, p in small}


def roles(model: nn.Module, grown: dict[str, Growth]) -> dict[str, str]:
    """The role of every parameter whose module says which of its axes are in and out."""
    out = {}
    for path, module in model.named_modules():
        for short, _ in module.named_parameters(recurse=False):
            name = f"{path}.{short}" if path else short
            role = role_of(module, short, grown[name])
            if role is not None:
                out[name] = role
    return out


def role_of(module: nn.Module, short: str, grown: Growth) -> str | None:
    if not any(grown):
        return "scalar"
    if isinstance(module, nn.Embedding):
        return "input"
    if len(grown) == 1 and (short == "bias" or isinstance(module, (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d))):
        return "vector"
    if short != "weight" or not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)):
        return None
    out, into = (grown[1], grown[0]) if isinstance(module, nn.ConvTranspose1d) else (grown[0], grown[1])
    groups = getattr(module, "groups", 1)
    if groups > 2 and module.weight.shape[1] == 1:
        return "vector"
    return "hidden" if out and into else "output" if into else "input"


def tied(model: nn.Module) -> set[str]:
    once = {name for name, _ in model.named_parameters()}
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    return (
        {n for group in names.values() if len(group) > 1 for n in group} | (names.keys() and set()) if once else set()
    )


def examined(recipe: Recipe) -> Analysis:
    return analyze(built(recipe), inputs(recipe))


def wrong(recipe: Recipe, found: Analysis) -> list[str]:
    """Parameters whose verdict is neither the truth nor unknown, one line each."""
    grown, model = growth(recipe), built(recipe)
    expected, shared = roles(model, grown), tied(model)
    out = []
    for name, axes in grown.items():
        p = found.parameters[name]
        if p.role == "unknown":
            continue
        if p.role == "unused":
            out.append(f"{name} {p.shape}: unused")
        elif p.infinite != axes:
            out.append(f"{name} {p.shape}: grows {p.infinite}, but {axes}: {'; '.join(p.why)}")
        elif name in expected and name not in shared and p.role != expected[name]:
            out.append(f"{name} {p.shape}: {p.role}, but {expected[name]}: {'; '.join(p.why)}")
    return out


def unknown(found: Analysis) -> list[str]:
    return [name for name, p in found.parameters.items() if p.role == "unknown"]
