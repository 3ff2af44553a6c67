"""Parameters whose shape says little: gains stored as a distance, a readout's norms, tied scales, small factors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.nn.utils.parametrizations import weight_norm

from tests.counterexamples.holds import holds, parts
from tests.traps.trap import C, D, F, LanguageModel, V, ids, sequence, vectors


class OnePlus(nn.Module):
    """A norm whose gain is stored as its distance from one; `gain` says how it is applied."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.fc = nn.Parameter(torch.zeros(D)), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return nnf.gelu(self.fc(self.gain(x)))

    def normed(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    def gain(self, x: Tensor) -> Tensor:
        return self.normed(x) * (1.0 + self.w)


class PlusProduct(OnePlus):
    def gain(self, x: Tensor) -> Tensor:
        x = self.normed(x)
        return x + x * self.w


class AddCMul(OnePlus):
    def gain(self, x: Tensor) -> Tensor:
        x = self.normed(x)
        return torch.addcmul(x, x, self.w)


class IntoRmsNorm(OnePlus):
    def gain(self, x: Tensor) -> Tensor:
        return nnf.rms_norm(x, (D,), self.w + 1)


class IntoLayerNorm(OnePlus):
    def gain(self, x: Tensor) -> Tensor:
        return nnf.layer_norm(x, (D,), torch.ones_like(self.w).add(self.w))


class Diagonal(OnePlus):
    """As a contraction with a diagonal matrix."""

    def gain(self, x: Tensor) -> Tensor:
        return torch.einsum("bti,i->bti", self.normed(x), self.w.add(1.0))


@pytest.mark.parametrize("spelling", [OnePlus, PlusProduct, AddCMul, IntoRmsNorm, IntoLayerNorm, Diagonal])
def test_gain_stored_as_a_distance_from_one(spelling: type[nn.Module]) -> None:
    """ "A vector that starts at zero is a bias" and "what is added to a constant is added to the stream" fail: 1 + w
    multiplies the width; it is a gain."""
    table = """
        wte.weight       input   .n
        norm.*           vector  n
        head.weight      output  .n
        block.w          vector  n
        block.fc.weight  hidden  nn
        block.fc.bias    vector  n
    """
    found = holds(LanguageModel(spelling()), ids(), table).parameters["block.w"]
    assert found.sub_role == "gain"


class Normed(nn.Module):
    """A readout whose rows are directions times lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, D)
        self.make()

    def make(self) -> None:
        self.head = weight_norm(nn.Linear(D, C, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(nnf.relu(self.fc(x)))

    def read(self, x: Tensor) -> Tensor:
        return self.head(x)


class NormedByHand(Normed):
    def make(self) -> None:
        self.g, self.v = nn.Parameter(torch.ones(C, 1)), nn.Parameter(torch.ones(C, D))

    def read(self, x: Tensor) -> Tensor:
        return nnf.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True))


class NormedBehind(NormedByHand):
    """The lengths are multiplied onto the outputs instead."""

    def read(self, x: Tensor) -> Tensor:
        return (x @ nnf.normalize(self.v, dim=1).t()) * self.g.squeeze(-1)


class NormedColumns(Normed):
    """(in, out), normed along the first axis."""

    def make(self) -> None:
        self.g, self.v = nn.Parameter(torch.ones(C)), nn.Parameter(torch.ones(D, C))

    def read(self, x: Tensor) -> Tensor:
        return x @ (self.v * (self.g / self.v.pow(2).sum(0).sqrt()))


@pytest.mark.parametrize(
    ("spelling", "rows"),
    [
        (Normed, "*original0  scalar  ..\n*original1  output  .n"),
        (NormedByHand, "g  scalar  ..\nv  output  .n"),
        (NormedBehind, "g  scalar  ..\nv  output  .n"),
        (NormedColumns, "g  scalar  .\nv  output  n."),
    ],
)
def test_lengths_of_a_readout(spelling: type[nn.Module], rows: str) -> None:
    """Weight norm. "g is a gain, so vector-like along the width" fails at a readout: it holds one number a class, and
    the width is in v alone."""
    holds(spelling(), vectors(), "fc.weight  input  n.\nfc.bias  vector  n\n" + rows)


class Tied(nn.Module):
    """T5's head: the embedding again, behind d_model ** -0.5; `head` says how."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(V, D)
        self.block = nn.Sequential(nn.Linear(D, F), nn.ReLU(), nn.Linear(F, D))

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx)
        return self.head(nnf.rms_norm(x + self.block(x), (D,)))

    def head(self, x: Tensor) -> Tensor:
        return nnf.linear(x * D**-0.5, self.wte.weight)


class TiedMatmul(Tied):
    def head(self, x: Tensor) -> Tensor:
        return (x @ self.wte.weight.t()) / D**0.5


class TiedEinsum(Tied):
    def head(self, x: Tensor) -> Tensor:
        return torch.einsum("btd,vd->btv", x, self.wte.weight * D**-0.5)


class TiedFlat(Tied):
    def head(self, x: Tensor) -> Tensor:
        flat = torch.addmm(torch.zeros(V, device=x.device), x.flatten(0, 1), self.wte.weight.mT, alpha=D**-0.5)
        return flat.unflatten(0, x.shape[:2])


