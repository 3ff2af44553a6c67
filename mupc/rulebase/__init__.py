"""The knowledge in `rules/`: one TOML file an entry, validated, cited, with its own cases.

`load_rules()` reads it, `RuleBase.apply` gives a parameter its exponents, `RuleBase.explain` says it in words.
"""

from __future__ import annotations

from mupc.rulebase.base import Applied, RuleBase, Subject, failure
from mupc.rulebase.read import load_rules
from mupc.rulebase.schema import Case, Entry, Optimizer, Parametrization, Rule

__all__ = [
    "Applied",
    "Case",
    "Entry",
    "Optimizer",
    "Parametrization",
    "Rule",
    "RuleBase",
    "Subject",
    "failure",
    "load_rules",
]
