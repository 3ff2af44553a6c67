"""What random models found: each trap is the smallest model of a kind that once got a wrong verdict."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.traps.attention import HD, attend
from tests.traps.trap import FRAME, B, C, D, F, LanguageModel, T, V, ids, image, sequence, trap


class Copies(nn.Module):
    """A layer of hyper-connections: copies of the stream are mixed, read and written by weights of their own."""

    def __init__(self, count: int = 3, dynamic: bool = False) -> None:
        super().__init__()
        self.read, self.write = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.zeros(count))
        self.mix, self.fc = nn.Parameter(torch.zeros(count, count)), nn.Linear(D, D)
        self.depends = nn.Linear(D, count, bias=False) if dynamic else None

    def forward(self, streams: Tensor) -> Tensor:
        into = torch.einsum("n,btnd->btd", self.read, streams)
        write = self.write if self.depends is None else self.write + torch.tanh(self.depends(into))
        y = nnf.gelu(self.fc(into))
        return torch.einsum("nm,btnd->btmd", self.mix, streams) + write.unsqueeze(-1) * y.unsqueeze(2)


class HyperFrame(nn.Module):
    def __init__(self, dynamic: bool = False) -> None:
        super().__init__()
        self.wte, self.head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
        self.layers = nn.ModuleList(Copies(dynamic=dynamic) for _ in range(3))

    def forward(self, idx: Tensor) -> Tensor:
        streams = self.wte(idx).unsqueeze(2).expand(-1, -1, 3, -1)
        for layer in self.layers:
            streams = layer(streams)
        return self.head(nnf.rms_norm(streams.sum(2), (D,)))


COPIES = """
    wte.weight               input   .n
    layers.*.read            scalar  .    # copies are a count, though each layer makes and consumes an axis of them
    layers.*.write           scalar  .
    layers.*.mix             scalar  ..
    layers.*.fc.weight       hidden  nn
    layers.*.fc.bias         vector  n
    head.weight              output  .n
"""


@trap(ids, COPIES)
class HyperConnections(HyperFrame):
    pass


@trap(
    ids,
    "layers.*.depends.weight  output  .n   # what a weight makes of the width is read as if it were hidden\n" + COPIES,
)
class DynamicHyperConnections(HyperFrame):
    def __init__(self) -> None:
        super().__init__(dynamic=True)


class Butterfly(nn.Module):
    """Every second channel goes through; what comes out is laid in front: factors cut across parts."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width // 2, width), nn.Linear(width, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nnf.layer_norm(x, (x.size(-1),))
        return x + torch.cat([self.down(nnf.gelu(self.up(x[..., ::2]))), x[..., 1::2]], -1)


@trap(ids, FRAME + "block.*.weight  hidden  nn\nblock.*.bias  vector  n")
class ChannelsInterleaved(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(*(Butterfly() for _ in range(4))), width=40)


