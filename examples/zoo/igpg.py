"""IGPG: network weights, written as text is (Bedionita, Andreis, Chong, Hwang 2025, arXiv 2504.02012).

A VQ-VAE turns chunks of a network's weights into codes; an autoregressive transformer writes the codes, after a prefix
that tells the task and the architecture. A code is chosen by argmin, and the gradient passes straight through.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48, "model": 96, "heads": 6}
EQUAL = [{"width": 33, "model": 33}, {"width": 32, "model": 32, "heads": 4}]  # the codes; the positions


class VQVAE(nn.Module):
    def __init__(self, chunk: int, width: int, codes: int):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(chunk, width), nn.GELU(), nn.Linear(width, width))
        self.codebook = nn.Parameter(torch.randn(codes, width))
        self.decode = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, chunk))

    def forward(self, chunks):
        """The chunks rebuilt, their codes, and what draws codes and encodings together."""
        z = self.encode(chunks)
        distance = z.pow(2).sum(-1, keepdim=True) - 2 * z @ self.codebook.T + self.codebook.pow(2).sum(-1)
        codes = distance.argmin(-1)
        chosen = self.codebook[codes]
        commit = F.mse_loss(chosen, z.detach()) + 0.25 * F.mse_loss(z, chosen.detach())
        return self.decode(z + (chosen - z).detach()), codes, commit


class Writer(nn.Module):
    """Codes after a prefix: an instruction's embedding and a data set's."""

    def __init__(self, codes: int, words: int, features: int, model: int, heads: int, length: int, depth: int = 2):
        super().__init__()
        self.words, self.features = nn.Embedding(words, model), nn.Linear(features, model)
        self.codes, self.positions = nn.Embedding(codes, model), nn.Embedding(length, model)
        layer = nn.TransformerEncoderLayer(model, heads, 4 * model, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(model), nn.Linear(model, codes, bias=False)

    def forward(self, words, features, codes):
        prefix = torch.cat([self.words(words), self.features(features)[:, None]], 1)
        x = torch.cat([prefix, self.codes(codes)], 1)
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), device=x.device).triu(1)
        return self.head(self.norm(self.blocks(x, mask))[:, prefix.shape[1] - 1 : -1])


class IGPG(nn.Module):
    def __init__(self, chunk: int, width: int, codes: int, model: int, heads: int):
        super().__init__()
        self.vqvae = VQVAE(chunk, width, codes)
        self.writer = Writer(codes, words=31, features=9, model=model, heads=heads, length=32)

    def forward(self, chunks, words, features):
        """Scores of the next code, the rebuilt chunks, the codes themselves and the codebook's loss."""
        rebuilt, codes, commit = self.vqvae(chunks)
        return self.writer(words, features, codes), rebuilt, codes, commit


def build(width: int = 24, model: int = 48, heads: int = 3) -> nn.Module:
    return IGPG(chunk=20, width=width, codes=33, model=model, heads=heads)


def example_inputs():
    return torch.randn(2, 8, 20), torch.randint(31, (2, 5)), torch.randn(2, 9)


def loss(model, chunks, words, features):
    scores, rebuilt, codes, commit = model(chunks, words, features)
    return F.cross_entropy(scores.flatten(0, 1), codes.flatten()) + F.mse_loss(rebuilt, chunks) + commit
