"""Weights made of several tensors, ranks, routers, codebooks, parts of one tensor, recurrences."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from tests.traps.trap import FRAME, C, D, F, LanguageModel, T, V, ids, sequence, trap, vectors

MLP = """
    block.*.weight  hidden  nn
    block.*.bias    vector  n
"""


class LoraLinear(nn.Module):
    def __init__(self, n_in: int, n_out: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(n_in, n_out)
        self.lora_A, self.lora_B = nn.Linear(n_in, rank, bias=False), nn.Linear(rank, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2.0 * self.lora_B(self.lora_A(x))


LORA = """
    block.*.base.weight  hidden  nn
    block.*.base.bias    vector  n
    block.*.lora_A*      output  .n   # width -> rank
    block.*.lora_B*      input   n.   # rank -> width
"""


@trap(ids, FRAME + LORA)
class Lora(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(LoraLinear(D, F), nn.GELU(), LoraLinear(F, D)))


class MergedLora(nn.Module):
    """The two factors are multiplied first: one weight made of two tensors."""

    def __init__(self, n_in: int, n_out: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(n_in, n_out)
        self.lora_A, self.lora_B = nn.Parameter(torch.zeros(rank, n_in)), nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return nnf.linear(x, self.base.weight + self.lora_B @ self.lora_A, self.base.bias)


@trap(ids, FRAME + LORA)
class LoraMerged(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(MergedLora(D, F), nn.GELU(), MergedLora(F, D)))


@trap(
    vectors,
    """
    0.bias                             vector  n
    0.parametrizations.weight.original0  vector  n.   # g: (out, 1)
    0.parametrizations.weight.original1  input   n.   # v
    2.bias                             vector  n
    2.parametrizations.weight.original0  vector  n.
    2.parametrizations.weight.original1  hidden  nn
    4.bias                             scalar  .
    4.parametrizations.weight.original0  scalar  ..   # one number a class
    4.parametrizations.weight.original1  output  .n
    """,
)
class WeightNorm(nn.Sequential):
    def __init__(self) -> None:
        layers = [weight_norm(layer) for layer in (nn.Linear(16, D), nn.Linear(D, F), nn.Linear(F, C))]
        super().__init__(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


@trap(
    vectors,
    """
    0.parametrizations.weight.original  input   n.
    2.parametrizations.weight.original  hidden  nn
    4.parametrizations.weight.original  output  .n
    4.bias                              scalar  .
    *.bias                              vector  n
    """,
)
class SpectralNorm(nn.Sequential):
    def __init__(self) -> None:
        layers = [nn.Linear(16, D), nn.Linear(D, F), nn.Linear(F, C)]
        with torch.device("cpu"):  # its power iteration draws and multiplies real numbers
            layers = [spectral_norm(layer.to_empty(device="cpu")) for layer in layers]
        super().__init__(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


class Experts(nn.Module):
    """Experts as a list of modules; a softmax over all of them."""

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        self.router = nn.Linear(D, count, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(D, F), nn.ReLU(), nn.Linear(F, D)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        probs = self.router(x).softmax(-1)
        top, chosen = probs.topk(2, -1)
        gates = torch.zeros_like(probs).scatter(-1, chosen, top)
        return sum(gates[..., e, None] * expert(x) for e, expert in enumerate(self.experts))  # type: ignore[return-value]


@trap(
    ids,
    FRAME
    + """
    block.router.weight        output  .n   # width -> experts, which are fixed
    block.experts.*.weight     hidden  nn
    block.experts.*.bias       vector  n
    """,
)
class Router(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Experts())


class Gathered(nn.Module):
    """Each token gathers the weights of the expert chosen for it; there are as many experts as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Parameter(torch.zeros(D, D, F)), nn.Parameter(torch.zeros(D, F, D))

    def forward(self, x: Tensor) -> Tensor:
        gate, chosen = self.router(x).softmax(-1).max(-1)
        h = torch.einsum("btd,btdf->btf", x, self.up[chosen])
        return torch.einsum("btf,btfd->btd", nnf.relu(h), self.down[chosen]) * gate.unsqueeze(-1)


