"""Attention that breaks naive policies: latent ranks, a second width, one kv head, fused rows, mixed values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.counterexamples.holds import holds, parts
from tests.traps.attention import HD, Ellipsis_, Latent, Separate, attend
from tests.traps.trap import FRAME, B, D, LanguageModel, T, V, ids

HEADS = 4


class SlicedLatent(Latent):
    """The latent and the rotary part cut out by slices, the query's parts by a split."""

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_b(self.q_norm(self.q_a(x))).unflatten(-1, (self.heads, -1))
        plain, turned = q.split([self.nope, self.rope], -1)
        both = self.kv_a(x)
        latent, rope = both[..., : self.rank], both[..., self.rank :]
        kv = self.kv_b(self.kv_norm(latent)).unflatten(-1, (self.heads, self.nope + self.v))
        k, v = kv[..., : self.nope], kv[..., self.nope :]
        scores = torch.einsum("bshd,bthd->bhst", plain, k)
        scores = scores + torch.einsum("bshr,btr->bhst", torch.tanh(turned), torch.tanh(rope))
        return self.o(torch.einsum("bhst,bthd->bshd", scores.softmax(-1), v).flatten(2))


class UnfusedLatent(Latent):
    """The rotary key has a linear of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kv_a, self.k_rope = nn.Linear(D, self.rank, bias=False), nn.Linear(D, self.rope, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_b(self.q_norm(self.q_a(x))).unflatten(-1, (self.heads, -1))
        kv = self.kv_b(self.kv_norm(self.kv_a(x))).unflatten(-1, (self.heads, -1))
        k, v = kv.split([self.nope, self.v], -1)
        rope = torch.tanh(self.k_rope(x)).unsqueeze(2).expand(-1, -1, self.heads, -1)
        k = torch.cat([k, rope], -1)
        y = nnf.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.o(y.transpose(1, 2).flatten(2))


LATENT = """
    block.q_a.weight      output  .n   # d_model -> rank
    block.q_norm.weight   scalar  .
    block.q_b.weight      input   n.   # rank -> heads
    block.kv_a.weight     output  .n   # d_model -> rank + rope
    block.kv_norm.weight  scalar  .
    block.kv_b.weight     input   n.
    block.o.weight        hidden  nn
"""


@pytest.mark.parametrize("spelling", [Latent, SlicedLatent])
def test_latent_rank_and_rope(spelling: type[nn.Module]) -> None:
    """MLA. "What a parameter makes and another consumes grows" fails: the latents are ranks, which stay. "One tensor,
    one role" fails: kv_a's rows are a rank, then a rotary key that all heads share."""
    found = holds(LanguageModel(spelling()), ids(), FRAME + LATENT)
    assert parts(found, "block.kv_a.weight") == [(0, 9, "output"), (9, 13, "output")]


def test_latent_rank_and_rope_unfused() -> None:
    """The same in two linears: each has the verdict of its part."""
    holds(LanguageModel(UnfusedLatent()), ids(), FRAME + LATENT + "block.k_rope.weight  output  .n")


class Absorbed(Latent):
    """The up-projection of keys is moved to the queries: attention happens between latents (DeepSeek's decoding)."""

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_b(self.q_norm(self.q_a(x))).unflatten(-1, (self.heads, -1))
        plain, turned = q.split([self.nope, self.rope], -1)
        latent, rope = self.kv_a(x).split([self.rank, self.rope], -1)
        latent = self.kv_norm(latent)
        up = self.kv_b.weight.view(self.heads, self.nope + self.v, self.rank)
        query = torch.einsum("bshd,hdc->bshc", plain, up[:, : self.nope])
        scores = torch.einsum("bshc,btc->bhst", query, latent)
        scores = scores + torch.einsum("bshr,btr->bhst", torch.tanh(turned), torch.tanh(rope))
        mixed = torch.einsum("bhst,btc->bshc", scores.softmax(-1), latent)
        return self.o(torch.einsum("bshc,hdc->bshd", mixed, up[:, self.nope :]).flatten(2))


def test_latent_attention_absorbed() -> None:
    """Here the rank is contracted between activations, so "what attention contracts is a head dim beside heads" would
    ask for a partner that it has not; and the up-projection is batched over heads, as experts are. Same verdicts."""
    holds(LanguageModel(Absorbed()), ids(), FRAME + LATENT)


E = 18  # the encoder's width


