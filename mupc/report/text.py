"""The report that a person reads in a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Hashable, Iterable
from itertools import chain

from rich.console import Console
from rich.text import Text

from mupc.plan import Dim, Plan, Standing
from mupc.report.layout import lines_of, table_of, wrapped
from mupc.report.names import folded
from mupc.report.parameters import GIVEN_BY_SIZE, STYLES, role_sections
from mupc.report.standing import section

PLAIN_KINDS = ("data", "lookup", "kernel")  # fixed without a choice: listed, not explained
HELD_KINDS = ("inner", "count", "rank", "experts")  # fixed by policy: what a user may want otherwise
MARKS = (
    "* grows with width. ~ says how your own number, tuned at a base width, goes with it: lr ~ n^-1 is half the rate "
    "where n is twice its base."
)
PLACE = re.compile(r" \(\S+:\d+\)| at \S+:\d+")
NUMBERED = re.compile(r"(.+?)(?:_(\d+))?")


def render(
    plan: Plan, *, standing: Standing | None = None, verbose: bool = False, color: bool = False, width: int = 100
) -> str:
    """Plan -> text. The same text with and without colour; no name is cut, so a long one may exceed `width`.

    `verbose` adds eps and, for every parameter, why it is judged so and by which source.
    """
    width = max(width, 40)
    sections = [
        _head(plan, width),
        _dims(plan, width, verbose),
        *role_sections(plan, width, verbose),
        section(plan, standing, width, verbose),
        _foot(plan, width),
    ]
    if verbose:
        sections.append(_reasons(plan, width))
    lines = list(chain.from_iterable([*section, Text()] for section in sections if section))[:-1]
    return "".join(ansi(lines) if color else (line.plain + "\n" for line in lines))


def ansi(lines: Iterable[Text]) -> Iterable[str]:
    """The lines with a terminal's colours; what grows is green."""
    for line in lines:
        buffer = io.StringIO()
        console = Console(file=buffer, force_terminal=True, no_color=False, color_system="standard", highlight=False)
        line.highlight_regex(r"(?<![\w.])[\w.]+\*(?! )|(?<![\w.])[\w.]+\*(?= [×)])|(?<![\w.])[\w.]+\*$", "green")
        console.print(line, soft_wrap=True)
        yield buffer.getvalue()


def _head(plan: Plan, width: int) -> list[Text]:
    model = plan.model
    facts = [f"{_count(model.parameters)} parameters in {model.tensors} tensor{'s' * (model.tensors != 1)}"]
    facts += [f"{d.size} blocks" for d in plan.dims if d.kind == "depth"]
    facts += [f"{plan.parametrization} for {plan.optimizer}"] + ([plan.gauge] if plan.gauge != "fold" else [])
    moved = any(d.base != d.size for d in plan.dims)
    return [
        Text(model.target, "bold"),
        *lines_of(" · ".join(facts), width),
        *lines_of(
            MARKS + (" x is the factor that comes to, at this size over this base." if moved else ""), width, "dim"
        ),
    ]


def _count(n: int) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


# Dims.


def _dims(plan: Plan, width: int, verbose: bool) -> list[Text]:
    fused = set() if verbose else _fused(plan)
    plain = [d for d in plan.dims if d.grows is False and d.kind in PLAIN_KINDS and not verbose]
    shown = [d for d in plan.dims if d not in plain and d.name not in fused]
    shown.sort(key=lambda d: (d.grows is False, d.grows is None))
    moved = any(d.base != d.size for d in plan.dims)
    runs = [[d] for d in shown] if verbose else _runs(shown)
    rows = [_dim_row(run, moved, verbose) for run in runs]
    out = [Text("Dims", "bold")]
    if rows:
        out += table_of(["dim", "size", *(["base"] if moved else []), "kind", "grows", "why"], rows, width)
    named = [d for d in plain if d.kind != "kernel" and not GIVEN_BY_SIZE.fullmatch(d.name)]
    words = [f"{'..'.join(_ends(run))}={run[0].size} ({run[0].kind})" for run in _runs(named)]
    if words:
        out += lines_of(f"  fixed by the data or the code: {', '.join(words)}", width, hang="  ")
    return out if plan.dims else []


def _fused(plan: Plan) -> set[str]:
    """Dims that are nothing but others laid end to end: an axis shows its parts instead."""
    return {p.axes[q.axis][0] for p in plan.parameters for q in p.parts if len(p.axes[q.axis]) == 1}


