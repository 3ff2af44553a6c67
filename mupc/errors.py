"""One tree of errors: what went wrong, where, and what to do. An error is about mupc; a finding is about the model."""

from __future__ import annotations


class MupcError(Exception):
    """mupc could not run. `str(error)` is one line: what, where, what to do."""


class TargetError(MupcError):
    """The target could not be found, imported, built or given inputs."""


class TraceError(MupcError):
    """The model was built, but its forward could not be traced."""


class RuleError(MupcError):
    """A file in `rules/` is wrong: the message carries file and line."""
