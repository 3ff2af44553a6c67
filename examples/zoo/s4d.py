"""S4D: a diagonal state space model as a long convolution (Gu et al. 2022, arXiv 2206.11893), with S4D-Lin's start.

Every channel has a small complex state of its own; its kernel K_l = 2 Re sum_n C_n (e^{dt A_n} - 1) / A_n e^{dt A_n l}
is convolved with the channel by FFT. Channels are mixed only by the output's pointwise convolution and GLU.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}


class S4DKernel(nn.Module):
    def __init__(self, width: int, state: int, dt_min: float = 1e-3, dt_max: float = 1e-1):
        super().__init__()
        n = state // 2  # conjugate pairs
        self.log_dt = nn.Parameter(torch.rand(width) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min))
        self.C = nn.Parameter(torch.view_as_real(torch.randn(width, n, dtype=torch.cfloat)))
        self.log_A_real = nn.Parameter(torch.log(0.5 * torch.ones(width, n)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(n).float().repeat(width, 1))

    def forward(self, length: int):
        dt, A = self.log_dt.exp(), torch.complex(-self.log_A_real.exp(), self.A_imag)
        dtA = A * dt[:, None]
        C = torch.view_as_complex(self.C) * (dtA.exp() - 1) / A
        powers = (dtA[..., None] * torch.arange(length, device=A.device)).exp()
        return 2 * torch.einsum("hn,hnl->hl", C, powers).real


class S4D(nn.Module):
    def __init__(self, width: int, state: int):
        super().__init__()
        self.norm, self.kernel, self.D = nn.LayerNorm(width), S4DKernel(width, state), nn.Parameter(torch.randn(width))
        self.out = nn.Conv1d(width, 2 * width, 1)

    def forward(self, x):
        u = self.norm(x).transpose(1, 2)
        length = u.shape[-1]
        k = torch.fft.rfft(self.kernel(length), n=2 * length)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * k, n=2 * length)[..., :length] + u * self.D[:, None]
        return x + F.glu(self.out(F.gelu(y)), dim=1).transpose(1, 2)


class Model(nn.Module):
    def __init__(self, features: int, width: int, state: int, depth: int, classes: int):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(features, width), nn.Linear(width, classes)
        self.layers = nn.ModuleList(S4D(width, state) for _ in range(depth))

    def forward(self, x):
        x = self.encoder(x)
        for layer in self.layers:
            x = layer(x)
        return self.decoder(x.mean(1))


def build(width: int = 24, state: int = 16) -> nn.Module:
    return Model(5, width, state, depth=2, classes=10)


def example_inputs():
    return torch.randn(4, 32, 5)


def loss(model, x):
    return F.cross_entropy(model(x), torch.arange(x.shape[0]) % 10)


def optimizers(model):
    """The kernel's parameters have a rate of their own and no decay."""
    own = [p for name, p in model.named_parameters() if ".kernel." in name]
    rest = [p for name, p in model.named_parameters() if ".kernel." not in name]
    return [torch.optim.AdamW([{"params": own, "lr": 1e-3, "weight_decay": 0.0}, {"params": rest}], lr=4e-3)]
