"""A plain multilayer perceptron for flat images."""

from torch import nn


class MLP(nn.Module):
    def __init__(self, in_features: int = 784, width: int = 256, depth: int = 3, num_classes: int = 10):
        super().__init__()
        layers = [nn.Linear(in_features, width), nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)))