class TiedLinear(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(D, V, bias=False)
        self.lm_head.weight = self.wte.weight

    def head(self, x: Tensor) -> Tensor:
        return self.lm_head(x.mul(D**-0.5))


@pytest.mark.parametrize("spelling", [Tied, TiedMatmul, TiedEinsum, TiedFlat, TiedLinear])
def test_tied_head_behind_a_scale(spelling: type[nn.Module]) -> None:
    """ "The head is an output: give it 1/width" fails: it is the embedding too, an input. The scale is a number, no
    dim; both uses must be seen, or the readout's own multiplier is lost."""
    tied = "lm_head.weight  input  .n" if spelling is TiedLinear else ""
    table = "wte.weight  input  .n\nblock.*.weight  hidden  nn\nblock.*.bias  vector  n\n" + tied
    found = holds(spelling(), ids(), table).parameters["wte.weight"]
    assert {use.role for use in found.uses} == {"input", "output"}


RANK = 6


class Factorized(nn.Module):
    """ALBERT: a small embedding and a matrix that widens it; `embed` says how."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.expand = nn.Embedding(V, RANK), nn.Linear(RANK, D, bias=False)
        self.block = nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, D))
        self.head = nn.Linear(D, V, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.embed(idx)
        return self.head(nnf.rms_norm(x + self.block(x), (D,)))

    def embed(self, idx: Tensor) -> Tensor:
        return self.expand(self.tokens(idx))


class FactorizedMatmul(Factorized):
    def embed(self, idx: Tensor) -> Tensor:
        return self.tokens.weight[idx] @ self.expand.weight.t()


class FactorizedMerged(Factorized):
    """The two are multiplied to one table before it is looked up."""

    def embed(self, idx: Tensor) -> Tensor:
        return nnf.embedding(idx, self.tokens.weight @ self.expand.weight.t())


class FactorizedOneHot(Factorized):
    def embed(self, idx: Tensor) -> Tensor:
        return self.expand(nnf.one_hot(idx, V).to(self.tokens.weight.dtype) @ self.tokens.weight)


class FactorizedBothEnds(Factorized):
    """And narrowed again before a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(D, RANK, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        return nnf.linear(super().forward(idx), self.tokens.weight)


@pytest.mark.parametrize(
    "spelling", [Factorized, FactorizedMatmul, FactorizedMerged, FactorizedOneHot, FactorizedBothEnds]
)
def test_factorized_embedding(spelling: type[nn.Module]) -> None:
    """ "An embedding's second axis is d_model" fails: it is a rank, so nothing of the table grows, and the matrix
    behind it is the model's input."""
    table = """
        tokens.weight   scalar  ..
        expand.weight   input   n.
        block.*.weight  hidden  nn
        block.*.bias    vector  n
        head.weight     output  .n
    """
    holds(spelling(), ids(), table)


class Gates(nn.Module):
    """An LSTM's step by hand, all gates in one matrix of 4H rows; `cut` says in what order they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.ih, self.hh, self.head = nn.Linear(16, 4 * D), nn.Linear(D, 4 * D, bias=False), nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), D)
        for t in range(x.size(1)):
            i, f, g, o = self.cut(self.ih(x[:, t]) + self.hh(h))
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)

    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.chunk(4, -1)


class GatesSplit(Gates):
    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        gates, g = rows.split([3 * D, D], -1)
        i, f, o = gates.split(D, -1)
        return i, f, g, o


class GatesView(Gates):
    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.view(-1, 4, D).unbind(1)


class GatesSliced(Gates):
    """Three sigmoids at once."""

    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows[:, :D], rows[:, D : 2 * D], rows[:, 3 * D :], rows[:, 2 * D : 3 * D]


class GatesApart(nn.Module):
    """Four matrices over the input beside the state."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(16 + D, D) for _ in range(4))
        self.head = nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), D)
        for t in range(x.size(1)):
            i, f, g, o = (gate(torch.cat([x[:, t], h], -1)) for gate in self.gates)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class GatesOfTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, D, batch_first=True), nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@pytest.mark.parametrize("spelling", [Gates, GatesSplit, GatesView, GatesSliced])
def test_four_gates_in_one_matrix(spelling: type[nn.Module]) -> None:
    """LSTM. "The axis is 4H and nothing else has that size, so it is fixed" fails; so does "H = 4H / 4 is a group
    count's partner": each gate's rows are the state's width."""
    table = """
        ih.weight    input   n.
        ih.bias      vector  n
        hh.weight    hidden  nn
        head.weight  output  .n
        head.bias    scalar  .
    """
    found = holds(spelling(), sequence(), table)
    assert {p.role for p in found.parameters["hh.weight"].parts} == {"hidden"}
    assert sum(stop - start for start, stop, _ in parts(found, "hh.weight")) == 4 * D


def test_four_gates_of_torch() -> None:
    """The same as one op."""
    table = """
        lstm.weight_ih_l0  input   n.
        lstm.weight_hh_l0  hidden  nn
        lstm.bias_?h_l0    vector  n
        head.weight        output  .n
        head.bias          scalar  .
    """
    holds(GatesOfTorch(), sequence(), table)


def test_four_gates_apart() -> None:
    """Input and state side by side in each gate: two parts of one axis, an input and a hidden one."""
    table = """
        gates.*.weight  hidden  nn
        gates.*.bias    vector  n
        head.weight     output  .n
        head.bias       scalar  .
    """
    found = holds(GatesApart(), sequence(), table)
    assert parts(found, "gates.0.weight", 1) == [(0, 16, "input"), (16, 16 + D, "hidden")]
