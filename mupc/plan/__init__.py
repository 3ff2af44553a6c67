"""The Plan: the waist of mupc. Everything after the front end reads it and nothing upstream of it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from mupc.plan.document import (
    Activation,
    Coverage,
    Dim,
    Exponent,
    Finding,
    Model,
    Movement,
    Parameter,
    Part,
    Plan,
    Scale,
    Standing,
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
    "Movement",
    "Parameter",
    "Part",
    "Plan",
    "Scale",
    "Standing",
    "Use",
    "make_plan",
]


class _CallableModule(ModuleType):
    """`mupc.plan(analysis)` makes a plan, and `mupc.plan` is this package: Python gives both one name."""

    def __call__(self, analysis: Analysed, **options: Any) -> Plan:
        return make_plan(analysis, **options)


sys.modules[__name__].__class__ = _CallableModule
