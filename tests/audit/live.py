"""Set-ups whose live state is easily misread: tags on tensors, schedules, options that make another optimizer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.audit.setups import BASE, GPT, VOCAB, draw, mup, mup_groups


class InfShape:
    """What microsoft/mup puts on a parameter."""

    def __init__(self, mult: float) -> None:
        self.mult = mult

    def width_mult(self) -> float:
        return self.mult


class TaggedReadout(nn.Linear):
    """microsoft/mup's MuReadout: reads the tag on its own weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / self.weight.infshape.width_mult())


class Tagged(GPT):
    def __init__(self, width: int, bias: bool = False) -> None:
        super().__init__(width)
        self.head = TaggedReadout(width, VOCAB, bias=bias)
        self.head.weight.infshape = InfShape(width / BASE)


def tagged(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """TP5's Table 8: the readout's 1/n is a multiplier, and its rate an input's."""
    m = width / BASE
    model = draw(Tagged(width), {"wte": 0.02, "head": 0.02, "": 0.02 / math.sqrt(m)})
    groups = mup_groups(model, m)
    groups[1] |= {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8 / m}
    return model, torch.optim.AdamW(groups)


def tagged_with_bias(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """What stands before the readout is no factor on its bias."""
    m = width / BASE
    model = draw(Tagged(width, bias=True), {"wte": 0.02, "head": 0.02, "": 0.02 / math.sqrt(m)})
    groups = mup_groups(model, m)
    groups[1] |= {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8 / m}
    bias = model.head.bias
    groups[2]["params"] = [p for p in groups[2]["params"] if p is not bias]
    groups.append({"params": [bias], "lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8})
    return model, torch.optim.AdamW(groups)


def warming(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer, object]:
    """One rate for all, from zero on, and the schedule beside it."""
    model = mup(width)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))


def zero_rate(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = mup(width)[0]
    return model, torch.optim.AdamW(model.parameters(), lr=0.0)


class ByHand(nn.Module):
    """Attention written out. `heads` heads at every width: head_dim grows."""

    def __init__(self, width: int, power: float, whole: bool, where: str = "scores") -> None:
        super().__init__()
        self.where = where
        self.wte, self.ln = nn.Embedding(VOCAB, width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.head = nn.Linear(width, VOCAB, bias=False)
        self.power, self.whole = power, whole

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids)
        h = self.ln(x)
        q, k, v = (layer(h).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scale = q.shape[-1] ** self.power
        if self.where != "scores":
            q, k = (q * scale, k) if self.where == "query" else (q, k * scale)
            y = (q @ k.mT).softmax(-1) @ v
        elif self.whole:
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
        else:
            y = ((q @ k.mT) * scale).softmax(-1) @ v
        return self.head(x + self.proj(y.transpose(1, 2).flatten(2)))


def _by_hand(width: int, power: float, whole: bool, where: str = "scores") -> tuple[nn.Module, torch.optim.Optimizer]:
    m = width / BASE
    model = ByHand(width, power, whole, where)
    for name, tensor in model.named_parameters():
        if tensor.ndim == 2:
            std = {"wte": 0.02, "head": 0.02 / m}.get(name.partition(".")[0], 0.02 / math.sqrt(m))
            nn.init.normal_(tensor, std=std)
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and n not in ("wte.weight", "head.weight")]
    rest = [model.wte.weight, *model.ln.parameters()]
    return model, torch.optim.AdamW([
        {"params": hidden, "lr": 1e-2 / m, "weight_decay": 0.1 * m, "eps": 1e-8 / m},
        {"params": [model.head.weight], "lr": 1e-2 / m, "weight_decay": 0.1 * m, "eps": 1e-8},
        {"params": rest, "lr": 1e-2, "weight_decay": 0.1, "eps": 1e-8 / m},
    ])  # fmt: skip


def by_hand(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    return _by_hand(width, -1, False)


def by_hand_over_root(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    return _by_hand(width, -0.5, False)


def on_query(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The scale stands on the query: it is no factor on the query's weight beside."""
    return _by_hand(width, -1, False, "query")


def on_key_over_root(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    return _by_hand(width, -0.5, False, "key")


def whole(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    return _by_hand(width, -1, True)


def whole_over_root(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    return _by_hand(width, -0.5, True)


def decoupled(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    """torch's Adam is AdamW by an option."""
    m = width / BASE
    return mup(width)[0], torch.optim.Adam(mup_groups(mup(width)[0], m), decoupled_weight_decay=True)


def decoupled_of_model(width: int = 128) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = mup(width)[0]
    return model, torch.optim.Adam(mup_groups(model, width / BASE), decoupled_weight_decay=True)


def like_adamw(width: int = 128) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """Muon as Moonshot scales it, which takes a root of the width back from its rate, and AdamW for the rest."""
    m = width / BASE
    model = mup(width)[0]
    hidden, head, rest = mup_groups(model, m)
    muon = torch.optim.Muon(
        hidden["params"], lr=1e-2 / m**0.5, weight_decay=0.1 * m**0.5, adjust_lr_fn="match_rms_adamw"
    )
    return model, [muon, torch.optim.AdamW([head, rest])]


def nothing(model: nn.Module) -> str:
    return "adamw"


def example_inputs() -> Tensor:
    return torch.zeros(2, 8, dtype=torch.long)
