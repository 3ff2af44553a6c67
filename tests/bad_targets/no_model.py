"""No Module at all."""

import math


def area(radius):
    return math.pi * radius**2
