"""What the sweep over public models found wrong, in a few lines each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.traps.trap import B, D, H, LanguageModel, T, V, ids, trap

HEAD = D // H


class ViewedAs(nn.Module):
    """The gate takes the shape of the value it multiplies from that value itself."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.gate, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D), nn.Linear(D, D)
        self.bias = nn.Parameter(torch.zeros(H))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.view(*x.shape[:2], H, HEAD).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()
        gate = self.gate(x).view_as(mixed) + self.bias[None, None, :, None]
        return self.out((mixed * gate.sigmoid()).flatten(2))


@trap(
    ids,
    """
    wte.weight      input   .n
    block.*.weight  hidden  nn
    block.bias      vector  n   # one to a head
    block.*.bias    vector  n
    norm.*          vector  n
    head.weight     output  .n
    """,
)
class GateViewedAs(LanguageModel):
    def __init__(self) -> None:
        super().__init__(ViewedAs())


@trap(
    lambda: {"idx": torch.zeros(B, T, dtype=torch.long), "patches": torch.zeros(4, 12)},
    """
    wte.weight      input   .n
    project.weight  input   n.  # makes rows of the stream
    project.bias    vector  n
    mix.weight      hidden  nn
    mix.bias        vector  n
    head.weight     output  .n
    head.bias       scalar  .
    """,
)
class RowsPlaced(nn.Module):
    """Image rows, a batch axis fewer, take the places of marked tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.project = nn.Embedding(V, D), nn.Linear(12, D)
        self.mix, self.head = nn.Linear(D, D), nn.Linear(D, V)

    def forward(self, idx: Tensor, patches: Tensor) -> Tensor:
        x = self.wte(idx)
        x = x.masked_scatter((idx == 3).unsqueeze(-1), self.project(patches))
        return self.head(x + self.mix(x))
