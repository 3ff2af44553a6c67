"""Set-ups as people write them: a small GPT under the standard recipe, under muP by hand, and with one mistake each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCAB, HEAD, BASE = 64, 16, 64


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = (t.unflatten(-1, (-1, HEAD)).transpose(1, 2) for t in self.qkv(self.ln1(x)).chunk(3, -1))
        x = x + self.proj(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    """`output` multiplies what goes into the readout, as nanoGPT-mup does."""

    def __init__(self, width: int, depth: int = 2, tied: bool = False, output: float = 1.0) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCAB, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCAB, bias=False)
        self.output = output
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x) * self.output)


def matrices(model: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in model.named_parameters() if p.ndim == 2 and "wte" not in n}


def draw(model: GPT, std: dict[str, float]) -> GPT:
    for name, tensor in model.named_parameters():
        if tensor.ndim == 2:
            nn.init.normal_(tensor, std=next(v for key, v in std.items() if key in name))
    return model


def standard(width: int = 128, depth: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """One std, one rate."""
    model = draw(GPT(width, depth), {"": 0.02})
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def mup_groups(model: nn.Module, m: float, lr: float = 1e-2, names: str = "") -> list[dict[str, object]]:
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "wte" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "wte" in n]
    blocks = [p for n, p in model.named_parameters() if p.ndim == 2 and "wte" not in n and "head" not in n]
    head = [p for p in hidden if all(p is not q for q in blocks)]
    return [
        {"params": blocks, "lr": lr / m, "weight_decay": 0.1 * m, "eps": 1e-8 / m},
        {"params": head, "lr": lr / m, "weight_decay": 0.1 * m, "eps": 1e-8},
        {"params": rest, "lr": lr, "weight_decay": 0.1, "eps": 1e-8 / m},
    ]


def mup(width: int = 128, depth: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """muP by hand, Table 3."""
    m = width / BASE
    model = draw(GPT(width, depth), {"wte": 0.02, "head": 0.02 / m, "": 0.02 / math.sqrt(m)})
    return model, torch.optim.AdamW(mup_groups(model, m))


def mup_table8(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """muP by hand with a readout multiplier: Table 8."""
    m = width / BASE
    model = draw(GPT(width, output=1 / m), {"wte": 0.02, "head": 0.02, "": 0.02 / math.sqrt(m)})
    groups = mup_groups(model, m)
    groups[1] |= {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8 / m}
    return model, torch.optim.AdamW(groups)


def tied(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A tied embedding with the readout's multiplier."""
    m = width / BASE
    model = draw(GPT(width, tied=True, output=1 / m), {"wte": 0.02, "": 0.02 / math.sqrt(m)})
    return model, torch.optim.AdamW([g for g in mup_groups(model, m) if g["params"]])


