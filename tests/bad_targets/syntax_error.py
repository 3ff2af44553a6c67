"""It does not parse."""

from torch import nn


class Model(nn.Module:
    pass