class Crossing(nn.Module):
    """A decoder of width D reads an encoder of width E."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.enc, self.wte = nn.Embedding(V, E), nn.Linear(E, E), nn.Embedding(V, D)
        self.q, self.o = nn.Linear(D, HEADS * HD, bias=False), nn.Linear(HEADS * HD, D, bias=False)
        self.head = nn.Linear(D, V, bias=False)
        self.make()

    def make(self) -> None:
        self.k, self.v = nn.Linear(E, HEADS * HD, bias=False), nn.Linear(E, HEADS * HD, bias=False)

    def keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        return self.k(memory), self.v(memory)

    def forward(self, idx: Tensor, source: Tensor) -> Tensor:
        memory, x = nnf.gelu(self.enc(self.source(source))), self.wte(idx)
        q, k, v = (z.unflatten(-1, (HEADS, HD)).transpose(1, 2) for z in (self.q(x), *self.keys(memory)))
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.head(nnf.rms_norm(x + self.o(y.transpose(1, 2).flatten(2)), (D,)))


class CrossingFused(Crossing):
    def make(self) -> None:
        self.kv = nn.Linear(E, 2 * HEADS * HD, bias=False)

    def keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        return self.kv(memory).chunk(2, -1)  # type: ignore[return-value]


class CrossingByHead(Crossing):
    def make(self) -> None:
        self.k, self.v = nn.Parameter(torch.zeros(E, HEADS, HD)), nn.Parameter(torch.zeros(E, HEADS, HD))

    def keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (torch.einsum("bte,ehd->bthd", memory, w) for w in (self.k, self.v))
        return k.flatten(2), v.flatten(2)


CROSSING = """
    source.weight  input   .n
    enc.weight     hidden  nn
    enc.bias       vector  n
    wte.weight     input   .n
    [qo].weight    hidden  nn
    head.weight    output  .n
"""


@pytest.mark.parametrize(
    ("spelling", "rows", "keys", "encoder"),
    [
        (Crossing, "[kv].weight  hidden  nn", "k.weight", 1),
        (CrossingFused, "kv.weight  hidden  nn", "kv.weight", 1),
        (CrossingByHead, "[kv]  hidden  nn.", "k", 0),
    ],
)
def test_two_widths_meet_in_cross_attention(spelling: type[nn.Module], rows: str, keys: str, encoder: int) -> None:
    """ "An axis grows when it is as long as d_model" fails: the encoder's width is another. So does "a weight's two
    axes are one width": keys read the encoder and make the decoder's heads."""
    found = holds(spelling(), (ids(), torch.zeros(B, 5, dtype=torch.long)), CROSSING + rows).parameters
    assert found[keys].axes[encoder] == found["enc.weight"].axes[0] != found["q.weight"].axes[1]


class SharedKey(nn.Module):
    """Multi-query: one kv head, kept as an axis of size one."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(D, HEADS * HD, bias=False), nn.Linear(HEADS * HD, D, bias=False)
        self.k, self.v = nn.Linear(D, HD, bias=False), nn.Linear(D, HD, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (HEADS, HD)).transpose(1, 2)
        return self.o(self.mix(q, self.k(x), self.v(x)).transpose(1, 2).flatten(2))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nnf.scaled_dot_product_attention(q, k.unsqueeze(1), v.unsqueeze(1), enable_gqa=True)


class SharedKeyExpanded(SharedKey):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (z[:, None].expand(-1, HEADS, -1, -1) for z in (k, v))
        return nnf.scaled_dot_product_attention(q, k, v)


class SharedKeyEinsum(SharedKey):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.einsum("bhst,btd->bhsd", torch.einsum("bhsd,btd->bhst", q, k).softmax(-1), v)


class SharedKeyFolded(SharedKey):
    """Heads folded into the queries' places: (batch, heads * length, head_dim)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, t, d = q.shape
        scores = torch.bmm(q.reshape(b, h * t, d), k.transpose(1, 2)).softmax(-1)
        return torch.bmm(scores, v).view(b, h, t, d)


MULTI_QUERY = """
    block.[qo].weight  hidden  nn
    block.[kv].weight  output  .n   # one kv head: what is left is head_dim, which is fixed
"""


@pytest.mark.parametrize("spelling", [SharedKey, SharedKeyExpanded, SharedKeyEinsum, SharedKeyFolded])
def test_one_kv_head(spelling: type[nn.Module]) -> None:
    """MQA. "k_proj is a hidden matrix" (by name, or because its input is wide) fails: a single head of a fixed size
    comes out, so keys and values are output-like and start at 1/width, not 1/sqrt(width)."""
    holds(LanguageModel(spelling()), ids(), FRAME + MULTI_QUERY)


@pytest.mark.parametrize("heads", [3, 6])
def test_one_kv_head_in_separate_projections(heads: int) -> None:
    """The same by repeat_interleave, with as many heads as make heads * head_dim equal d_model, and not."""
    holds(LanguageModel(Separate(heads, 1)), ids(), FRAME + MULTI_QUERY)


