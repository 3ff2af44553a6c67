"""Fire Together Wire Together: each layer predicts which of its filters will matter (Elkerdawy et al. 2022,
arXiv 2110.08232).

A linear head on the pooled input of a convolution predicts a mask over its filters, thresholded; the head learns by a
loss of its own, from which filters hold most of the response, and gets no gradient from the task.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 48}
EQUAL = [{"width": 10}, {"width": 5}, {"width": 16}]  # the classes; the image


@torch.no_grad()
def most_of_the_mass(response, share: float):
    """1 for the filters that, strongest first, make up this share of the response; the head's target."""
    mass = response.abs().amax((2, 3))
    ordered, order = mass.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    needed = before < share * ordered.sum(-1, keepdim=True)
    return torch.zeros_like(mass).scatter(-1, order, needed.to(mass.dtype))


class GatedConv(nn.Module):
    def __init__(self, n_in: int, n_out: int, share: float = 0.75):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)
        self.predict, self.share = nn.Linear(n_in, n_out), share

    def forward(self, x):
        """The masked response, and the head's own loss."""
        logits = self.predict(x.detach().mean((2, 3)))
        y = F.relu(self.norm(self.conv(x)))
        own = F.binary_cross_entropy_with_logits(logits, most_of_the_mass(y, self.share))
        mask = (logits.sigmoid() > 0.5).to(y.dtype)
        return y * mask[:, :, None, None], own


class FTWT(nn.Module):
    def __init__(self, width: int, classes: int):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList(GatedConv(a, b) for a, b in ((width, 2 * width), (2 * width, 2 * width)))
        self.head = nn.Linear(2 * width, classes)

    def forward(self, image):
        """Class scores, and the sum of the mask heads' losses."""
        x, aside = F.relu(self.stem(image)), 0.0
        for layer in self.layers:
            x, own = layer(x)
            x, aside = F.max_pool2d(x, 2), aside + own
        return self.head(x.mean((2, 3))), aside


def build(width: int = 24, classes: int = 10) -> nn.Module:
    return FTWT(width, classes)


def example_inputs():
    return torch.randn(4, 3, 16, 16)


def loss(model, image):
    scores, aside = model(image)
    return F.cross_entropy(scores, torch.arange(image.shape[0]) % 10) + aside
