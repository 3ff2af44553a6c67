"""The Plan: the waist of mupc. Everything after the front end reads it and nothing upstream of it."""

from __future__ import annotations

from mupc.plan.document import (
    Activation,
    Coverage,
    Dim,
    Exponent,
    Finding,
    Model,
    Parameter,
    Part,
    Plan,
    Scale,
    Use,
)
from mupc.plan.make import Analysed, make_plan

__all__ = [
    "Activation",
    "Analysed",
    "Coverage",
    "Dim",
    "Exponent",
    "Finding",
    "Model",
    "Parameter",
    "Part",
    "Plan",
    "Scale",
    "Use",
    "make_plan",
]
