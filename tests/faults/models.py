"""Models as people write them, with a knob for each mistake of parametrization that is planted in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCAB, BASE = 32, 32


class Block(nn.Module):
    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.k, self.heads = k, 2 if k.get("few_heads") else width // 16
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, key, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.ln1(x)).chunk(3, -1))
        scores = q @ key.mT
        scores = scores * self.k.get("attention", lambda d, w: d**-0.5)(key.size(-1), x.size(-1))
        y = scores.softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        branch = self.down(F.gelu(self.up(self.ln2(x))))
        return x + branch * self.k.get("branch", lambda w: 1.0)(x.size(-1))


class GPT(nn.Module):
    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.k = k
        self.wte, self.wpe = nn.Embedding(VOCAB, width), nn.Embedding(8, width)
        self.blocks = nn.ModuleList(Block(width, k) for _ in range(2))
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, VOCAB, bias=False)
        if k.get("tied"):
            self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) * self.k.get("embed", lambda w: 1.0)(self.wte.embedding_dim)
        x = x + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        x = self.ln(x)
        return self.head(x) * self.k.get("readout", lambda w: 1.0)(x.size(-1))


class MLP(nn.Module):
    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.k = k
        self.first, self.hidden, self.last = nn.Linear(12, width), nn.Linear(width, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.hidden(x))
        if self.k.get("normalize"):
            x = F.normalize(x, dim=-1) * self.k["normalize"](x.size(-1))
        return self.last(x)


class Conv(nn.Module):
    """Patches, a depthwise and a pointwise layer, squeeze and excite."""

    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.k = k
        self.patch = nn.Conv2d(3, width, 2, stride=2)
        self.deep, self.point = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1)
        self.squeeze, self.excite = nn.Linear(width, width // 8), nn.Linear(width // 8, width)
        self.last = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.patch(x))
        x = torch.relu(self.point(torch.relu(self.deep(x))))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        x = x * gate[:, :, None, None]
        return self.last(x.mean((2, 3)))


class Towers(nn.Module):
    """Two encoders and the product of what they make."""

    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.k = k
        self.left, self.right = nn.Linear(12, width), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.left(x)), torch.relu(self.right(x.flip(0)))
        return (a @ b.mT) * self.k.get("product", lambda w: 1 / w)(a.size(-1))


class Pool(nn.Module):
    """A feature that is pooled over the channels joins the others."""

    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.k = k
        self.first, self.hidden, self.last = nn.Linear(12, width), nn.Linear(width, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        pooled = x.sum(-1, keepdim=True) if self.k.get("sum") else x.mean(-1, keepdim=True)
        return self.last(torch.relu(self.hidden(x) + pooled))


class MoE(nn.Module):
    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, width), nn.Linear(width, 8)
        self.router = nn.Linear(width, 4, bias=False)
        self.up = nn.Parameter(torch.randn(4, width, 2 * width))
        self.down = nn.Parameter(torch.randn(4, 2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        gates = self.router(x).softmax(-1)
        h = torch.relu(torch.einsum("bi,eio->beo", x, self.up))
        y = torch.einsum("beo,eoi->bei", h, self.down)
        return self.last(x + (y * gates.unsqueeze(-1)).sum(1))


class LoRA(nn.Module):
    def __init__(self, width: int, k: dict[str, Any]) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(12, width), nn.Linear(width, width), nn.Linear(width, 8)
        self.a, self.b = nn.Parameter(torch.randn(4, width)), nn.Parameter(torch.randn(width, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.hidden(x) + x @ self.a.T @ self.b.T)
        return self.last(x)


class Looped(nn.Module):
    """One block, met again and again."""

    def __init__(self, width: int, k: dict[str, Any], n_loops: int = 2) -> None:
        super().__init__()
        self.k, self.n_loops = k, n_loops
        self.first, self.norm, self.hidden = nn.Linear(12, width), nn.LayerNorm(width), nn.Linear(width, width)
        self.last = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.n_loops):
            x = x + torch.relu(self.hidden(self.norm(x))) * self.k.get("loop", lambda n: 1 / n)(self.n_loops)
        return self.last(x)


INPUTS: dict[type[nn.Module], Callable[[], Tensor]] = {
    GPT: lambda: torch.randint(VOCAB, (8, 8)),
    Conv: lambda: torch.randn(8, 3, 8, 8),
    **dict.fromkeys((MLP, Towers, Pool, MoE, LoRA, Looped), lambda: torch.randn(16, 12)),
}

INPUT = ("wte", "wpe", "first", "patch", "left", "right", "b")
OUTPUT = ("head", "last", "router", "a")


def role(name: str, tensor: Tensor) -> str:
    """As a hand-written recipe has it: by name."""
    if tensor.ndim < 2 or name.startswith("deep"):
        return "vector"
    top = name.split(".")[0]
    if top in OUTPUT:
        return "output"
    return "input" if top in INPUT else "hidden"


def set_up(
    kind: type[nn.Module], width: int, *, optimizer: str = "adamw", knobs: dict[str, Any] | None = None,
    std: dict[str, Callable[[float], float]] | None = None, lr: dict[str, Callable[[float], float]] | None = None,
    decay: Callable[[float, float], float] = lambda m, rate: 0.1 / rate, eps: Callable[[float], float] | None = None,
    sizes: dict[str, int] | None = None,
) -> tuple[nn.Module, torch.optim.Optimizer]:  # fmt: skip
    """muP by hand (TP5, Table 3), m = width / BASE; `std` and `lr` override by parameter name or role."""
    model, m = kind(width, dict(knobs or {}), **(sizes or {})), width / BASE
    rates: dict[str, Callable[[float], float]] = (
        {"input": lambda m: 1.0, "vector": lambda m: 1.0, "hidden": lambda m: 1 / m, "output": lambda m: 1 / m}
        if optimizer == "adamw"
        else {"input": lambda m: m, "vector": lambda m: m, "hidden": lambda m: 1.0, "output": lambda m: 1 / m}
    )
    if optimizer == "muon":
        rates |= {"hidden": lambda m: 1.0}
    stds: dict[str, Callable[[float], float]] = {
        "input": lambda m: 0.5, "hidden": lambda m: 0.2 / math.sqrt(m), "output": lambda m: 0.2 / m,
    }  # fmt: skip
    groups = []
    for name, tensor in model.named_parameters():
        kind_of = role(name, tensor)
        for key, value in (std or {}).items():
            if key in (name, kind_of):
                stds = stds | {name: value}
        draw = stds.get(name, stds.get(kind_of))
        if draw is not None:
            nn.init.normal_(tensor, std=draw(m))
        rate = next((f for key, f in (lr or {}).items() if key in (name, kind_of)), rates[kind_of])(m)
        if kind_of == "vector" and "output" in name:
            rate = 1.0
        group: dict[str, Any] = {"params": [tensor], "lr": 0.01 * rate, "name": name, "role": kind_of}
        if optimizer == "adamw":
            small = 1.0 if kind_of == "output" else 1 / m
            group |= {"weight_decay": decay(m, rate), "eps": 1e-8 * (eps(m) if eps else small)}
        groups.append(group)
    if optimizer == "sgd":
        return model, torch.optim.SGD(groups, lr=0.01)
    return model, torch.optim.AdamW(groups, lr=0.01)