class Fused(nn.Module):
    """One linear for queries, keys and values; `cut` says how its rows are laid out."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = D // HD
        self.qkv, self.o = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(attend(*self.cut(self.qkv(x))))

    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.view(B, T, 3, self.heads, HD).unbind(2)


class FusedPermuted(Fused):
    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        q, k, v = rows.reshape(B, T, 3, self.heads, HD).permute(2, 0, 1, 3, 4)
        return q, k, v


class FusedChunked(Fused):
    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(z.view(B, T, self.heads, HD) for z in rows.chunk(3, -1))


class FusedSliced(Fused):
    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(rows[..., i * D : (i + 1) * D].unflatten(-1, (self.heads, HD)) for i in range(3))


class FusedHeadFirst(Fused):
    """GPT-NeoX: each head's rows are its query, key and value."""

    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.view(B, T, self.heads, 3 * HD).chunk(3, -1)


class FusedHeadFirstView(Fused):
    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        z = rows.view(B, T, self.heads, 3, HD)
        return z[:, :, :, 0], z[:, :, :, 1], z[:, :, :, 2]


class FusedInnermost(Fused):
    """The three are the minor factor of every row."""

    def cut(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.view(B, T, self.heads, HD, 3).unbind(-1)


SPLIT = [Fused, FusedPermuted, FusedChunked, FusedSliced]
MIXED = [FusedHeadFirst, FusedHeadFirstView, FusedInnermost]


@pytest.mark.parametrize("spelling", SPLIT + MIXED)
def test_rows_of_three(spelling: type[Fused]) -> None:
    """`view(B, T, 3, h, hd)`. "Only heads grow among an axis's factors, the first one" and "the axis is 3 d_model, so
    it is no width" both fail: 3 is a count and head_dim is fixed, wherever they stand."""
    found = holds(LanguageModel(spelling()), ids(), FRAME + "block.*.weight  hidden  nn\nblock.*.bias  vector  n")
    if spelling in SPLIT:
        third = [(0, D, "hidden"), (D, 2 * D, "hidden"), (2 * D, 3 * D, "hidden")]
        assert parts(found, "block.qkv.weight") == third


def test_rows_of_three_in_one_parameter() -> None:
    """(3, d_model, heads, head_dim), taken apart by iterating: 3 is as long as a list in the code."""
    holds(LanguageModel(Ellipsis_()), ids(), FRAME + "block.qkv  hidden  .nn.\nblock.out  hidden  n.n")


class Layer(nn.Module):
    """Attention whose values are mixed with the first layer's by learned scalars; `mix` says how."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.scalars()

    def scalars(self) -> None:
        self.lambdas = nn.Parameter(torch.zeros(2))

    def mix(self, v: Tensor, first: Tensor) -> Tensor:
        return self.lambdas[0] * v + self.lambdas[1] * first.view_as(v)

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = (z.view(B, T, D // HD, HD) for z in self.qkv(nnf.rms_norm(x, (D,))).chunk(3, -1))
        v = v if first is None else self.mix(v, first)
        return x + self.o(attend(q, k, v)), v if first is None else first


class OneScalar(Layer):
    def scalars(self) -> None:
        self.lamb = nn.Parameter(torch.zeros(()))

    def mix(self, v: Tensor, first: Tensor) -> Tensor:
        return (1 - self.lamb) * v + self.lamb * first


class Lerped(OneScalar):
    def mix(self, v: Tensor, first: Tensor) -> Tensor:
        return torch.lerp(v, first, torch.sigmoid(self.lamb))


class Added(OneScalar):
    def mix(self, v: Tensor, first: Tensor) -> Tensor:
        return v.add(first * self.lamb.exp())


class Softened(Layer):
    """Weights that sum to one, and a product with them stacked."""

    def mix(self, v: Tensor, first: Tensor) -> Tensor:
        return torch.einsum("n,n...->...", self.lambdas.softmax(0), torch.stack([v, first]))


class ValueResidual(nn.Module):
    def __init__(self, layer: type[Layer]) -> None:
        super().__init__()
        self.wte, self.layers = nn.Embedding(V, D), nn.ModuleList(layer() for _ in range(3))
        self.head = nn.Linear(D, V, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        x, first = self.wte(idx), None
        for layer in self.layers:
            x, first = layer(x, first)
        return self.head(nnf.rms_norm(x, (D,)))


@pytest.mark.parametrize(
    ("spelling", "row"),
    [
        (Layer, "lambdas  scalar  ."),
        (Softened, "lambdas  scalar  ."),
        (OneScalar, "lamb  scalar"),
        (Lerped, "lamb  scalar"),
        (Added, "lamb  scalar"),
    ],
)
def test_values_mixed_with_the_first(spelling: type[Layer], row: str) -> None:
    """Value residuals. "A 1-D parameter is a gain, vector-like along the width" fails: (2,) holds two numbers. So does
    "the first block is like the others": nothing is mixed there, and its scalars do nothing."""
    table = """
        wte.weight         input   .n
        layers.*.weight    hidden  nn
        head.weight        output  .n
    """
    first = "layers.0." + row.replace("scalar", "unused", 1)
    holds(ValueResidual(spelling), ids(), table + first + "\nlayers.[12]." + row)
