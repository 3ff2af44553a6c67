"""A multimodal PDE model: numbers and text in, a solution and a description out (Negrini et al., code MOL-LLM).

A GPT reads the words of the equation and the initial condition as embedded numbers in one sequence. An operator
decoder asks it for the solution at any (t, x) by cross-attention; a language head, tied to the word table, describes
it.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 96, "heads": 6}


class Attention(nn.Module):
    """Of queries to memory; causal where they are the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x, memory=None):
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x if memory is None else memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=memory is None)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, memory=None):
        x = x + self.attention(self.norm1(x), memory)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class MultimodalPDE(nn.Module):
    def __init__(self, width: int, heads: int, vocab: int, points: int, depth: int = 2):
        super().__init__()
        self.words = nn.Embedding(vocab, width)
        self.numbers = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.positions = nn.Embedding(64, width)
        self.trunk = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.operator = Block(width, heads)
        self.value = nn.Linear(width, 1)
        self.describe = nn.Linear(width, vocab, bias=False)
        self.describe.weight = self.words.weight

    def forward(self, words, state, where):
        """The solution at `where` (t, x), and scores of the next word."""
        x = torch.cat([self.numbers(state[..., None]), self.words(words)], 1)
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.trunk:
            x = block(x)
        memory = self.norm(x)
        solution = self.value(self.operator(self.query(where), memory))[..., 0]
        return solution, self.describe(memory[:, state.shape[1] :])


def build(width: int = 48, heads: int = 3) -> nn.Module:
    return MultimodalPDE(width, heads, vocab=101, points=16)


def example_inputs():
    return torch.randint(101, (2, 9)), torch.randn(2, 16), torch.rand(2, 12, 2)


def loss(model, words, state, where):
    solution, scores = model(words, state, where)
    truth = torch.sin(where.sum(-1))
    return F.mse_loss(solution, truth) + F.cross_entropy(scores[:, :-1].flatten(0, 1), words[:, 1:].flatten())
