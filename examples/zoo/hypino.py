"""HyPINO: a Swin hypernetwork writes the weights of a physics-informed network (Bischof et al. 2025).

Grids of a PDE's source and boundary go through shifted-window attention, modulated by the PDE's coefficients; learned
queries pool every stage, and one head per target layer turns its queries into that layer's m x m weight. The target is
a small network on Fourier features, with gates; its width m is fixed, as that of any generated network.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 64, "heads": 8, "pooled": 48}


class Window(nn.Module):
    """Swin's block: attention within windows, shifted in every second block."""

    def __init__(self, width: int, heads: int, window: int, shift: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x):
        B, H, W, C = x.shape
        w = self.window
        x = x.roll((-self.shift, -self.shift), (1, 2))
        x = x.view(B, H // w, w, W // w, w, C).transpose(2, 3).reshape(-1, w * w, C)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, C // self.heads)).permute(2, 0, 3, 1, 4)
        x = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x.view(B, H // w, W // w, w, w, C).transpose(2, 3).reshape(B, H, W, C)
        return x.roll((self.shift, self.shift), (1, 2))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Stage(nn.Module):
    """Blocks, FiLM from the coefficients, and pooling by queries of its own."""

    def __init__(self, width: int, heads: int, coefficients: int, queries: int):
        super().__init__()
        self.blocks = nn.ModuleList([Window(width, heads, 4, 0), Window(width, heads, 4, 2)])
        self.film = nn.Linear(coefficients, 2 * width)
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(self, x, coefficients):
        for block in self.blocks:
            x = block(x)
        gain, shift = self.film(coefficients)[:, None, None].chunk(2, -1)
        x = x * (1 + gain) + shift
        tokens = x.flatten(1, 2)
        weights = (self.queries @ self.key(tokens).transpose(1, 2) / tokens.shape[-1]).softmax(-1)
        return x, weights @ self.value(tokens)


class Emit(nn.Module):
    """Pooled features of one target layer to its weight and bias: theta = V h / n_h + theta_0."""

    def __init__(self, n_in: int, hidden: int, rows: int, columns: int):
        super().__init__()
        self.up, self.norm = nn.Linear(n_in, hidden), nn.GroupNorm(1, hidden)
        self.weight, self.bias = nn.Linear(hidden, rows * columns), nn.Linear(hidden, rows)
        self.rows, self.columns = rows, columns

    def forward(self, pooled):
        h = self.norm(F.gelu(self.up(pooled)))
        return self.weight(h).view(-1, self.rows, self.columns), self.bias(h)


class HyPINO(nn.Module):
    def __init__(
        self, width: int, heads: int, pooled: int, m: int, coefficients: int, fourier: int, hidden_layers: int
    ):
        super().__init__()
        queries = hidden_layers + 4
        self.source, self.boundary = nn.Conv2d(1, width, 2, stride=2), nn.Conv2d(2, width, 2, stride=2)
        self.stages = nn.ModuleList(Stage(width, heads, coefficients, queries) for _ in range(2))
        self.register_buffer("frequencies", torch.randn(2, fourier // 2))
        shapes = [(m, fourier)] * 3 + [(m, m)] * hidden_layers + [(1, m)]
        self.emit = nn.ModuleList(Emit(2 * width, pooled, *shape) for shape in shapes)

    def forward(self, source, boundary, coefficients, points):
        """The target network, as written for these PDEs, at the points."""
        x = (self.source(source) + self.boundary(boundary)).permute(0, 2, 3, 1)
        found = []
        for stage in self.stages:
            x, pooled = stage(x, coefficients)
            found.append(pooled)
        pooled = torch.cat(found, -1).unbind(1)
        layers = [emit(one) for emit, one in zip(self.emit, pooled)]
        waves = points @ self.frequencies
        waves = torch.cat([waves.sin(), waves.cos()], -1)

        def apply(layer, z):
            return z @ layer[0].transpose(1, 2) + layer[1][:, None]

        u, v = torch.tanh(apply(layers[0], waves)), torch.tanh(apply(layers[1], waves))
        z = torch.tanh(apply(layers[2], waves))
        for layer in layers[3:-1]:
            z = torch.tanh(apply(layer, z))
            z = u * z + v * (1 - z)
        return apply(layers[-1], z)[..., 0]


def build(width: int = 32, heads: int = 4, pooled: int = 24) -> nn.Module:
    return HyPINO(width, heads, pooled, m=12, coefficients=5, fourier=22, hidden_layers=2)


def example_inputs():
    return torch.randn(2, 1, 16, 16), torch.randn(2, 2, 16, 16), torch.randn(2, 5), torch.rand(2, 10, 2)


def loss(model, source, boundary, coefficients, points):
    return F.mse_loss(model(source, boundary, coefficients, points), points.prod(-1))
