"""Hold what a user already does against a parametrization: the live init and optimizer groups, at two sizes."""

from __future__ import annotations

from mupc.audit.compare import audit
from mupc.audit.document import Audit, Held, Match, Row

__all__ = ["Audit", "Held", "Match", "Row", "audit"]