def tied_without_multiplier(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    m = width / BASE
    model = draw(GPT(width, tied=True), {"wte": 0.02, "": 0.02 / math.sqrt(m)})
    return model, torch.optim.AdamW([g for g in mup_groups(model, m) if g["params"]])


def readout_forgotten(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """muP, but the readout's init shrinks as a hidden matrix's."""
    m = width / BASE
    model = draw(GPT(width), {"wte": 0.02, "": 0.02 / math.sqrt(m)})
    return model, torch.optim.AdamW(mup_groups(model, m))


def twice_scaled(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """muP's readout, in init and in a multiplier as well."""
    m = width / BASE
    model = draw(GPT(width, output=1 / m), {"wte": 0.02, "head": 0.02 / m, "": 0.02 / math.sqrt(m)})
    return model, torch.optim.AdamW(mup_groups(model, m))


def no_optimizer(width: int = 128) -> nn.Module:
    return standard(width)[0]


def configure(model: nn.Module) -> torch.optim.Optimizer:
    """For --optimizer-config: one rate."""
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def example_inputs() -> Tensor:
    return torch.zeros(2, 8, dtype=torch.long)


def torch_default(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What torch draws, and one rate."""
    model = GPT(width)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def strange_optimizer(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = standard(width)[0]
    return model, torch.optim.Rprop(model.parameters(), lr=1e-3)


def head_forgotten(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = standard(width)[0]
    return model, torch.optim.AdamW([p for n, p in model.named_parameters() if "head" not in n], lr=1e-3)


def either(width: int = 128) -> nn.Module:
    """Two kinds of model by size: nothing corresponds."""
    narrow = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
    return narrow if width < 100 else GPT(width)


class DeepGPT(GPT):
    """Every branch is multiplied by a number."""

    def __init__(self, width: int, depth: int, branch: float) -> None:
        super().__init__(width, depth)
        for block in self.blocks:
            block.branch = branch
            block.forward = scaled_forward.__get__(block)  # type: ignore[method-assign]


def scaled_forward(self: Block, x: Tensor) -> Tensor:
    heads = (t.unflatten(-1, (-1, HEAD)).transpose(1, 2) for t in self.qkv(self.ln1(x)).chunk(3, -1))
    mixed = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
    x = x + self.proj(mixed) * self.branch
    return x + self.down(F.gelu(self.up(self.ln2(x)))) * self.branch


def completep(width: int = 128, depth: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    """CompleteP by hand: muP in width, branches and their eps over the depth."""
    m, deep = width / BASE, depth / 2
    model = draw(DeepGPT(width, depth, 1 / deep), {"wte": 0.02, "head": 0.02 / m, "": 0.02 / math.sqrt(m)})
    named = dict(model.named_parameters())
    kinds = {
        "matrix": [p for n, p in named.items() if p.ndim == 2 and "blocks" in n],
        "vector": [p for n, p in named.items() if p.ndim == 1 and "blocks" in n],
        "head": [named["head.weight"]],
        "rest": [p for n, p in named.items() if "blocks" not in n and "head" not in n],
    }
    settings = {
        "matrix": {"lr": 1e-2 / m, "weight_decay": 0.1 * m, "eps": 1e-8 / m / deep},
        "vector": {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8 / m / deep},
        "head": {"lr": 1e-2 / m, "weight_decay": 0.1 * m, "eps": 1e-8},
        "rest": {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8 / m},
    }
    return model, torch.optim.AdamW([{"params": kinds[k], **settings[k]} for k in kinds])


class UnitGPT(GPT):
    """u-muP by hand: every weight starts at one, ops carry the scale."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        for block in self.blocks:
            heads = block.qkv(block.ln1(x)) * block.qkv.in_features**-0.5
            q, k, v = (t.unflatten(-1, (-1, HEAD)).transpose(1, 2) for t in heads.chunk(3, -1))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + block.proj(mixed) * block.proj.in_features**-0.5
            up = block.up(block.ln2(x)) * block.up.in_features**-0.5
            x = x + block.down(F.gelu(up)) * block.down.in_features**-0.5
        return self.head(self.ln(x)) / self.head.in_features


def umup(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = draw(UnitGPT(width), {"": 1.0})
    rates = {n: 1.0 if p.ndim == 1 or "head" in n else p.shape[1] ** -0.5 for n, p in model.named_parameters()}
    return model, torch.optim.AdamW([{"params": [p], "lr": 0.1 * rates[n]} for n, p in model.named_parameters()])


def everett_standard(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The standard init with per-layer rates."""
    model = GPT(width)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "wte" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "wte" in n]
    return model, torch.optim.AdamW([{"params": hidden, "lr": 1.0 / width}, {"params": rest, "lr": 1e-2}])


class Plain(nn.Module):
    def __init__(self, width: int, multiplier: float = 1.0) -> None:
        super().__init__()
        self.enter, self.hidden = nn.Linear(16, width, bias=False), nn.Linear(width, width, bias=False)
        self.head, self.multiplier = nn.Linear(width, 8, bias=False), multiplier

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(torch.tanh(self.enter(x))))) * self.multiplier


def sgd_standard(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Plain(width)
    nn.init.normal_(model.enter.weight, std=0.25)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def sgd_kernel(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, _ = sgd_standard(width)
    return model, torch.optim.SGD(model.parameters(), lr=0.1 * BASE / width)


def sgd_mup(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    m = width / BASE
    model = Plain(width, 1 / m)
    nn.init.normal_(model.enter.weight, std=0.25)
    nn.init.normal_(model.head.weight, std=0.25)
    rates = ((model.enter, m), (model.hidden, 1.0), (model.head, m))
    return model, torch.optim.SGD([{"params": layer.parameters(), "lr": 0.1 * by} for layer, by in rates])
