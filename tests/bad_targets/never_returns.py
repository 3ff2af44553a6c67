"""Its forward loops for ever."""

from torch import nn


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        while True:
            x = x + 1
