"""What transformers and timm models taught: each trap is the smallest model that has what a library's model had."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from tests.traps.attention import HD
from tests.traps.trap import FRAME, C, D, F, LanguageModel, ids, image, trap

NARROW = 20  # a stage narrower than both its neighbours


@trap(
    image,
    """
    stem.weight       input   n...
    *.conv?.weight    hidden  nn..
    *.shortcut.weight hidden  nn..   # a stage's width, not a rank, though only adds and linears touch it
    head.weight       output  .n
    head.bias         scalar  .
    *.bias            vector  n
    """,
)
class StageOfOneBlock(nn.Module):
    """CoAtNet: a stage whose only block has a projection shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, D, 3), Projected(D, F, NARROW), Projected(NARROW, F, D)
        self.head = nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


class Projected(nn.Module):
    def __init__(self, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(n_in, hidden, 1), nn.Conv2d(hidden, n_out, 1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv2(nnf.gelu(self.conv1(x)))


@trap(
    image,
    """
    stem.weight    input   n...
    down.weight    hidden  nn..   # made linearly, used linearly, narrow: but a residual stream runs there
    up.weight      hidden  nn..
    scale          vector  n
    block.*.weight hidden  nn..
    head.weight    output  .n
    head.bias      scalar  .
    *.bias         vector  n
    """,
)
class ScaledStream(nn.Module):
    """MetaFormer: the stream is multiplied by a gain before the branch is added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = nn.Conv2d(3, D, 3), nn.Conv2d(D, NARROW, 2, stride=2), nn.Conv2d(NARROW, D, 1)
        self.scale = nn.Parameter(torch.ones(NARROW))
        self.block = nn.Sequential(nn.Conv2d(NARROW, F, 1), nn.GELU(), nn.Conv2d(F, NARROW, 1))
        self.head = nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(nnf.gelu(self.stem(x)))
        x = x * self.scale.view(-1, 1, 1) + self.block(x)
        return self.head(nnf.gelu(self.up(x)).mean((2, 3)))


@trap(
    ids,
    FRAME
    + """
    block.weight   hidden  nn
    block.bias     vector  n
    pooler.*       unused       # computed, then thrown away: it reaches no output
    """,
)
class DeadPooler(LanguageModel):
    """LayoutLM for masked words: it pools and does not return the pooled vector."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(D, D))
        self.pooler = nn.Linear(D, D)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.wte(idx)
        torch.tanh(self.pooler(x[:, 0]))
        return self.head(self.norm(x + self.block(x)))


class ByGroups(nn.Module):
    """Falcon: rows are kv heads x (queries of the group, key, value) x head_dim."""

    def __init__(self, kv: int = 2, group: int = 3) -> None:
        super().__init__()
        self.kv, self.group = kv, group
        self.qkv = nn.Linear(D, kv * (group + 2) * HD, bias=False)
        self.o = nn.Linear(kv * group * HD, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        rows = self.qkv(x).view(b, t, self.kv, self.group + 2, HD)
        q, k, v = rows[..., :-2, :], rows[..., [-2], :], rows[..., [-1], :]
        k, v = torch.broadcast_to(k, q.shape), torch.broadcast_to(v, q.shape)
        q, k, v = (y.flatten(2, 3).transpose(1, 2) for y in (q, k, v))
        y = nnf.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


@trap(ids, FRAME + "block.*.weight  hidden  nn   # the kv heads grow, a group's queries do not")
class FusedByGroups(LanguageModel):
    def __init__(self) -> None:
        super().__init__(ByGroups())


@trap(
    image,
    """
    stem.weight   input   n...
    ?.weight      hidden  nn
    head.weight   output  .n
    head.bias     scalar  .
    *.bias        vector  n
    """,
)
class SinePositions(nn.Module):
    """DETR: positions are interleaved sines, halves for rows and columns side by side, added to queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, D, 4, stride=4), nn.Linear(D, C)
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))

    def sines(self, x: Tensor) -> Tensor:
        count = D // 4
        scale = 100.0 ** (torch.arange(count, device=x.device) / count)
        at = torch.arange(x.size(-1), device=x.device)[:, None] / scale
        line = torch.stack((at.sin(), at.cos()), dim=-1).flatten(-2)
        size = len(line)
        rows, columns = line[:, None].expand(size, size, -1), line[None].expand(size, size, -1)
        return torch.cat((rows, columns), dim=-1).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        positions = self.sines(x)
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.q(x + positions), self.k(x + positions), self.v(x)
        q, k, v = (y.unflatten(-1, (-1, HD)).transpose(1, 2) for y in (q, k, v))
        y = nnf.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((x + self.o(y)).mean(1))


class ByName(nn.Module):
    """Switch Transformers: only the experts that were chosen run, found by a name made from their index."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.router = nn.Linear(D, count, bias=False)
        self.experts = nn.ModuleDict({f"expert_{e}": nn.Linear(D, D) for e in range(count)})

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        gate, chosen = self.router(flat).softmax(-1).max(-1)
        mask = nnf.one_hot(chosen, len(self.experts)).t()
        out = torch.zeros_like(flat)
        for expert in torch.greater(mask.sum(-1), 0).nonzero():
            expert = expert[0]
            (rows,) = torch.where(mask[expert])
            y = nnf.relu(self.experts[f"expert_{expert}"](flat[rows])) * gate[rows, None]
            out.index_add_(0, rows, y)
        return out.view_as(x)


@trap(
    ids,
    FRAME
    + """
    block.router.weight     output  .n
    block.experts.*.weight  hidden  nn   # every one of them, chosen here or not
    block.experts.*.bias    vector  n
    """,
)
class ExpertsByName(LanguageModel):
    def __init__(self) -> None:
        super().__init__(ByName())
