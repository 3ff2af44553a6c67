"""A rule entry in words, with its sources."""

from __future__ import annotations

import textwrap

from mupc.rulebase.schema import Entry, Initializer, Mistake, Optimizer, Parametrization, Rule, WeightDecay

WIDTH = 100


def explained(kind: str, entry: Entry) -> str:
    """What the entry is, what it says, and who says so."""
    lines = [f"{entry.name} ({kind}, {entry.status}): {entry.title}", "", *_wrapped(entry.about)]
    lines += [f"Source: {entry.source}", ""]
    if isinstance(entry, Parametrization):
        lines += _parametrization(entry)
    if isinstance(entry, Optimizer):
        lines += _optimizer(entry)
    if isinstance(entry, WeightDecay):
        lines += _decay(entry)
    if isinstance(entry, Initializer):
        knobs = "".join(f", {name} {value:g}" for name, value in entry.knobs.items())
        lines.append(f"distribution {entry.distribution}{knobs}")
    if isinstance(entry, Mistake):
        lines.append(f"Do instead: {entry.instead}")
    return "\n".join(line for long in lines for line in _folded(long)).rstrip()


def _folded(line: str) -> list[str]:
    """A line of at most WIDTH, its continuation indented by two more."""
    indent = " " * (len(line) - len(line.lstrip()))
    hang = indent + "  "
    return textwrap.wrap(line, WIDTH, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False) or [""]


def _wrapped(text: str) -> list[str]:
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return [line for part in paragraphs if part for line in (*textwrap.wrap(part, WIDTH), "")]


def _parametrization(entry: Parametrization) -> list[str]:
    lines = []
    for rule in entry.rule:
        lines += [f"{_whom(rule)}:", *(f"  {'.'.join(place)} ~ {law}" for place, law in rule.laws().items())]
        lines += [f"  Source ({rule.basis}): {rule.source}", ""]
    if entry.attention:
        lines += [f"attention: scale ~ {entry.attention.scale}", f"  Source: {entry.attention.source}"]
    return lines


def _whom(rule: Rule) -> str:
    conditions = {
        "role": rule.roles,
        "sub-role": rule.sub_roles,
        "op": rule.ops,
        "a dim of kind": rule.kinds,
        "a growing dim of kind": rule.growing_kinds,
    }
    said = [f"{name} {' or '.join(words)}" for name, words in conditions.items() if words]
    if rule.residual_branch is not None:
        said.append("on a residual branch" if rule.residual_branch else "off the residual branches")
    if rule.ends_branch is not None:
        said.append("ending a residual branch" if rule.ends_branch else "not ending a residual branch")
    if rule.tied is not None:
        said.append("tied" if rule.tied else "not tied")
    return ", ".join(said) or "every parameter"


def _optimizer(entry: Optimizer) -> list[str]:
    decay, table = entry.weight_decay, entry.symmetry
    lines = [f"family {entry.family}"]
    if entry.roles:
        lines.append(f"steps {', '.join(entry.roles)}; the others are stepped by {entry.fallback}")
    lines += ["", f"lr ~ {entry.lr.law}", f"  Source: {entry.lr.source}"]
    lines += [f"eps ~ {entry.eps.law}", f"  Source: {entry.eps.source}"] if entry.eps else ["eps: none"]
    if decay:
        lines += [f"weight decay ({decay.form}) ~ {decay.law}", f"  Source ({decay.basis}): {decay.source}"]
    powers = [f"lr t^{table.lr}", f"eps t^{table.eps}", f"decay t^{table.decay}"]
    powers += [f"{knob} t^{power}" for knob, power in table.others.items()]
    lines += [f"abc-symmetry: multiplier t, init t^-1, {', '.join(powers)}", f"  Source: {table.source}"]
    return lines


def _decay(entry: WeightDecay) -> list[str]:
    lines = [f"stated for {' and '.join(entry.forms)} decay"] if entry.forms else []
    for rule in entry.rule:
        whom = f"role {' or '.join(rule.roles)}" if rule.roles else "every parameter"
        lines += [f"{whom}: " + (f"decay ~ {rule.law}" if rule.decays else "none"), f"  Source: {rule.source}"]
    run = str(entry.run())
    return lines + ([f"with another batch or length: decay ~ {run}"] if run != "1" else [])
