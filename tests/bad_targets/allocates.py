"""It asks for 100 GB that are never touched."""

import numpy as np
from torch import nn


class Huge(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = np.empty(100 * 10**9, dtype=np.uint8)
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x)
