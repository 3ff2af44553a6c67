"""HyPINO (Bischof et al.; code rbischof/hypino): a hypernetwork reads a PDE and writes a PINN that solves it.

A Swin encoder sees the boundary and source grids, modulated (FiLM) by the PDE's coefficients; each of its stages is
pooled by learned queries, one query for each weight and each bias of the target network. The target network is small
and of a fixed width, and none of its weights is a parameter: they are activations, multiplied with other activations.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class FourierFeatures(nn.Module):
    """Fixed frequencies, per input: nothing here is learned."""

    def __init__(self, inputs: int, bands: int = 5, scale: float = 0.1):
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(bands) * scale)
        self.features = inputs * (2 * bands + 1)

    def forward(self, x):
        angles = (2 * math.pi * x.unsqueeze(-1) * self.frequencies).flatten(-2)
        return torch.cat([angles.sin(), angles.cos(), x], dim=-1)


class FourierImage(FourierFeatures):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def stem(inputs, outputs, last):
    first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    return nn.Sequential(first, nn.GELU(), nn.Conv2d(outputs, outputs, 3, stride=2, padding=1), last)


def positions(channels, height, width, device):
    """Sines and cosines of the row in one half of the channels, of the column in the other."""
    frequencies = 10000.0 ** (-torch.arange(0, channels // 2, 2, device=device) / (channels // 2))
    rows = torch.arange(height, device=device).unsqueeze(-1) * frequencies
    columns = torch.arange(width, device=device).unsqueeze(-1) * frequencies
    rows = torch.stack([rows.sin(), rows.cos()], dim=-1).flatten(1).unsqueeze(1).expand(-1, width, -1)
    columns = torch.stack([columns.sin(), columns.cos()], dim=-1).flatten(1).unsqueeze(0).expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).permute(2, 0, 1)


class WindowAttention(nn.Module):
    """Attention within windows of w x w places, with a learned bias for each relative position and head."""

    def __init__(self, dim: int, heads: int, window: int, shift: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.relative = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        offsets = places[:, None] - places[None, :] + window - 1
        self.register_buffer("index", offsets[..., 0] * (2 * window - 1) + offsets[..., 1])

    def forward(self, x):
        B, H, W, C = x.shape
        w = self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(B, H // w, w, W // w, w, C).transpose(2, 3).reshape(-1, w * w, C)
        q, k, v = self.qkv(x).view(-1, w * w, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (C // self.heads) ** -0.5) @ k.transpose(-2, -1) + self.relative[self.index].permute(2, 0, 1)
        x = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, w * w, C))
        x = x.view(B, H // w, W // w, w, w, C).transpose(2, 3).reshape(B, H, W, C)
        return torch.roll(x, (self.shift, self.shift), (1, 2))


class SwinBlock(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, shift: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), WindowAttention(dim, heads, window, shift)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one place of twice the channels."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1)
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Swin blocks, then FiLM: the coefficients scale and shift every channel."""

    def __init__(self, dim: int, heads: int, window: int, cond: int, shifts, merge: bool):
        super().__init__()
        self.merge = PatchMerging(dim // 2) if merge else nn.Identity()
        self.blocks = nn.Sequential(*[SwinBlock(dim, heads, window, shift) for shift in shifts])
        self.gamma, self.beta = nn.Linear(cond, dim), nn.Linear(cond, dim)

    def forward(self, x, cond):
        x = self.blocks(self.merge(x))
        return self.gamma(cond)[:, None, None] * x + self.beta(cond)[:, None, None]


class AttentionPooling(nn.Module):
    def __init__(self, dim: int, heads: int, queries: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, dim))
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x):
        queries = self.queries.unsqueeze(0).expand(len(x), -1, -1)
        return self.attention(queries, x, x, need_weights=False)[0]