def _runs(dims: Iterable[Dim]) -> list[list[Dim]]:
    """Dims alike in all but place and number (`d64`, `d64_2`, ...) together."""
    runs: dict[Hashable, list[Dim]] = {}
    for dim in dims:
        runs.setdefault((_stem(dim.name), dim.size, dim.base, dim.kind, dim.grows), []).append(dim)
    return list(runs.values())


def _stem(name: str) -> str:
    found = NUMBERED.fullmatch(name)
    return found[1] if found else name


def _ends(run: list[Dim]) -> list[str]:
    """The first and last name of a run."""
    names = sorted((d.name for d in run), key=lambda name: (len(name), name))
    return names if len(names) < 2 else [names[0], names[-1]]


def _dim_row(run: list[Dim], moved: bool, verbose: bool) -> list[str]:
    dim = run[0]
    grows = {True: "yes", False: "no", None: "unknown"}[dim.grows]
    name = "..".join(_ends(run)) + "*" * bool(dim.grows)
    why = dim.why if verbose else PLACE.sub("", dim.why)
    return [name, str(dim.size), *([str(dim.base)] if moved else []), dim.kind, grows, why]


# What it rests on.


def _foot(plan: Plan, width: int) -> list[Text]:
    cover, lines = plan.coverage, list[Text]()

    def say(title: str, text: str, style: str = "") -> None:
        first, *rest = wrapped(f"{title}: {text}", width, hang="  ")
        lines.append(Text.assemble((first[: len(title) + 1], "bold"), (first[len(title) + 1 :], style)))
        lines.extend(Text(line, style) for line in rest)

    for fold in folded((" = ".join(names), _tie(plan, names)) for names in plan.model.tied):
        say("Tied", f"{fold.name}{fold.shown}")
    fused = _fused(plan)
    held = [d for d in plan.dims if d.kind in HELD_KINDS and d.grows is False and d.name not in fused]
    if held:
        names = ", ".join(f"{'..'.join(_ends(run))}={run[0].size} ({run[0].kind})" for run in _runs(held))
        say("Held fixed", f"{names}; --scaling NAME lets one grow, --fixed NAME holds another")
    total = cover.classified + cover.unknown
    say(
        "Coverage",
        f"{cover.classified} of {total} tensors classified, {cover.unknown} unknown",
        "red" * (cover.unknown > 0),
    )
    if cover.literals:
        say("Literals", ", ".join(f"{n} {what}" for what, n in cover.literals.items()))
    for assumed in cover.assumed_ops:
        say("Assumed", assumed, "yellow")
    faults = [finding for finding in plan.findings if finding.severity != "info"]
    for finding in faults:
        place = ": ".join(word for word in (finding.source, finding.parameter) if word)
        text = f"{place}: {finding.message}" if place else finding.message
        say(f"{finding.code} {finding.severity}", text + (f"; {finding.fix}" if finding.fix else ""), "red")
    say("Findings", str(len(faults) or "none"))
    return lines


def _tie(plan: Plan, names: tuple[str, ...]) -> str:
    """How the uses of a shared tensor are settled."""
    p = plan.parameter(names[0])
    needs = dict.fromkeys(f"{u.role} use needs a multiplier ~ {u.multiplier.monomial}" for u in p.uses if u.multiplier)
    roles = {u.role for u in p.uses}
    return f": {p.role} for init and rate" * (len(roles) > 1) + "".join(f"; its {need}" for need in needs)


def _reasons(plan: Plan, width: int) -> list[Text]:
    """Why, parameter by parameter; blocks alike in all but their number together; what the rules cite, once."""
    out, cited = [Text("Why", "bold")], f"rule {plan.parametrization}: "
    sources = dict.fromkeys(line for p in plan.parameters for line in p.why if line.startswith(cited))
    for fold in folded((p.name, (p.role, p.sub_role, p.source, _numberless(p.why))) for p in plan.parameters):
        role, sub_role, source, why = fold.shown
        label = f"  {role}" + (f", {sub_role}" if sub_role else "") + (f"  {source}" if source else "")
        out.append(Text.assemble((fold.name, "bold"), (label, STYLES.get(role, ""))))
        for reason in why:
            if reason not in sources:
                out += lines_of("    " + reason, width, hang="      ")
    if sources:
        out += [Text(), Text("Sources", "bold")]
        out += [line for source in sources for line in lines_of("  " + source, width, hang="    ")]
    return out


def _numberless(why: Iterable[str]) -> tuple[str, ...]:
    return tuple(line if line.startswith("rule ") else re.sub(r"(?<=\w\.)\d+(?=\.\w)", "{i}", line) for line in why)
