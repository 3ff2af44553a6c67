"""The report that a program reads: the Plan itself."""

from __future__ import annotations

from mupc.plan import Plan


def render(plan: Plan) -> str:
    """The document of DESIGN.md section 8."""
    return plan.to_json()
