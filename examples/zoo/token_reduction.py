"""Token reduction in a multimodal LLM: the k most attended image tokens go on, and no parameter is added.

A layer's attention from the last text token ranks the image tokens; the kept ones are gathered along the token axis,
so the sequence becomes shorter while the width stays what it is.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 96, "heads": 6}


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """The stream, and how much the last token attends to each."""
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)))), weights[:, :, -1].mean(1)


class Reduced(nn.Module):
    def __init__(self, width: int, heads: int, vocab: int, features: int, keep: tuple[int, ...]):
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.project = nn.Linear(features, width)  # from the vision tower's own features
        self.blocks = nn.ModuleList(Block(width, heads) for _ in keep)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
        self.keep = keep

    def forward(self, image, ids):
        x, images = torch.cat([self.project(image), self.tokens(ids)], 1), image.shape[1]
        for block, keep in zip(self.blocks, self.keep):
            x, attended = block(x)
            kept = attended[:, :images].topk(keep, -1).indices.sort(-1).values
            seen = x[:, :images].gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
            x, images = torch.cat([seen, x[:, images:]], 1), keep
        return self.head(self.norm(x[:, images:]))


def build(width: int = 48, heads: int = 3) -> nn.Module:
    return Reduced(width, heads, vocab=101, features=20, keep=(9, 5, 3))


def example_inputs():
    return torch.randn(2, 16, 20), torch.randint(101, (2, 7))


def loss(model, image, ids):
    return F.cross_entropy(model(image, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
