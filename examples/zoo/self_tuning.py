"""Self-Tuning Networks: weights that answer to their hyperparameters (MacKay et al. 2019, arXiv 1903.03088).

Each layer computes (W x + b) + (H lambda)_w * (W' x) + (H lambda)_b * b': a linear best response to the
hyperparameters lambda, gated per unit. Weights are trained on the training loss, lambda by a second optimizer on the
validation loss.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}


class BestResponse(nn.Module):
    """y = s (We x + be) + (H lambda)_w * (Wh x) + (H lambda)_b * bh, with H without bias."""

    def __init__(self, n_in: int, n_out: int, hyper: int):
        super().__init__()
        self.elementary, self.response = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.hyper = nn.Linear(hyper, 2 * n_out, bias=False)
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.normal_(self.hyper.weight, std=0.01)

    def forward(self, x, lam):
        for_weight, for_bias = self.hyper(lam).chunk(2, -1)
        y = self.scale * self.elementary(x)
        y = y + for_weight * F.linear(x, self.response.weight)
        return y + for_bias * self.response.bias


class SelfTuning(nn.Module):
    def __init__(self, features: int, width: int, classes: int, hyper: int):
        super().__init__()
        self.layers = nn.ModuleList(
            BestResponse(a, b, hyper) for a, b in ((features, width), (width, width), (width, classes))
        )
        self.lam = nn.Parameter(torch.zeros(hyper))  # dropout rates and the like, unconstrained

    def forward(self, x):
        lam = self.lam + 0.1 * torch.randn(x.shape[0], self.lam.shape[0], device=x.device)  # one perturbation a sample
        x = F.dropout(x, 0.1, self.training) * torch.sigmoid(lam[:, :1])
        for layer in self.layers[:-1]:
            x = F.relu(layer(x, lam))
        return self.layers[-1](x, lam)


def build(width: int = 24) -> nn.Module:
    return SelfTuning(features=12, width=width, classes=10, hyper=3)


def example_inputs():
    return torch.randn(8, 12)


def loss(model, x):
    return F.cross_entropy(model(x), x.argmax(-1).clamp(max=9))


def optimizers(model):
    """Weights against the training loss; hyperparameters against the validation loss, in turns."""
    weights = [p for name, p in model.named_parameters() if name != "lam"]
    return torch.optim.SGD(weights, lr=0.1), torch.optim.Adam([model.lam], lr=3e-3)
