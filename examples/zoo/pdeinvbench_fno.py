"""PDEInvBench (ASK-Berkeley) with its FNO encoder (Li et al., 2010.08895): frames of a solution in, PDE parameters out.

The encoder keeps the grid, convolutions and pooling shrink it, and one MLP for each parameter of the PDE reads the
rest; parameters live on a logarithmic scale. A spectral layer multiplies the lowest frequencies by complex matrices.
"""

import torch
import torch.nn.functional as F
from torch import nn


class SpectralConv(nn.Module):
    """One complex matrix for each kept frequency; of the first axis' frequencies, both the positive and negative."""

    def __init__(self, width: int, modes: int):
        super().__init__()
        self.modes = modes
        shape = (width, width, modes, modes)
        self.low = nn.Parameter(torch.randn(shape, dtype=torch.cfloat) / width)
        self.high = nn.Parameter(torch.randn(shape, dtype=torch.cfloat) / width)

    def forward(self, x):
        m, spectrum = self.modes, torch.fft.rfft2(x)
        out = torch.zeros_like(spectrum)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, -m:, :m], self.high)
        return torch.fft.irfft2(out, s=x.shape[-2:])


class FNOBlock(nn.Module):
    def __init__(self, width: int, modes: int):
        super().__init__()
        self.spectral, self.skip = SpectralConv(width, modes), nn.Conv2d(width, width, 1)

    def forward(self, x):
        return F.gelu(self.spectral(x) + self.skip(x))


class FNOEncoder(nn.Module):
    """Lifting, Fourier layers, projection; the output is not a solution but features, as many as the width."""

    def __init__(self, frames: int, width: int, lifting: int, layers: int, modes: int):
        super().__init__()
        self.lift = nn.Sequential(nn.Conv2d(frames, lifting, 1), nn.GELU(), nn.Conv2d(lifting, width, 1))
        self.blocks = nn.Sequential(*[FNOBlock(width, modes) for _ in range(layers)])
        self.project = nn.Sequential(nn.Conv2d(width, lifting, 1), nn.GELU(), nn.Conv2d(lifting, width, 1))

    def forward(self, x):
        return self.project(self.blocks(self.lift(x)))


class ConvDownsampler(nn.Module):
    def __init__(self, width: int, layers: int):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(layers)])

    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(F.dropout(F.relu(conv(x)), 0.1, self.training), 2)
        return x


def head(features, hidden):
    last = [nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)]
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), *last)


class ParameterNet(nn.Module):
    def __init__(self, encoder: nn.Module, width: int, size: int, downs: int, hidden: int, parameters: int):
        super().__init__()
        self.encoder, self.downsampler = encoder, ConvDownsampler(width, downs)
        features = width * (size // 2**downs) ** 2
        self.heads = nn.ModuleList([head(features, hidden) for _ in range(parameters)])

    def forward(self, x):
        x = self.downsampler(self.encoder(x)).flatten(1)
        return torch.cat([head(x) for head in self.heads], dim=-1).exp()


def build(frames=6, width=20, lifting=28, layers=3, modes=5, size=16, downs=2, hidden=44, parameters=3) -> nn.Module:
    return ParameterNet(FNOEncoder(frames, width, lifting, layers, modes), width, size, downs, hidden, parameters)


WIDE = {"width": 40, "lifting": 56, "hidden": 88}


def example_inputs():
    """Past frames of the solution and its derivatives, stacked along the channels."""
    return torch.randn(2, 6, 16, 16)


def loss(model, frames):
    """The relative error of the parameters, here all one."""
    return (model(frames) - 1).abs().mean()
