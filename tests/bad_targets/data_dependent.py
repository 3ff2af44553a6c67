"""Its control flow needs the values of an activation, through numpy."""

from torch import nn


class Halting(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(int(self.step(x).detach().numpy().max())):
            x = self.step(x)
        return x