class OneGroup(nn.Module):
    """Falcon-7B: one group, whose rows are all queries, the key, the value."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.o = nn.Linear(D, (heads + 2) * HD, bias=False), nn.Linear(heads * HD, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(x).view(B, T, 1, self.heads + 2, HD)
        q, k, v = rows[..., :-2, :].flatten(2, 3), rows[..., -2, :], rows[..., -1, :]
        return self.o(attend(q, k, v))


@trap(ids, FRAME + "block.*.weight  hidden  nn   # places are picked from a part of the rows; the heads still grow")
class PickedFromAPart(LanguageModel):
    def __init__(self) -> None:
        super().__init__(OneGroup())


class Turned(nn.Module):
    """Rotated as complex numbers, after a norm per head."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(HD), nn.RMSNorm(HD)

    def turn(self, x: Tensor) -> Tensor:
        angle = torch.arange(T, device=x.device)[:, None, None] * torch.arange(HD // 2, device=x.device)
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angle * 1.0), angle * 1.0)
        return torch.view_as_real(pairs).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(B, T, D // HD, HD, 3).unbind(-1)
        return self.o(attend(self.turn(self.q_norm(q)), self.turn(self.k_norm(k)), v))


@trap(
    ids,
    FRAME
    + """
    block.*_norm.weight  scalar  .   # a pair of real numbers is no head that grows
    block.*.weight       hidden  nn
    """,
)
class ComplexPairs(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Turned())


@trap(
    ids,
    """
    tokens.weight  scalar  ..
    widen.weight   input   n.   # a factorized embedding before a highway: the stream runs through the gate
    widen.bias     vector  n
    fc.weight      hidden  nn
    gate.weight    hidden  nn
    head.weight    output  .n
    head.bias      scalar  .
    *.bias         vector  n
    """,
)
class Highway(nn.Module):
    def __init__(self, rank: int = 3) -> None:
        super().__init__()
        self.tokens, self.widen = nn.Embedding(V, rank), nn.Linear(rank, D)
        self.fc, self.gate, self.head = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.widen(self.tokens(idx))
        for _ in range(2):
            gate = torch.sigmoid(self.gate(x))
            x = gate * x + (1 - gate) * nnf.relu(self.fc(x))
        return self.head(x)


@trap(
    lambda: sequence(3),
    """
    narrow.weight  input   n.   # behind random features and before a wider layer, without a stream: no factorization
    narrow.bias    vector  n
    wide.weight    hidden  nn
    wide.bias      vector  n
    head.weight    output  .n
    head.bias      scalar  .
    """,
)
class NarrowAfterFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("random", torch.zeros(3, F))
        self.narrow, self.wide, self.head = nn.Linear(2 * F, D), nn.Linear(D, 2 * D), nn.Linear(2 * D, C)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([(x @ self.random).sin(), (x @ self.random).cos()], -1)
        return self.head(nnf.relu(self.wide(self.narrow(x))))


@trap(
    lambda: torch.zeros(B, T, 2, dtype=torch.long),
    """
    one.weight   input   .n   # two columns side by side are as wide as what reads them: no ranks
    two.weight   input   .n
    fc.weight    hidden  nn
    fc.bias      vector  n
    head.weight  output  .n
    head.bias    scalar  .
    a            output  .n   # a rank
    b            input   n.
    """,
)
class Columns(nn.Module):
    def __init__(self, rank: int = 3) -> None:
        super().__init__()
        self.one, self.two = nn.Embedding(V, D // 2), nn.Embedding(V, D // 2)
        self.fc, self.head = nn.Linear(D, D), nn.Linear(D, C)
        self.a, self.b = nn.Parameter(torch.zeros(rank, D)), nn.Parameter(torch.zeros(D, rank))

    def forward(self, idx: Tensor) -> Tensor:
        x = torch.cat([self.one(idx[..., 0]), self.two(idx[..., 1])], -1)
        return self.head(nnf.relu(self.fc(x) + nnf.linear(nnf.linear(x, self.a), self.b)))


@trap(
    image,
    """
    stem.weight   input   n...
    first.weight  hidden  nn..
    deep.weight   vector  n...   # the shuffle is a list of channels: they are the same channels
    last.weight   hidden  nn..
    head.weight   output  .n
    head.bias     scalar  .
    *.bias        vector  n
    """,
)
class ShuffledByAList(nn.Module):
    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, D, 3), nn.Conv2d(D, F, 1, groups=groups)
        self.deep, self.last = nn.Conv2d(F, F, 3, groups=F), nn.Conv2d(F, D, 1, groups=groups)
        self.head = nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        x = nnf.relu(self.first(self.stem(x)))
        x = x[:, torch.arange(F, device=x.device).view(2, -1).t().flatten()]
        return self.head(self.last(self.deep(x)).mean((2, 3)))


@trap(
    sequence,
    """
    into.weight  unknown  ?.   # constants alone read it: features, which grow, or bins, which do not?
    into.bias    unknown  ?
    """,
)
class ReadByConstants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(16, D)
        self.register_buffer("basis", torch.zeros(D, C))

    def forward(self, x: Tensor) -> Tensor:
        return nnf.relu(self.into(x)) @ self.basis
