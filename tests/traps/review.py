"""What a first outside reader found wrong, in a few lines each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.traps.trap import B, C, D, F, T, V, ids, sequence, trap


@trap(
    ids,
    """
    wte.weight   input   .n   # no residual, a readout wider than the width: still no factorization
    up.weight    hidden  nn
    up.bias      vector  n
    cell.weight  hidden  nn
    cell.bias    vector  n
    head.weight  output  .n
    head.bias    scalar  .
    """,
)
class NarrowerThanReadout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.up, self.cell = nn.Embedding(V, D), nn.Linear(D, F), nn.Linear(F, D)
        self.head = nn.Linear(D, V)

    def forward(self, idx: Tensor) -> Tensor:
        h = torch.tanh(self.wte(idx))
        for _ in range(2):
            h = self.cell(nnf.gelu(self.up(torch.tanh(h))))
        return self.head(h)


@trap(
    lambda: torch.zeros(B, C),
    """
    into.weight  input   n.   # reads its own outputs
    into.bias    vector  n
    mid.weight   hidden  nn
    mid.bias     vector  n
    out.weight   output  .n
    out.bias     scalar  .
    """,
)
class FedBack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.mid, self.out = nn.Linear(C, D), nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.out(torch.relu(self.mid(torch.relu(self.into(x.softmax(-1))))))
        return x


@trap(
    sequence,
    """
    into.weight  input   n.
    into.bias    vector  n
    log_a        vector  n.   # a state per channel (S4D): fixed
    c            vector  n.
    d            vector  n
    out.weight   output  .n
    out.bias     scalar  .
    """,
)
class DiagonalState(nn.Module):
    def __init__(self, state: int = 6) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(16, D), nn.Linear(D, C)
        self.log_a, self.c = nn.Parameter(torch.zeros(D, state)), nn.Parameter(torch.zeros(D, state))
        self.d = nn.Parameter(torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).transpose(1, 2)
        t = torch.arange(T, device=x.device)
        kernel = torch.einsum("hn,hnl->hl", self.c, torch.exp(-torch.exp(self.log_a).unsqueeze(-1) * t))
        y = torch.fft.irfft(torch.fft.rfft(x, n=2 * T) * torch.fft.rfft(kernel, n=2 * T), n=2 * T)[..., :T]
        return self.out(nnf.gelu(y + x * self.d.unsqueeze(-1)).transpose(1, 2))


@trap(
    sequence,
    """
    into.weight  input   n.
    into.bias    vector  n
    queries      output  .n   # a fixed number of learned queries, attended over later
    mix.weight   hidden  nn
    mix.bias     vector  n
    out.weight   output  .n
    out.bias     scalar  .
    """,
)
class QueriesAttendedOver(nn.Module):
    def __init__(self, count: int = 5) -> None:
        super().__init__()
        self.into, self.mix, self.out = nn.Linear(16, D), nn.Linear(D, D), nn.Linear(D, C)
        self.queries = nn.Parameter(torch.zeros(count, D))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        merged = (self.queries @ x.transpose(1, 2)).softmax(-1) @ x
        merged = self.mix(merged)
        return self.out((merged @ merged.transpose(1, 2)).softmax(-1) @ merged)
