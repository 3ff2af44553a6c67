"""Self-Tuning Networks: weights that answer to their hyperparameters (MacKay et al. 2019, arXiv 1903.03088).

Each layer is a linear best response to the hyperparameters lambda: a second weight whose units are gated by H lambda.
Weights are trained on the training loss; lambda, and how far it is perturbed, on the validation loss.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}
EQUAL = [{"width": 12}, {"width": 10}, {"width": 20}]  # the features; the classes; gates of the last layer


class BestResponse(nn.Module):
    """y = s (We x + be) + (H lambda)_w * (Wh x) + (H lambda)_b * bh, with H without bias."""

    def __init__(self, n_in: int, n_out: int, hyper: int):
        super().__init__()
        self.elementary, self.response = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.hyper = nn.Linear(hyper, 2 * n_out, bias=False)
        self.scale = nn.Parameter(torch.ones(1))
        nn.init.normal_(self.hyper.weight, std=0.01)

    def forward(self, x, lam):
        for_weight, for_bias = self.hyper(lam).chunk(2, -1)  # per sample and unit
        answer = for_weight * F.linear(x, self.response.weight)
        answer += for_bias * self.response.bias
        y = self.elementary(x)
        y *= self.scale
        y += answer
        return y


class SelfTuning(nn.Module):
    """The hyperparameters are unconstrained: a dropout rate for each layer's input, each a sigmoid away."""

    def __init__(self, features: int, width: int, classes: int):
        super().__init__()
        sizes = (features, width), (width, width), (width, classes)
        self.layers = nn.ModuleList(BestResponse(a, b, len(sizes)) for a, b in sizes)
        self.lam = nn.Parameter(torch.full((len(sizes),), -2.0))
        self.spread = nn.Parameter(torch.zeros(len(sizes)))

    def perturbed(self, samples: int):
        """Every sample trains the response at a lambda of its own."""
        noise = torch.randn(samples, self.lam.shape[0], device=self.lam.device)
        return self.lam + noise * F.softplus(self.spread)

    def forward(self, x):
        lam = self.perturbed(x.shape[0])
        rates = torch.sigmoid(lam)
        for index, layer in enumerate(self.layers):
            keep = 1 - rates[:, index, None]
            x = layer(x * (torch.rand_like(x) < keep) / keep, lam)
            x = F.relu(x) if index + 1 < len(self.layers) else x
        return x


def build(width: int = 24, features: int = 12, classes: int = 10) -> nn.Module:
    return SelfTuning(features, width, classes)


def example_inputs():
    return torch.randn(8, 12)


def loss(model, x):
    """Cross-entropy; the entropy of the perturbation is rewarded, or it would vanish."""
    entropy = F.softplus(model.spread).log().sum()
    return F.cross_entropy(model(x), x.argmax(-1).clamp(max=9)) - 1e-3 * entropy


def optimizers(model):
    """In turns: the weights on training batches, lambda and its spread on validation batches."""
    weights = model.layers.parameters()
    hyper = torch.optim.Adam([model.lam, model.spread], lr=3e-3)
    return torch.optim.SGD(weights, lr=0.1, momentum=0.9), hyper
