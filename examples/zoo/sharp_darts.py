"""DARTS cells of SharpSepConvs, mixed by Max-W (Hundt, Jain, Hager 2019, arXiv 1903.09900; DARTS: arXiv 1806.09055).

Every edge of a cell computes eight candidate ops and adds them by sum_i (1 - max_j w_j + w_i) op_i, w = softmax(alpha):
the best passes in full. SharpSepConv is depthwise and pointwise twice over, with a middle width of its own.
"""

import torch
import torch.nn.functional as F
from torch import nn

WIDE = {"width": 20, "middle": 28}
EQUAL = [{"width": 8, "middle": 8}, {"width": 9, "middle": 9}]  # the image and the candidates; the classes


def norm(width: int) -> nn.Module:
    return nn.BatchNorm2d(width, affine=False)  # while searching: a gain would rival alpha


class SharpSepConv(nn.Sequential):
    def __init__(self, width: int, middle: int, kernel: int, stride: int, dilation: int = 1):
        around, half = dilation * (kernel // 2), kernel // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(width, width, kernel, stride, around, dilation, groups=width, bias=False),
            nn.Conv2d(width, middle, 1, bias=False),
            norm(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, kernel, padding=half, groups=middle, bias=False),
            nn.Conv2d(middle, width, 1, bias=False),
            norm(width),
        )


class Zero(nn.Module):
    """No connection."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """Half the resolution: even pixels make one half of the channels, odd ones the other."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.even = nn.Conv2d(n_in, n_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(n_in, n_out - n_out // 2, 1, stride=2, bias=False)
        self.norm = norm(n_out)

    def forward(self, x):
        x = F.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


class MixedOp(nn.Module):
    """Max-W: the best candidate passes in full, the others as far as they come near it."""

    def __init__(self, width: int, middle: int, stride: int):
        super().__init__()
        self.candidates = nn.ModuleList(
            [
                Zero(stride),
                nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(width)),
                nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(width)),
                nn.Identity() if stride == 1 else FactorizedReduce(width, width),
                SharpSepConv(width, middle, 3, stride),
                SharpSepConv(width, middle, 5, stride),
                SharpSepConv(width, middle, 3, stride, dilation=2),
                SharpSepConv(width, middle, 5, stride, dilation=2),
            ]
        )

    def forward(self, x, w):
        w = 1 - w.max().detach() + w
        return sum(w[i] * candidate(x) for i, candidate in enumerate(self.candidates))


class Cell(nn.Module):
    """Four nodes, each the sum of mixed edges from all before it; the output is their concatenation."""

    NODES = 4

    def __init__(self, n_before: int, n_last: int, width: int, middle: int, reduces: bool, after_reduction: bool):
        super().__init__()
        pointwise = nn.Sequential(nn.ReLU(), nn.Conv2d(n_before, width, 1, bias=False), norm(width))
        self.before = FactorizedReduce(n_before, width) if after_reduction else pointwise
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(n_last, width, 1, bias=False), norm(width))
        self.edges = nn.ModuleList(
            MixedOp(width, middle, 2 if reduces and source < 2 else 1)
            for node in range(self.NODES)
            for source in range(node + 2)
        )

    def forward(self, before, last, w):
        states, edge = [self.before(before), self.last(last)], 0
        for _ in range(self.NODES):
            found = sum(self.edges[edge + i](x, w[edge + i]) for i, x in enumerate(states))
            edge += len(states)
            states.append(found)
        return torch.cat(states[-self.NODES :], 1)


class Network(nn.Module):
    """A reduction cell, which doubles the width, and a normal one."""

    def __init__(self, width: int, middle: int, classes: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * width, 3, padding=1, bias=False), nn.BatchNorm2d(3 * width))
        wide = Cell(3 * width, 3 * width, 2 * width, 2 * middle, reduces=True, after_reduction=False)
        last = Cell(3 * width, 8 * width, 2 * width, 2 * middle, reduces=False, after_reduction=True)
        self.cells = nn.ModuleList([wide, last])
        self.reduce = nn.Parameter(1e-3 * torch.randn(14, 8))  # alpha, an edge a row, shared by all cells of a kind
        self.normal = nn.Parameter(1e-3 * torch.randn(14, 8))
        self.head = nn.Linear(8 * width, classes)

    def forward(self, image):
        before = last = self.stem(image)
        for cell, alpha in zip(self.cells, (self.reduce, self.normal)):
            before, last = last, cell(before, last, alpha.softmax(-1))
        return self.head(last.mean((2, 3)))


def build(width: int = 10, middle: int = 14, classes: int = 9) -> nn.Module:
    return Network(width, middle, classes)


def example_inputs():
    return torch.randn(4, 3, 8, 8)


def loss(model, image):
    return F.cross_entropy(model(image), torch.arange(image.shape[0]) % 9)


def optimizers(model):
    """Weights by SGD; the alphas by Adam, on held-out data."""
    alphas = [model.reduce, model.normal]
    weights = [p for p in model.parameters() if all(p is not a for a in alphas)]
    return torch.optim.SGD(weights, lr=0.025, momentum=0.9), torch.optim.Adam(alphas, lr=3e-4)
