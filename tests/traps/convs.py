"""Convolutions: depthwise, grouped, squeeze and excitation, pixel shuffles, flattened maps, token mixing."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from tests.traps.trap import C, D, F, image, trap

STEM = """
    stem.weight  input   n...
    stem.bias    vector  n
"""
FC = """
    fc.weight    output  .n
    fc.bias      scalar  .
"""


class Images(nn.Module):
    """Stem, body, mean over places, classifier."""

    def __init__(self, body: nn.Module, width: int = D) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, D, 3, padding=1), body, nn.Linear(width, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(nnf.relu(self.stem(x))).mean((2, 3)))


@trap(
    image,
    STEM
    + FC
    + """
    body.0.weight  vector  n...   # the channel axis is elementwise, only the kernel is fan-in
    body.0.bias    vector  n
    body.1.*       vector  n
    body.3.weight  hidden  nn..
    body.3.bias    vector  n
    """,
)
class Depthwise(Images):
    def __init__(self) -> None:
        depthwise = nn.Conv2d(D, D, 3, padding=1, groups=D)
        super().__init__(nn.Sequential(depthwise, nn.BatchNorm2d(D), nn.ReLU(), nn.Conv2d(D, F, 1)), F)


@trap(
    image,
    STEM
    + FC
    + """
    body.0.weight  hidden  nn..   # (out, in / 4): the channels of a group grow, the group count does not
    body.2.weight  hidden  nn..
    body.*.bias    vector  n
    """,
)
class Grouped(Images):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(D, F, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(F, D, 1)))


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.first = nn.Conv2d(D, F, 1, groups=groups, bias=False)
        self.depthwise = nn.Conv2d(F, F, 3, padding=1, groups=F, bias=False)
        self.last = nn.Conv2d(F, D, 1, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = nnf.relu(self.first(x))
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return x + self.last(self.depthwise(y))


@trap(
    image,
    STEM
    + FC
    + """
    body.first.weight      hidden  nn..
    body.depthwise.weight  vector  n...
    body.last.weight       hidden  nn..
    """,
)
class ChannelShuffle(Images):
    def __init__(self) -> None:
        super().__init__(Shuffle(4))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, reduced, 1), nn.Conv2d(reduced, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        return x * self.fc2(nnf.relu(self.fc1(scale))).sigmoid()


@trap(
    image,
    STEM
    + FC
    + """
    body.0.weight      hidden  nn..
    body.1.fc?.weight  hidden  nn..   # a nonlinearity between: no rank, both sides grow
    body.*.bias        vector  n
    """,
)
class SqueezeAndExcite(Images):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(D, F, 3, padding=1), SqueezeExcite(F, 6)), F)


@trap(
    image,
    """
    1.weight  input   n...   # 3 * 4 places of the image are data
    3.weight  hidden  nn..   # out = 4 * F
    6.weight  hidden  nn..
    8.weight  output  .n..   # 3 * 4 image channels
    8.bias    scalar  .
    *.bias    vector  n
    """,
)
class PixelShuffles(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, D, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(D, 4 * F, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(F, D, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(D, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )


@trap(
    image,
    STEM
    + FC
    + """
    body.weight  hidden  nn..   # in = 4 * D
    body.bias    vector  n
    """,
)
class PixelUnshuffleInside(Images):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(4 * D, F, 1), F)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(nnf.pixel_unshuffle(self.stem(x), 2)).mean((2, 3)))


@trap(
    image,
    STEM
    + """
    fc1.weight  hidden  nn   # in = channels * 16 places
    fc1.bias    vector  n
    fc2.weight  output  .n
    fc2.bias    scalar  .
    """,
)
class FlattenedMaps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, D, 4, stride=4)
        self.fc1, self.fc2 = nn.Linear(D * 4 * 4, F), nn.Linear(F, C)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(nnf.relu(self.stem(x)), 1)
        return self.fc2(nnf.relu(self.fc1(x)))


@trap(image, STEM + "fc.weight  output  .n\nfc.bias  scalar  .")
class FlattenedReadout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, D, 4, stride=4), nn.Linear(D * 4 * 4, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nnf.relu(self.stem(x)).view(x.size(0), -1))


@trap(
    image,
    STEM
    + FC
    + """
    norm?.*           vector  n
    tokens.0.weight   input   n.   # the token axis is data: no parameter makes it
    tokens.0.bias     vector  n
    tokens.2.weight   output  .n
    tokens.2.bias     scalar  .
    channels.*.weight hidden  nn
    channels.*.bias   vector  n
    """,
)
class TokenMixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, D, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.channels = nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, D))
        self.fc = nn.Linear(D, C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return self.fc(x.mean(1))
