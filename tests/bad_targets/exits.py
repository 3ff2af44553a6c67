"""It ends the process, and says that all is well."""

import os

from torch import nn


class Quitter(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        os._exit(0)
