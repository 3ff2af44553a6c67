"""Axes that are products of two dims, with no dot product to say which factor is fixed: GAT, shuffles, codebooks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.counterexamples.holds import holds, verdicts
from tests.traps.convs import FC, STEM, Images
from tests.traps.trap import B, C, D, F, image, sequence, vectors

HEADS, OUT, NODES = 3, 8, 7


class Graph(nn.Module):
    """Graph attention over an adjacency matrix: the scores come from a vector per head, not from a dot product."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, HEADS * OUT, bias=False)
        self.source, self.target = nn.Parameter(torch.zeros(HEADS, OUT)), nn.Parameter(torch.zeros(HEADS, OUT))
        self.last = nn.Linear(HEADS * OUT, C)

    def scores(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return (h * self.source).sum(-1), (h * self.target).sum(-1)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.first(x).view(-1, HEADS, OUT)
        left, right = self.scores(h)
        e = nnf.leaky_relu(left[:, None] + right[None])
        weights = e.masked_fill(~adjacency.unsqueeze(-1), float("-inf")).softmax(1)
        return self.last(nnf.elu(torch.einsum("ijh,jho->iho", weights, h).flatten(1)))


class GraphEinsum(Graph):
    def scores(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("nho,ho->nh", h, self.source), torch.einsum("nho,ho->nh", h, self.target)


class GraphEdges(Graph):
    """The same over a list of edges."""

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.first(x).view(-1, HEADS, OUT)
        source, target = torch.arange(NODES, device=x.device), torch.arange(NODES, device=x.device).flip(0)
        left, right = self.scores(h)
        e = nnf.leaky_relu(left[source] + right[target]).exp()
        total = torch.zeros_like(left).index_add(0, target, e)
        out = torch.zeros_like(h).index_add(0, target, (e / total[target]).unsqueeze(-1) * h[source])
        return self.last(nnf.elu(out.flatten(1)))


def graph() -> tuple[Tensor, Tensor]:
    return torch.zeros(NODES, 16), torch.ones(NODES, NODES, dtype=torch.bool)


@pytest.mark.parametrize("spelling", [Graph, GraphEinsum, GraphEdges])
def test_heads_of_graph_attention(spelling: type[nn.Module]) -> None:
    """GAT. "head_dim is what the scores contract, so heads grow" fails: a *parameter* contracts it, so either may be
    the width, and code alone does not say which. The verdict is unknown with a reason, and settled by one word."""
    found = verdicts(spelling(), graph())
    assert {name: p.role for name, p in found.parameters.items()} == {
        "first.weight": "unknown",
        "source": "unknown",
        "target": "unknown",
        "last.weight": "unknown",
        "last.bias": "scalar",
    }
    assert any("none or several could grow" in line for line in found.parameters["first.weight"].why)


@pytest.mark.parametrize("spelling", [Graph, GraphEinsum, GraphEdges])
def test_heads_of_graph_attention_settled(spelling: type[nn.Module]) -> None:
    """A user who fixes a factor, by the name the report gives it, gets the other one, whichever it is."""
    heads, out = verdicts(spelling(), graph()).parameters["source"].axes
    by_heads = """
        first.weight  input   n.
        source        vector  n.
        target        vector  n.
        last.weight   output  .n
        last.bias     scalar  .
    """
    by_out = by_heads.replace("vector  n.", "output  .n")
    holds(spelling(), graph(), by_heads, fixed=out)
    holds(spelling(), graph(), by_out, fixed=heads)


class Shuffled(nn.Module):
    """Two grouped convolutions with a channel shuffle between; `shuffle` says how."""

    groups = 4

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(D, F, 1, groups=self.groups, bias=False)
        self.depthwise = nn.Conv2d(F, F, 3, padding=1, groups=F, bias=False)
        self.last = nn.Conv2d(F, D, 1, groups=self.groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.depthwise(self.shuffle(nnf.relu(self.first(x)))))

    def shuffle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffledOp(Shuffled):
    def shuffle(self, x: Tensor) -> Tensor:
        return nnf.channel_shuffle(x, self.groups)


class ShuffledFlat(Shuffled):
    """Unflattened, swapped and flattened again, batch and places moved aside first."""

    def shuffle(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).unflatten(-1, (self.groups, -1)).mT.flatten(-2).movedim(-1, 1)


class ShuffledStack(Shuffled):
    """The groups as a list, stacked behind their channels."""

    def shuffle(self, x: Tensor) -> Tensor:
        return torch.stack(x.chunk(self.groups, 1), 2).flatten(1, 2)


@pytest.mark.parametrize("spelling", [Shuffled, ShuffledOp, ShuffledFlat, ShuffledStack])
def test_channel_shuffle(spelling: type[nn.Module]) -> None:
    """ "The major factor of a split axis is its heads, which grow" fails: here it is the group count, and it becomes
    the minor factor half way. "fan-in is the second axis's size, which has no width in it" fails too."""
    table = """
        body.first.weight      hidden  nn..   # (out, in / groups): the channels of a group grow
        body.depthwise.weight  vector  n...
        body.last.weight       hidden  nn..
    """
    holds(Images(spelling()), image(), STEM + FC + table)


GROUPS, CODES, CODE = 3, 11, 8


class Quantized(nn.Module):
    """Product quantization: each group of the features has a codebook of its own, searched by distance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(16, GROUPS * CODE)
        self.codebook()
        self.decoder = nn.Linear(GROUPS * CODE, C)

    def codebook(self) -> None:
        self.codes = nn.Parameter(torch.zeros(CODES, CODE))

    def nearest(self, z: Tensor) -> Tensor:
        return self.codes[(z.unsqueeze(-2) - self.codes).pow(2).sum(-1).argmin(-1)]

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        code = self.nearest(z.view(-1, GROUPS, CODE)).flatten(-2)
        return self.decoder(z + (code - z).detach())


class QuantizedDistances(Quantized):
    def nearest(self, z: Tensor) -> Tensor:
        far = z.pow(2).sum(-1, keepdim=True) - 2 * z @ self.codes.t() + self.codes.pow(2).sum(-1)
        return nnf.embedding(far.argmin(-1), self.codes)


class QuantizedChunks(Quantized):
    """A codebook a group, as a list; chunks of the features."""

    def codebook(self) -> None:
        self.codes = nn.ModuleList(nn.Embedding(CODES, CODE) for _ in range(GROUPS))

    def nearest(self, z: Tensor) -> Tensor:
        found = [
            book(torch.cdist(part, book.weight).argmin(-1)) for book, part in zip(self.codes, z.unbind(-2), strict=True)
        ]
        return torch.stack(found, -2)


QUANTIZED = """
    encoder.weight  input   n.
    encoder.bias    vector  n
    codes*          input   .n   # (codes, width of a group): searched through argmin, then looked up
    decoder.weight  output  .n
    decoder.bias    scalar  .
"""


@pytest.mark.parametrize("spelling", [Quantized, QuantizedDistances, QuantizedChunks])
def test_product_quantization(spelling: type[nn.Module]) -> None:
    """ "Of groups x features the groups grow, as heads do" fails: the codebook's axis is the features of one group,
    and it stands alone; so the groups are fixed."""
    holds(spelling(), vectors(), QUANTIZED)


class QuantizedTogether(Quantized):
    """All codebooks in one parameter, (groups, codes, features): gathered group by group."""

    def codebook(self) -> None:
        self.codes = nn.Parameter(torch.zeros(GROUPS, CODES, CODE))

    def nearest(self, z: Tensor) -> Tensor:
        chosen = (z.unsqueeze(-2) - self.codes).pow(2).sum(-1).argmin(-1)
        return torch.stack([self.codes[g, chosen[:, g]] for g in range(GROUPS)], 1)


class QuantizedTogetherEinsum(QuantizedTogether):
    def nearest(self, z: Tensor) -> Tensor:
        far = self.codes.pow(2).sum(-1) - 2 * torch.einsum("bgd,gkd->bgk", z, self.codes)
        return torch.einsum("bgk,gkd->bgd", nnf.one_hot(far.argmin(-1), CODES).to(z.dtype), self.codes)


@pytest.mark.parametrize("spelling", [QuantizedTogether, QuantizedTogetherEinsum])
def test_product_quantization_in_one_parameter(spelling: type[nn.Module]) -> None:
    """The same in one tensor: groups are taken one by one, or batched over with the codes as many as they were."""
    holds(spelling(), vectors(), QUANTIZED.replace(".n   #", "..n  #"))


class Searched(nn.Module):
    """Vector quantization: the codebook meets features in distances, of which only the argmin is used."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.codes, self.decoder = nn.Linear(16, D), nn.Embedding(CODES, D), nn.Linear(D, C)

    def far(self, z: Tensor) -> Tensor:
        return torch.cdist(z, self.codes.weight)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        code = self.codes(self.far(z).argmin(-1))
        return self.decoder(z + (code - z).detach())


class SearchedExpanded(Searched):
    def far(self, z: Tensor) -> Tensor:
        w = self.codes.weight
        return z.pow(2).sum(-1, keepdim=True) - 2 * z @ w.t() + w.pow(2).sum(-1)


class SearchedBroadcast(Searched):
    def far(self, z: Tensor) -> Tensor:
        return (z.unsqueeze(-2) - self.codes.weight).norm(dim=-1)


class SearchedCosine(Searched):
    def far(self, z: Tensor) -> Tensor:
        return -torch.einsum("btd,kd->btk", nnf.normalize(z, dim=-1), nnf.normalize(self.codes.weight, dim=-1))


class SearchedOneHot(Searched):
    """The code is picked by a product with a one-hot row."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        code = nnf.one_hot(self.far(z).argmin(-1), CODES).to(z.dtype) @ self.codes.weight
        return self.decoder(z + (code - z).detach())


@pytest.mark.parametrize("spelling", [Searched, SearchedExpanded, SearchedBroadcast, SearchedCosine, SearchedOneHot])
def test_distances_are_no_use(spelling: type[nn.Module]) -> None:
    """ "A weight that is contracted with features is a matrix, width -> codes" fails: what comes of it passes through
    argmin alone, so the codebook is a table: an input whose number of rows is fixed."""
    table = """
        encoder.weight  input   n.
        encoder.bias    vector  n
        codes.weight    input   .n
        decoder.weight  output  .n
        decoder.bias    scalar  .
    """
    found = holds(spelling(), sequence(), table).parameters["codes.weight"]
    assert {use.role for use in found.uses} == {"input"}


def test_distances_over_a_batch_of_vectors() -> None:
    """The same without a length."""
    assert verdicts(Searched(), torch.zeros(B, 16)).parameters["codes.weight"].role == "input"