@trap(
    ids,
    FRAME
    + """
    block.router.weight  output  .n
    block.up             hidden  .nn   # (experts, in, out), looked up by expert
    block.down           hidden  .nn
    """,
)
class ExpertsAsManyAsWidth(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Gathered())


@trap(
    ids,
    """
    tokens.weight     scalar  ..   # (vocabulary, rank): nothing grows
    tokens_norm.*     scalar  .
    expand.weight     input   n.   # rank -> width
    expand.bias       vector  n
    """
    + MLP
    + "norm.*  vector  n\nhead.weight  output  .n",
)
class FactorizedEmbedding(nn.Module):
    def __init__(self, rank: int = 6) -> None:
        super().__init__()
        self.tokens, self.tokens_norm, self.expand = nn.Embedding(V, rank), nn.LayerNorm(rank), nn.Linear(rank, D)
        self.block = nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, D))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.expand(self.tokens_norm(self.tokens(idx)))
        return self.head(self.norm(x + self.block(x)))


class Selective(nn.Module):
    """The projection of a Mamba block: dt's rank, B and C from one weight."""

    def __init__(self, rank: int = 3, state: int = 5) -> None:
        super().__init__()
        self.sizes = [rank, state, state]
        self.x_proj = nn.Linear(D, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, D)
        self.A_log, self.D = nn.Parameter(torch.zeros(D, state)), nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        dt, b, c = self.x_proj(x).split(self.sizes, -1)
        dt = nnf.softplus(self.dt_proj(dt))
        decay = torch.exp(-dt.unsqueeze(-1) * self.A_log.exp())
        h = torch.zeros_like(decay[:, 0])
        ys = []
        for t in range(x.size(1)):
            h = decay[:, t] * h + (dt * x)[:, t].unsqueeze(-1) * b[:, t].unsqueeze(1)
            ys.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
        return torch.stack(ys, 1) + x * self.D


@trap(
    ids,
    FRAME
    + """
    block.x_proj.weight   output  .n   # rank + state + state
    block.dt_proj.weight  input   n.
    block.dt_proj.bias    vector  n
    block.A_log           vector  n.   # (channels, state)
    block.D               vector  n
    """,
    {"block.x_proj.weight": (0, [(0, 3, "output"), (3, 8, "output"), (8, 13, "output")])},
)
class XProjParts(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Selective())


@trap(
    vectors,
    """
    encoder.0.weight  input   n.
    encoder.2.weight  hidden  nn
    encoder.*.bias    vector  n
    codebook          input   .n   # (codes, width): searched through argmin, then looked up
    decoder.0.weight  hidden  nn
    decoder.0.bias    vector  n
    decoder.2.weight  output  .n
    decoder.2.bias    scalar  .
    """,
)
class VectorQuantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, D), nn.ReLU(), nn.Linear(D, F))
        self.codebook = nn.Parameter(torch.zeros(50, F))
        self.decoder = nn.Sequential(nn.Linear(F, D), nn.ReLU(), nn.Linear(D, 16))

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        far = z.pow(2).sum(-1, keepdim=True) - 2 * z @ self.codebook.t() + self.codebook.pow(2).sum(-1)
        code = self.codebook[far.argmin(-1)]
        return self.decoder(code + (z - z.detach()))


@trap(
    lambda: vectors(3),
    """
    first.weight   input   n.
    second.weight  hidden  nn   # in = width + 3 coordinates put in again
    last.weight    output  .n
    last.bias      scalar  .
    *.bias         vector  n
    """,
    {"second.weight": (1, [(0, D, "hidden"), (D, D + 3, "input")])},
)
class InputAgain(nn.Module):
    """DeepSDF's skip: the input is put in again beside hidden features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, D), nn.Linear(D + 3, F), nn.Linear(F, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = nnf.relu(self.first(x))
        return self.last(nnf.relu(self.second(torch.cat([h, x], -1))))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(D, 2 * F), nn.Linear(F, D)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, -1)
        return self.down(value * nnf.silu(gate))


@trap(ids, FRAME + MLP)
class GluByChunk(LanguageModel):
    def __init__(self) -> None:
        super().__init__(Gated())


class OnePlus(nn.Module):
    """Gemma's norm: the gain is stored as its distance from one."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.scale, self.fc = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.ones(D)), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1.0 + self.w)
        return self.scale * nnf.gelu(self.fc(normed))