class Encoder(nn.Module):
    """The grids are: Dirichlet mask, Neumann mask, Dirichlet values, Neumann values, source."""

    def __init__(self, coeffs: int, dim: int, heads, window: int, coeff_dim: int, stats_dim: int):
        super().__init__()
        self.fourier_values, self.fourier_source = FourierImage(2), FourierImage(1)
        self.scale, self.shift = stem(2, dim // 2, nn.Tanh()), stem(2, dim // 2, nn.GELU())
        self.values = stem(self.fourier_values.features, dim // 2, nn.GELU())
        self.source = stem(self.fourier_source.features, dim // 2, nn.GELU())
        self.mix, self.norm = nn.Conv2d(dim, dim, 1), nn.GroupNorm(2, dim)
        self.fourier_coeffs, self.fourier_stats = FourierFeatures(coeffs), FourierFeatures(12)
        self.coeffs = nn.Linear(self.fourier_coeffs.features, coeff_dim)
        self.stats = nn.Linear(self.fourier_stats.features, stats_dim)
        first = Stage(dim, heads[0], window, coeff_dim + stats_dim, (0, window // 2), merge=False)
        second = Stage(2 * dim, heads[1], window, coeff_dim + stats_dim, (0, 0), merge=True)
        self.stages = nn.ModuleList([first, second])

    def forward(self, coeffs, grids):
        source = grids[:, 4:].sign() * grids[:, 4:].abs().log1p()
        masks, values = grids[:, :2], grids[:, 2:4]
        seen = torch.cat([values, source], dim=1)
        stats = [seen.mean((2, 3)), seen.amax((2, 3)), seen.amin((2, 3)), seen.std((2, 3))]
        stats = self.fourier_stats(torch.cat(stats, dim=-1))
        cond = torch.cat([F.gelu(self.coeffs(self.fourier_coeffs(coeffs))), F.gelu(self.stats(stats))], dim=-1)
        boundary = self.shift(masks) + self.scale(masks) * self.values(self.fourier_values(values))
        x = torch.cat([boundary, self.source(self.fourier_source(source))], dim=1)
        x = x + positions(*x.shape[1:], x.device)
        x = self.norm(self.mix(x)).permute(0, 2, 3, 1)
        stages = []
        for stage in self.stages:
            x = stage(x, cond)
            stages.append(x)
        return stages


def head(features, hidden, outputs):
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.GroupNorm(4, hidden), nn.Linear(hidden, outputs))


class HyPINO(nn.Module):
    def __init__(self, coeffs, dim, heads, window, coeff_dim, stats_dim, hidden, target_width, target_layers):
        super().__init__()
        self.encoder = Encoder(coeffs, dim, heads, window, coeff_dim, stats_dim)
        self.fourier = FourierFeatures(2)
        m, n = target_width, self.fourier.features
        self.shapes = [(n, m)] * 3 + [(m, m)] * target_layers + [(m, 1)]
        queries = 2 * len(self.shapes)
        self.pools = nn.ModuleList([AttentionPooling(dim * 2**i, h, queries) for i, h in enumerate(heads)])
        features = sum(dim * 2**i for i in range(len(heads)))
        self.weights = nn.ModuleList([head(features, hidden, a * b) for a, b in self.shapes])
        self.biases = nn.ModuleList([head(features, hidden, b) for _, b in self.shapes])

    def forward(self, coeffs, grids, points):
        stages = self.encoder(coeffs, grids)
        pooled = torch.cat([pool(x.flatten(1, 2)) for pool, x in zip(self.pools, stages, strict=True)], dim=-1)
        count = len(self.shapes)
        weights = [make(pooled[:, i]).view(-1, *self.shapes[i]) for i, make in enumerate(self.weights)]
        biases = [make(pooled[:, count + i]).unsqueeze(1) for i, make in enumerate(self.biases)]
        return self.target(points, weights, biases)

    def target(self, points, weights, biases):
        """The generated PINN: two gates u and v, between which every layer's output chooses."""
        x = self.fourier(points)
        u, v, x = (torch.tanh(torch.bmm(x, weights[i]) + biases[i]) for i in range(3))
        for weight, bias in zip(weights[3:-1], biases[3:-1], strict=True):
            x = torch.tanh(torch.bmm(u * x + v * (1 - x), weight) + bias)
        return torch.bmm(x, weights[-1]) + biases[-1]


def build(
    coeffs=5, dim=24, heads=(3, 6), window=4, coeff_dim=20, stats_dim=28, hidden=44, target_width=6, target_layers=3
) -> nn.Module:
    return HyPINO(coeffs, dim, heads, window, coeff_dim, stats_dim, hidden, target_width, target_layers)


WIDE = {"dim": 48, "heads": (6, 12), "coeff_dim": 40, "stats_dim": 56, "hidden": 88}


def example_inputs():
    """Coefficients of u, u_x, u_y, u_xx and u_yy; five grids; the points where the solution is asked for."""
    return torch.randn(2, 5), torch.randn(2, 5, 32, 32), torch.rand(2, 9, 2)


def loss(model, coeffs, grids, points):
    """The PDE's residual at the points, its source read off the grid at the nearest place."""
    points = points.detach().requires_grad_()
    u = model(coeffs, grids, points)
    first = torch.autograd.grad(u.sum(), points, create_graph=True)[0]
    second = [torch.autograd.grad(first[..., i].sum(), points, create_graph=True)[0][..., i] for i in range(2)]
    terms = torch.stack([u[..., 0], first[..., 0], first[..., 1], *second], dim=-1)
    place = (points * grids.shape[-1]).long()
    source = grids[torch.arange(len(grids))[:, None], 4, place[..., 0], place[..., 1]]
    return F.huber_loss((terms * coeffs[:, None]).sum(-1), source)
