"""Readouts that are not a Linear at the end, and models that return more than a tensor."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from tests.traps.trap import FRAME, C, D, F, LanguageModel, V, ids, image, sequence, trap, vectors

BODY = """
    inp.weight   input   n.
    inp.bias     vector  n
    mid.weight   hidden  nn
    mid.bias     vector  n
"""


class Body(nn.Module):
    def __init__(self, features: int = 16) -> None:
        super().__init__()
        self.inp, self.mid = nn.Linear(features, D), nn.Linear(D, F)

    def features(self, x: Tensor) -> Tensor:
        return nnf.relu(self.mid(nnf.relu(self.inp(x))))


@trap(
    image,
    """
    0.weight  input   n...
    0.bias    vector  n
    2.weight  hidden  nn..
    2.bias    vector  n
    4.weight  output  .n..   # 1x1 conv to class maps
    4.bias    scalar  .
    """,
)
class ConvReadout(nn.Sequential):
    def __init__(self) -> None:
        convs = nn.Conv2d(3, D, 3, padding=1), nn.Conv2d(D, F, 3, padding=1), nn.Conv2d(F, C, 1)
        super().__init__(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])


@trap(vectors, BODY + "w  output  n.")
class BareReadout(Body):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(F, C))

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.w


class Conv1D(nn.Module):
    """GPT-2's linear: the weight is (in, out)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(n_in, n_out)), nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(*x.size()[:-1], self.weight.size(1))


@trap(
    sequence,
    """
    0.weight  input   .n   # (in, out)
    2.weight  hidden  nn
    4.weight  output  n.
    4.bias    scalar  .
    *.bias    vector  n
    """,
)
class Transposed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(Conv1D(16, D), nn.ReLU(), Conv1D(D, F), nn.ReLU(), Conv1D(F, C))


HEAD = """
    head.weight  output  .n
    head.bias    scalar  .
"""


class WithHead(Body):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(F, C)


@trap(vectors, BODY + HEAD)
class ReturnsDict(WithHead):
    """The hidden state comes first; what is named logits ends the network."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.features(x)
        return {"hidden": h, "logits": self.head(h)}


@trap(vectors, BODY + HEAD)
class ReturnsTuple(WithHead):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        first = self.inp(x)
        h = nnf.relu(self.mid(nnf.relu(first)))
        return self.head(h), (first, h)


@dataclass
class Output:
    logits: Tensor
    features: Tensor | None = None
    loss: Tensor | None = None


@trap(vectors, BODY + HEAD)
class ReturnsDataclass(WithHead):
    def forward(self, x: Tensor) -> Output:
        h = self.features(x)
        return Output(logits=self.head(h), features=h)


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As transformers' own: a dict whose items are attributes too."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


@trap(vectors, BODY + HEAD)
class ReturnsModelOutput(WithHead):
    def forward(self, x: Tensor) -> ModelOutput:
        h = self.features(x)
        return ModelOutput(logits=self.head(h), last_hidden_state=h)


@trap(
    lambda: {"tokens": ids(), "mask": torch.ones(2, 7, dtype=torch.bool)},
    """
    wte.weight  input   .n
    mid.weight  hidden  nn
    mid.bias    vector  n
    out.weight  output  .n
    out.bias    scalar  .
    """,
)
class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.mid, self.out = nn.Embedding(V, D), nn.Linear(D, F), nn.Linear(F, C)

    def forward(self, *, tokens: Tensor, mask: Tensor) -> Tensor:
        x = nnf.relu(self.mid(self.wte(tokens)))
        weight = mask.unsqueeze(-1).to(x.dtype)
        return self.out((x * weight).sum(1) / weight.sum(1))


@trap(vectors, BODY + HEAD + "value.weight  output  .n\nvalue.bias  scalar  .")
class ValueHead(WithHead):
    """A head of size 1: its axis is no dim."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(F, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.head(h), self.value(h).squeeze(-1)


@trap(
    lambda: (vectors(16), vectors(12)),
    """
    a.weight        input   n.
    b.weight        input   n.
    ?.bias          vector  n
    bilinear.weight output  .nn   # contracts two widths
    bilinear.bias   scalar  .
    """,
)
class BilinearReadout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bilinear = nn.Linear(16, D), nn.Linear(12, F), nn.Bilinear(D, F, C)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.bilinear(nnf.relu(self.a(x)), nnf.relu(self.b(y)))


@trap(
    lambda: (vectors(16), vectors(12)),
    """
    *.0.weight  input   n.
    *.2.weight  hidden  nn   # the axis that the dot product contracts is split by nothing, so it grows
    *.bias      vector  n
    logit_scale scalar
    """,
)
class DotProductTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(16, D), nn.ReLU(), nn.Linear(D, 32))
        self.b = nn.Sequential(nn.Linear(12, F), nn.ReLU(), nn.Linear(F, 32))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b = nnf.normalize(self.a(x), dim=-1), nnf.normalize(self.b(y), dim=-1)
        return a @ b.t() * self.logit_scale.exp()


@trap(ids, FRAME + "block.*.weight  hidden  nn\nblock.*.bias  vector  n")
class MeanPooled(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(D, F), nn.Tanh(), nn.Linear(F, D)))

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx)
        return self.head(self.norm((x + self.block(x)).mean(dim=1)))
