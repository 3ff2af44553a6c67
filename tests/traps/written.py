"""Networks whose weights another network writes: whose width is fixed, and what only looks like it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.traps.trap import B, C, D, F, T, trap

M = 6  # the written network's width


def points() -> tuple[Tensor, Tensor]:
    return torch.zeros(B, 16), torch.zeros(B, T, 2)


@trap(
    points,
    """
    read.weight    input   n.
    read.bias      vector  n
    write.*.weight output  .n   # from features of the points (two sines, the points) to M, M to M, M to C
    write.*.bias   scalar  .
    """,
)
class WrittenFromFeatures(nn.Module):
    """All layers are written, also the first, which reads fixed features of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(16, D)
        self.register_buffer("bands", torch.zeros(5))
        self.shapes = ((2 * 5 + 2, M), (M, M), (M, C))
        self.write = nn.ModuleList(nn.Linear(D, a * b) for a, b in self.shapes)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        h = torch.relu(self.read(x))
        z = torch.cat([(where.unsqueeze(-1) * self.bands).flatten(-2).sin(), where], -1)
        for write, shape in zip(self.write, self.shapes, strict=True):
            z = torch.tanh(torch.bmm(z, write(h).view(-1, *shape)))
        return z


@trap(
    lambda: (torch.zeros(B, 16), torch.zeros(B, 12)),
    """
    into.weight   input   n.
    mid.weight    hidden  nn
    read.weight   input   n.
    write.weight  hidden  nn   # C x D: classes are data, so the width that it reads may grow
    *.bias        vector  n
    """,
)
class WrittenReadout(nn.Module):
    """Only the last layer is written; the features that it reads are made by weights like any other's."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.mid = nn.Linear(16, D), nn.Linear(D, F)
        self.read, self.write = nn.Linear(12, D), nn.Linear(D, C * F)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        h = torch.relu(self.mid(torch.relu(self.into(x))))
        weight = self.write(torch.relu(self.read(task))).view(-1, C, F)
        return torch.bmm(weight, h.unsqueeze(-1)).squeeze(-1)


@trap(
    points,
    """
    branch.0.weight  input   n.
    branch.2.weight  hidden  nn   # C solutions, each a product of its own with the trunk's features
    trunk.0.weight   input   n.
    trunk.2.weight   hidden  nn
    *.bias           vector  n
    """,
)
class SeveralSolutions(nn.Module):
    """A DeepONet with several outputs: the latent is contracted as in one with a single output."""

    def __init__(self, latent: int = 18) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(16, D), nn.ReLU(), nn.Linear(D, C * latent))
        self.trunk = nn.Sequential(nn.Linear(2, F), nn.ReLU(), nn.Linear(F, latent))

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        return torch.einsum("bcp,btp->btc", self.branch(x).unflatten(-1, (C, -1)), self.trunk(where))


@trap(
    points,
    """
    branch.0.weight  input   n.
    branch.2.weight  output  .n   # coefficients of a basis that is computed, not learned
    branch.2.bias    scalar  .
    branch.0.bias    vector  n
    """,
)
class FixedBasis(nn.Module):
    """A DeepONet whose trunk has no parameters."""

    def __init__(self, modes: int = 5) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(16, D), nn.ReLU(), nn.Linear(D, 2 * modes))
        self.register_buffer("bands", torch.zeros(modes))

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        basis = (where.unsqueeze(-1) * self.bands).sin().flatten(-2)
        return torch.einsum("bp,btp->bt", self.branch(x), basis)


@trap(
    points,
    """
    enter.weight  input   n.
    route.weight  hidden  nn   # what mixes a bank of matrices is a hidden layer like a hypernetwork's
    up.weight     hidden  nn   # a matrix between widths of the network itself, laid out flat: both of its sides grow
    down.weight   hidden  nn
    head.weight   output  .n
    head.bias     scalar  .
    *.bias        vector  n
    """,
)
class BankOfMatrices(nn.Module):
    """Each sample mixes matrices of its own (CondConv): D to F written, F to D plain."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.route = nn.Linear(16, D), nn.Linear(D, 4)
        self.up, self.down, self.head = nn.Linear(4, F * D, bias=False), nn.Linear(F, D), nn.Linear(D, C)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        h = torch.relu(self.enter(x))
        matrix = self.up(torch.sigmoid(self.route(h))).view(-1, F, D)
        h = h + self.down(torch.relu(torch.bmm(matrix, h.unsqueeze(-1)).squeeze(-1)))
        return self.head(h) + where.sum()
