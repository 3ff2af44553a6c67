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


class Slots(nn.Module):
    """Learned slots, read over again by a recurrent cell; `view_as` takes their shape and nothing else."""

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        self.start, self.cell = nn.Parameter(torch.zeros(1, count, D)), nn.GRUCell(D, D)
        self.q, self.k, self.o = (nn.Linear(D, D, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        k, slots = self.k(x), self.start.expand(x.size(0), -1, -1)
        for _ in range(2):
            weights = (self.q(slots) @ k.mT).softmax(1)
            slots = self.cell((weights @ x).flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return self.o(weights.mT @ slots)


@trap(
    ids,
    FRAME
    + """
    block.start          input   ..n   # a fixed number of learned slots
    block.?.weight       hidden  nn
    block.cell.weight_*  hidden  nn
    block.cell.bias_*    vector  n
    """,
)
class LearnedSlots(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Slots())


class Modulated(nn.Module):
    """StyleGAN2: a convolution's weight is scaled by each sample's style, and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.style, self.weight = nn.Linear(D, D), nn.Parameter(torch.zeros(F, D, 3))
        self.out = nn.Linear(F, D)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.style(x.mean(1))[:, None, :, None]
        weight = weight * torch.rsqrt(weight.square().sum((2, 3), keepdim=True) + 1e-6)
        y = nnf.conv1d(x.mT.reshape(1, -1, x.size(1)), weight.flatten(0, 1), padding=1, groups=x.size(0))
        return self.out(nnf.relu(y.view(x.size(0), F, -1).mT))


@trap(
    ids,
    FRAME
    + """
    block.*.weight  hidden  nn
    block.*.bias    vector  n
    block.weight    hidden  nn.   # every sample has a weight of its own, contracted with activations
    """,
)
class ModulatedConvolution(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Modulated())


class Circulant(nn.Module):
    """A circular convolution over the channels, by Fourier transforms: frequencies are the same dim."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.out = nn.Parameter(torch.zeros(D)), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nnf.relu(torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(self.w), n=D)))


@trap(ids, FRAME + "block.w  vector  n\nblock.out.weight  hidden  nn\nblock.out.bias  vector  n")
class CirculantWeight(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Circulant())


class Core(nn.Module):
    """Two ranks with a small matrix between: as narrow on both sides, but both are ranks of the whole."""

    def __init__(self, rank: int = 3) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(D, rank, bias=False), nn.Linear(rank, D, bias=False)
        self.core = nn.Linear(rank, rank, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nnf.relu(self.b(self.core(self.a(x))))


@trap(ids, FRAME + "block.a.weight  output  .n\nblock.core.weight  scalar  ..\nblock.b.weight  input  n.")
class CoreBetweenRanks(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Core())


class Fewer(nn.Module):
    """Linformer: a learned matrix takes the places to fewer; attention is over those."""

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.fewer = nn.Parameter(torch.zeros(T, count))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(B, T, 3, D // HD, HD).permute(2, 0, 3, 1, 4)
        k, v = (torch.einsum("bhtd,tn->bhnd", z, self.fewer) for z in (k, v))
        return self.o(nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@trap(ids, FRAME + "block.fewer  scalar  ..   # chosen among by a softmax, so fixed\nblock.*.weight  hidden  nn")
class FewerKeys(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Fewer())


class Divided(nn.Module):
    """A readout divided by an estimate of its norm: what computes the norm is no use of the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.w = nn.Linear(16, D), nn.Parameter(torch.zeros(D, C))
        self.register_buffer("u", torch.ones(D))
        self.register_buffer("v", torch.ones(C))

    def forward(self, x: Tensor) -> Tensor:
        return nnf.relu(self.fc(x)) @ (self.w / torch.dot(self.u, self.w @ self.v))


@trap(sequence, "fc.weight  input  n.\nfc.bias  vector  n\nw  output  n.")
class SpectralByHand(Divided):
    pass


class Beside(nn.Module):
    """A matrix per group of channels, before a readout of all places: their keys are no head dims."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.blocks = nn.Embedding(V, D), nn.Parameter(torch.zeros(2, D // 2, D // 2))
        self.qkv, self.o, self.head = nn.Linear(D, 3 * D), nn.Linear(D, D), nn.Linear(T * D, C)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx)
        x = x + torch.einsum("btgi,gio->btgo", x.unflatten(-1, (2, -1)), self.blocks).relu().flatten(2)
        q, k, v = self.qkv(x).view(B, T, 3, D // HD, HD).unbind(2)
        return self.head((x + self.o(attend(q, k, v))).flatten(1))


@trap(
    ids,
    """
    wte.weight   input   .n
    blocks       hidden  .nn
    head.weight  output  .n
    head.bias    scalar  .
    *.weight     hidden  nn
    *.bias       vector  n
    """,
)
class GroupsBesidePlaces(Beside):
    pass


@trap(
    ids,
    """
    wte.weight  unknown  .?   # what goes into an op of unknown meaning may be consumed behind it
    out.weight  unknown  .?   # and what comes out may have been made before it
    out.bias    scalar  .
    """,
)
class AroundAnOpaqueOp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.out = nn.Embedding(V, D), nn.Linear(D, C)

    def forward(self, idx: Tensor) -> Tensor:
        return self.out(torch.linalg.householder_product(self.wte(idx).mT, torch.ones(B, T, device=idx.device)).mT)


class Multiplied(nn.Module):
    """A depthwise convolution with two filters a channel, then a layer that data scales, contracted over the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.back = nn.Conv1d(D, 2 * D, 3, padding=1, groups=D), nn.Conv1d(2 * D, D, 1)
        self.scaled = Modulated()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.back(nnf.relu(self.deep(x.mT))).mT
        return self.scaled(x)


@trap(
    ids,
    FRAME
    + """
    block.deep.weight    vector  n..   # filters of a channel are few; the channels are the stream, and grow
    block.scaled.weight  hidden  nn.
    block.back.weight    hidden  nn.
    block.*.weight       hidden  nn
    block.*.bias         vector  n
    """,
)
class MultipliedChannels(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Multiplied())


@trap(
    sequence,
    """
    enter.weight   input   n.
    hidden.weight  hidden  nn
    rise.weight    hidden  .nn   # each place becomes three: what it makes is a hidden state, by its name
    rise.bias      input   .n   # one bias for each of the three places: a table
    *.bias         vector  n
    """,
)
class Backbone(nn.Module):
    """No head, no residual stream: a hidden state that is finer than the input, and narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.hidden = nn.Linear(16, D), nn.Linear(D, F)
        self.rise = Rise()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": self.rise(nnf.gelu(self.hidden(nnf.gelu(self.enter(x)))))}


class Rise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(3, 14, F)), nn.Parameter(torch.zeros(3, 14))

    def forward(self, x: Tensor) -> Tensor:
        y = nnf.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        return y.unflatten(-1, (3, 14)).flatten(1, 2)
