"""DeepMesh (Guillard et al. 2021): gradients through the surface of a DeepSDF (Park et al. 2019, 1901.05103).

DeepSDF is an MLP with weight norm from a shape's code and a point to the signed distance, and sees its input again in
the middle. Marching cubes has no gradient, but a vertex v of the surface moves against its normal n when the distance
s grows, dv/ds = -n; so any loss on the mesh trains the code.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class DeepSDF(nn.Module):
    def __init__(self, shapes: int, code: int, width: int, layers: int, again: int):
        super().__init__()
        self.again = again
        self.codes = nn.Embedding(shapes, code)
        nn.init.normal_(self.codes.weight, std=code**-0.5)
        given = code + 3
        self.layers = nn.ModuleList()
        for i in range(layers):
            # the layer before the re-injection makes room for what is laid beside it
            out = width - given if i + 1 == again else width
            self.layers.append(weight_norm(nn.Linear(given if i == 0 else width, out)))
        self.head = nn.Linear(width, 1)

    def forward(self, shape, points):
        code = self.codes(shape).unsqueeze(1).expand(-1, points.size(1), -1)
        given = torch.cat([code, points], dim=-1)
        x = given
        for i, layer in enumerate(self.layers):
            x = torch.cat([x, given], dim=-1) if i == self.again else x
            x = F.dropout(F.relu(layer(x)), 0.2, self.training)
        return torch.tanh(self.head(x)).squeeze(-1)


def build(shapes=11, code=6, width=48, layers=8, again=4) -> nn.Module:
    return DeepSDF(shapes, code, width, layers, again)


WIDE = {"width": 96, "code": 12}
PLACES = ("again",)  # a layer's index, no size


def example_inputs():
    """Which shape, and points around it."""
    return torch.tensor([3, 7]), 2 * torch.rand(2, 9, 3) - 1


def vertices(model, shape, points):
    """Points pulled onto the surface (for marching cubes), then moved by the distance along the normal: dv/ds = -n."""
    points = points.detach().requires_grad_()
    distance = model(shape, points)
    normal = F.normalize(torch.autograd.grad(distance.sum(), points)[0], dim=-1)
    on = (points - distance.unsqueeze(-1) * normal).detach()
    distance = model(shape, on)
    return on - normal * (distance - distance.detach()).unsqueeze(-1)


def loss(model, shape, points):
    """The clamped distance to a sphere, small codes, and a loss on the mesh itself: its vertices lie on the sphere."""
    distance = points.norm(dim=-1) - 0.5
    fit = F.l1_loss(model(shape, points).clamp(-0.1, 0.1), distance.clamp(-0.1, 0.1))
    mesh = (vertices(model, shape, points).norm(dim=-1) - 0.5).square().mean()
    return fit + 1e-4 * model.codes(shape).square().sum(-1).mean() + mesh
