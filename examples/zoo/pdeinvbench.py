"""PDEInvBench: the parameters of a PDE from its solution (inverse problems), with an FNO and a ResNet encoder.

An encoder maps a few frames of the solution to features, a convolutional downsampler to a vector, and one small head
per parameter to its logarithm. The FNO's spectral weights are complex: one matrix of channels to channels a mode.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 32, "hidden": 40}
PARAMETERS = ("viscosity", "diffusivity", "reaction")


class SpectralConv(nn.Module):
    """The lowest modes of the real FFT, each through a complex matrix of its own."""

    def __init__(self, width: int, modes: int):
        super().__init__()
        self.modes = modes
        scale = 1 / width
        self.low = nn.Parameter(scale * torch.randn(width, width, modes, modes, dtype=torch.cfloat))
        self.high = nn.Parameter(scale * torch.randn(width, width, modes, modes, dtype=torch.cfloat))

    def forward(self, x):
        m, waves = self.modes, torch.fft.rfft2(x)
        out = torch.zeros_like(waves)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", waves[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", waves[:, :, -m:, :m], self.high)
        return torch.fft.irfft2(out, s=x.shape[-2:])


class FNO(nn.Module):
    def __init__(self, frames: int, width: int, modes: int = 4, depth: int = 2):
        super().__init__()
        self.lift = nn.Conv2d(frames + 2, width, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, modes) for _ in range(depth))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))

    def forward(self, x):
        grid = torch.meshgrid(*(torch.linspace(0, 1, n, device=x.device) for n in x.shape[-2:]), indexing="ij")
        x = self.lift(torch.cat([x, torch.stack(grid).expand(x.shape[0], -1, -1, -1)], 1))
        for spectral, local in zip(self.spectral, self.local):
            x = F.gelu(spectral(x) + local(x))
        return x


class ResNet(nn.Module):
    def __init__(self, frames: int, width: int, depth: int = 2):
        super().__init__()
        self.stem = nn.Conv2d(frames, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(4, width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(depth)
        )

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return x


class Inverse(nn.Module):
    def __init__(self, frames: int, width: int, hidden: int):
        super().__init__()
        self.fno, self.resnet = FNO(frames, width), ResNet(frames, width)
        self.down = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.0), nn.MaxPool2d(2)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1)) for _ in PARAMETERS
        )

    def forward(self, frames):
        """The logarithm of each parameter."""
        x = self.down(torch.cat([self.fno(frames), self.resnet(frames)], 1)).mean((2, 3))
        return torch.cat([head(x) for head in self.heads], -1)


def build(width: int = 16, hidden: int = 20) -> nn.Module:
    return Inverse(frames=5, width=width, hidden=hidden)


def example_inputs():
    return torch.randn(2, 5, 16, 16)


def loss(model, frames):
    return F.mse_loss(model(frames), frames.abs().mean((2, 3))[:, :3].log())