@trap(
    ids,
    FRAME
    + """
    block.w          vector  n   # a gain stored as 1 + w
    block.scale      vector  n   # layer scale
    block.fc.weight  hidden  nn
    block.fc.bias    vector  n
    """,
)
class GainAsOnePlus(LanguageModel):
    def __init__(self) -> None:
        super().__init__(OnePlus())


@trap(
    ids,
    """
    embedding.weight  input   .n
    *.weight_?h_l*    hidden  nn   # 4H and 3H rows
    *.bias_?h_l*      vector  n
    head.weight       output  .n
    head.bias         scalar  .
    """,
)
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, 12)
        self.lstm = nn.LSTM(12, D, num_layers=2, batch_first=True)
        self.gru = nn.GRU(D, 20, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * 20, V)

    def forward(self, idx: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(self.embedding(idx))[0])[0])


@trap(
    sequence,
    """
    lstm.weight_ih  input   n.   # 4H rows, data columns
    lstm.weight_hh  hidden  nn
    gru.weight_ih   hidden  nn
    gru.weight_hh   hidden  nn
    *.bias_?h       vector  n
    head.weight     output  .n
    head.bias       scalar  .
    """,
)
class RecurrentCells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.head = nn.LSTMCell(16, D), nn.GRUCell(D, 20), nn.Linear(20, C)

    def forward(self, x: Tensor) -> Tensor:
        h, c, s = x.new_zeros(x.size(0), D), x.new_zeros(x.size(0), D), x.new_zeros(x.size(0), 20)
        for t in range(x.size(1)):
            h, c = self.lstm(x[:, t], (h, c))
            s = self.gru(h, s)
        return self.head(s)


@trap(ids, FRAME + MLP)
class Checkpointed(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, D)))

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx)
        return self.head(self.norm(x + checkpoint(self.block, x, use_reentrant=False)))


@trap(ids, FRAME + MLP + "other.*.weight  hidden  nn\nother.*.bias  vector  n")
class ResidualInPlace(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(D, F), nn.ReLU(inplace=True), nn.Linear(F, D)))
        self.other = nn.Sequential(nn.Linear(D, F), nn.ReLU(inplace=True), nn.Linear(F, D))

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx).clone()
        x += self.block(x)
        x.add_(self.other(x)).mul_(0.5)
        return self.head(self.norm(x))


@trap(
    lambda: (ids(), vectors(18)),
    FRAME
    + MLP
    + """
    film.weight  input   n.   # conditions -> shift, scale and gate, each as wide as the model
    film.bias    vector  n
    """,
)
class AdaptiveNorm(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, D)))
        self.film = nn.Linear(18, 3 * D)

    def forward(self, idx: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        x = self.wte(idx)
        shift, scale, gate = self.film(nnf.silu(condition)).unsqueeze(1).chunk(3, dim=-1)
        x = x + gate * self.block(nnf.layer_norm(x, (D,)) * (1 + scale) + shift)
        return self.head(self.norm(x))


@trap(
    lambda: vectors(3),
    """
    net.0.weight  input   n.   # 2 * 32 random features: no parameter makes them
    net.2.weight  hidden  nn
    net.4.weight  output  .n
    net.4.bias    scalar  .
    net.*.bias    vector  n
    """,
)
class FourierFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(3, 32))
        linears = nn.Linear(64, D), nn.Linear(D, F), nn.Linear(F, C)
        self.net = nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), linears[2])

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies
        return self.net(torch.cat([phase.sin(), phase.cos()], -1))


@trap(
    ids,
    FRAME
    + MLP
    + """
    positions  input   ..n   # (1, 16, width), sliced to the length
    cls        vector  ..n   # (1, 1, width): one token, so no table
    """,
)
class ClassToken(LanguageModel):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, D)))
        self.positions, self.cls = nn.Parameter(torch.zeros(1, 16, D)), nn.Parameter(torch.zeros(1, 1, D))

    def forward(self, idx: Tensor) -> Tensor:
        x = torch.cat([self.cls.expand(idx.size(0), -1, -1), self.wte(idx)], 1) + self.positions[:, : T + 1]
        return self.head(self.norm(x + self.block(x))[:, 0])
