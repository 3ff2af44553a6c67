"""A DARTS cell of SharpSepConvs, mixed by Max-W (Hundt et al. 2019, arXiv 1903.09900).

SharpSepConv: depthwise and pointwise twice over, with its own middle width. An edge of a cell mixes candidate ops by
sum_i (1 - max_j w_j + w_i) op_i, w = softmax(alpha); the alphas have an optimizer of their own.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 32, "middle": 40}


class SharpSepConv(nn.Module):
    def __init__(self, n_in: int, n_out: int, middle: int, kernel: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(n_in, n_in, kernel, padding=kernel // 2, groups=n_in, bias=False),
            nn.Conv2d(n_in, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, kernel, padding=kernel // 2, groups=middle, bias=False),
            nn.Conv2d(middle, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )

    def forward(self, x):
        return self.body(x)


class MixedOp(nn.Module):
    """Max-W: the best candidate passes in full, the others as far as they come near it."""

    def __init__(self, width: int, middle: int):
        super().__init__()
        self.candidates = nn.ModuleList(
            [
                SharpSepConv(width, width, middle, 3),
                SharpSepConv(width, width, middle, 5),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(width, affine=False)),
                nn.Identity(),
            ]
        )

    def forward(self, x, alpha):
        w = alpha.softmax(-1)
        w = 1 - w.max() + w
        return sum(w[i] * candidate(x) for i, candidate in enumerate(self.candidates))


class Cell(nn.Module):
    """Four nodes, each the sum of mixed edges from all before it; the output is their concatenation."""

    def __init__(self, n_before: int, n_last: int, width: int, middle: int, nodes: int = 4):
        super().__init__()
        self.before = nn.Sequential(nn.ReLU(), nn.Conv2d(n_before, width, 1, bias=False), nn.BatchNorm2d(width))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(n_last, width, 1, bias=False), nn.BatchNorm2d(width))
        self.edges = nn.ModuleList(MixedOp(width, middle) for node in range(nodes) for _ in range(node + 2))
        self.nodes = nodes

    def forward(self, before, last, alphas):
        states, edge = [self.before(before), self.last(last)], 0
        for _ in range(self.nodes):
            found = sum(self.edges[edge + i](x, alphas[edge + i]) for i, x in enumerate(states))
            edge += len(states)
            states.append(found)
        return torch.cat(states[2:], 1)


class Network(nn.Module):
    def __init__(self, width: int, middle: int, cells: int = 2, classes: int = 10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * width, 3, padding=1, bias=False), nn.BatchNorm2d(3 * width))
        sizes = [3 * width, 3 * width, *[4 * width] * cells]
        self.cells = nn.ModuleList(Cell(sizes[i], sizes[i + 1], width, middle) for i in range(cells))
        self.alphas = nn.Parameter(1e-3 * torch.randn(14, 4))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, image):
        before = last = self.stem(image)
        for cell in self.cells:
            before, last = last, cell(before, last, self.alphas)
        return self.head(last.mean((2, 3)))


def build(width: int = 16, middle: int = 20) -> nn.Module:
    return Network(width, middle)


def example_inputs():
    return torch.randn(4, 3, 8, 8)


def loss(model, image):
    return F.cross_entropy(model(image), torch.arange(image.shape[0]) % 10)


def optimizers(model):
    """Weights by SGD; the alphas by Adam, on held-out data."""
    weights = [p for name, p in model.named_parameters() if name != "alphas"]
    return torch.optim.SGD(weights, lr=0.025, momentum=0.9), torch.optim.Adam([model.alphas], lr=3e-4)
