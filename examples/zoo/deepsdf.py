"""DeepSDF as DeepMesh differentiates it: a signed distance from a latent code and a point (Park et al. 2019).

Eight weight-normed layers of 512; the code and the point are fed in again at the fourth, beside the features, so that
layer's weight is partly hidden and partly input. DeepMesh then moves the code by gradients of the surface's vertices.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

WIDE = {"width": 96, "latent": 32}


class DeepSDF(nn.Module):
    def __init__(self, shapes: int, latent: int, width: int, depth: int = 8, again: int = 4):
        super().__init__()
        given = latent + 3
        self.codes = nn.Embedding(shapes, latent)
        self.first = weight_norm(nn.Linear(given, width))
        self.layers = nn.ModuleList(
            weight_norm(nn.Linear(width + given if i == again else width, width)) for i in range(1, depth)
        )
        self.head, self.again = nn.Linear(width, 1), again

    def forward(self, shape, points):
        given = torch.cat([self.codes(shape)[:, None].expand(-1, points.shape[1], -1), points], -1)
        x = F.relu(self.first(given))
        for i, layer in enumerate(self.layers, 1):
            x = F.relu(layer(torch.cat([x, given], -1) if i == self.again else x))
        return torch.tanh(self.head(x))[..., 0]


def build(width: int = 48, latent: int = 16) -> nn.Module:
    return DeepSDF(shapes=7, latent=latent, width=width)


def example_inputs():
    return torch.arange(4), torch.rand(4, 20, 3) * 2 - 1


def loss(model, shape, points):
    """Clamped distances to spheres, and a prior on the codes."""
    truth = (points.norm(dim=-1) - 0.3 - 0.1 * shape[:, None]).clamp(-0.1, 0.1)
    return F.l1_loss(model(shape, points).clamp(-0.5, 0.5), truth) + 1e-4 * model.codes.weight.pow(2).mean()
