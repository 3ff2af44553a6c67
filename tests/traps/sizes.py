"""Sizes that are equal by accident, and weights that are used twice."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from tests.traps.trap import FRAME, B, C, D, F, LanguageModel, T, V, ids, sequence, trap, vectors


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


@trap(
    lambda: torch.zeros(B, T, dtype=torch.long),
    FRAME
    + """
    block.*.weight  hidden  nn   # only the embedding's rows and the logits are the vocabulary
    block.*.bias    vector  n
    """,
)
class VocabEqualsWidth(LanguageModel):
    def __init__(self) -> None:
        super().__init__(mlp(V, F), width=V)


@trap(
    ids,
    FRAME
    + """
    block.*.weight  hidden  nn
    block.*.bias    vector  n
    """,
)
class FeedForwardEqualsWidth(LanguageModel):
    def __init__(self) -> None:
        super().__init__(mlp(D, D))


@trap(
    lambda: vectors(D),
    """
    0.weight  input   n.   # (width, features): features are data, although as many
    0.bias    vector  n
    2.weight  hidden  nn
    2.bias    vector  n
    4.weight  output  .n   # (classes, width), as many classes as width
    4.bias    scalar  .
    """,
)
class DataEqualsWidth(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D), nn.ReLU(), nn.Linear(D, D)]
        super().__init__(*layers)


@trap(
    lambda: torch.zeros(B, D, dtype=torch.long),
    FRAME
    + """
    wpe.weight      input   .n   # as many positions as width
    block.*.weight  hidden  nn
    block.*.bias    vector  n
    """,
)
class LengthEqualsWidth(LanguageModel):
    def __init__(self) -> None:
        super().__init__(mlp(D, F))
        self.wpe = nn.Embedding(D, D)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        return self.head(self.norm(x + self.block(x)))


@trap(
    lambda: vectors(D),
    """
    up.weight    input   n.
    up.bias      vector  n
    block.weight hidden  nn   # met twice, hidden both times
    block.bias   vector  n
    head.weight  output  .n
    head.bias    scalar  .
    """,
)
class SharedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.block, self.head = nn.Linear(D, F), nn.Linear(F, F), nn.Linear(F, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        x = x + nnf.relu(self.block(x))
        return self.head(x + nnf.relu(self.block(x)))


@trap(
    lambda: vectors(16),
    """
    weight  input  n.   # (width, features): read forwards as an input, backwards as an output
    up      vector  n
    down    scalar  .
    """,
)
class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(D, 16))
        self.up, self.down = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        return nnf.linear(nnf.relu(nnf.linear(x, self.weight, self.up)), self.weight.t(), self.down)


@trap(
    ids,
    """
    wte.weight      input   .n
    head.weight     input   .n   # the same tensor
    block.*.weight  hidden  nn
    block.*.bias    vector  n
    norm.weight     vector  n
    """,
)
class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
        self.head.weight = self.wte.weight
        self.block, self.norm = mlp(D, F), nn.RMSNorm(D)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx) * D**0.5
        return self.head(self.norm(x + self.block(x)))


@trap(
    lambda: sequence(),
    """
    inp.weight      input   n.
    inp.bias        vector  n
    cell.*.weight   hidden  nn   # one attribute, called in a loop
    cell.*.bias     vector  n
    out.weight      output  .n
    out.bias        scalar  .
    """,
)
class CalledInALoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.cell, self.out = nn.Linear(16, D), mlp(D, F), nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for _ in range(3):
            x = x + self.cell(x)
        return self.out(x.mean(1))
