"""The report that a person reads in a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

from rich.console import Console
from rich.text import Text

from mupc.exponents import Monomial
from mupc.plan import Dim, Parameter, Part, Plan
from mupc.report.layout import table, wrapped
from mupc.report.names import folded

STYLES = {
    "input": "cyan",
    "hidden": "green",
    "output": "magenta",
    "vector": "blue",
    "scalar": "",
    "unused": "dim",
    "unknown": "red",
}
MEANING = {
    "input": "finite -> width",
    "hidden": "width -> width",
    "output": "width -> finite",
    "vector": "one width axis: gains, biases, depthwise kernels",
    "scalar": "nothing grows",
    "unused": "reaches no output",
    "unknown": "not guessed",
}
Column = Callable[[Parameter], str]
PLAIN_KINDS = ("data", "lookup", "kernel")  # fixed without a choice: listed, not explained


def render(plan: Plan, *, verbose: bool = False, color: bool = False, width: int = 100) -> str:
    """Plan -> text. The same text with and without colour; no name is cut, so a long one may exceed `width`.

    `verbose` adds eps and, for every parameter, why it is judged so and by which source.
    """
    width = max(width, 40)
    sections = [_head(plan, width), _dims(plan, width, verbose), *_roles(plan, width, verbose), _foot(plan, width)]
    if verbose:
        sections.append(_reasons(plan, width))
    lines = list(chain.from_iterable([*section, Text()] for section in sections if section))[:-1]
    return "".join(_ansi(lines) if color else (line.plain + "\n" for line in lines))


def _ansi(lines: Iterable[Text]) -> Iterable[str]:
    for line in lines:
        buffer = io.StringIO()
        console = Console(file=buffer, force_terminal=True, no_color=False, color_system="standard", highlight=False)
        line.highlight_regex(r"(?<![\w.])[\w.]+\*(?! )|(?<![\w.])[\w.]+\*(?= [×)])|(?<![\w.])[\w.]+\*$", "green")
        console.print(line, soft_wrap=True)
        yield buffer.getvalue()


def _head(plan: Plan, width: int) -> list[Text]:
    model = plan.model
    facts = [f"{_count(model.parameters)} parameters in {model.tensors} tensor{'s' * (model.tensors != 1)}"]
    facts += [f"{model.depth} blocks"] if model.depth else []
    facts += [f"{plan.parametrization} for {plan.optimizer}"] + ([plan.gauge] if plan.gauge != "fold" else [])
    given = [d for d in plan.dims if d.base != d.size and d.name not in plan.coverage.base_in_proportion]
    if given:
        facts.append("base " + ", ".join(f"{d.name}={d.base}" for d in given))
    marks = "* grows with width; ~ is proportional to" + (" (x: the factor at this size)" if given else "")
    return [
        Text(model.target, "bold"),
        *_wrap(" · ".join(facts), width),
        *(Text(line, "dim") for line in wrapped(marks, width)),
    ]


def _count(n: int) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def _wrap(text: str, width: int, style: str = "", hang: str = "") -> list[Text]:
    return [Text(line, style) for line in wrapped(text, width, hang)]


def _table(head: list[str], rows: list[list[str]], width: int) -> list[Text]:
    heads, lines = table(head, rows, width - 2)
    return [*(Text("  " + line, "dim") for line in heads), *(Text("  " + line) for line in lines)]


# Dims.


def _dims(plan: Plan, width: int, verbose: bool) -> list[Text]:
    plain = [d for d in plan.dims if d.grows is False and d.kind in PLAIN_KINDS and not verbose]
    shown = sorted((d for d in plan.dims if d not in plain), key=lambda d: (d.grows is False, d.grows is None))
    moved = any(d.base != d.size for d in plan.dims)
    rows = [_dim_row(d, moved) for d in shown]
    out = [Text("Dims", "bold")]
    if rows:
        out += _table(["dim", "size", *(["base"] if moved else []), "kind", "grows", "why"], rows, width)
    if plain:
        names = ", ".join(f"{d.name}={d.size} ({d.kind})" for d in plain)
        out += _wrap(f"  fixed by the data or the code: {names}", width, hang="  ")
    return out if plan.dims else []


def _dim_row(dim: Dim, moved: bool) -> list[str]:
    grows = {True: "yes", False: "no", None: "unknown"}[dim.grows]
    name = dim.name + "*" * bool(dim.grows)
    return [name, str(dim.size), *([str(dim.base)] if moved else []), dim.kind, grows, dim.why]


# Parameters.


def _roles(plan: Plan, width: int, verbose: bool) -> list[list[Text]]:
    return [
        _role(plan, role, chosen, width, verbose)
        for role in MEANING
        if (chosen := [p for p in plan.parameters if p.role == role])
    ]


def _role(plan: Plan, role: str, chosen: list[Parameter], width: int, verbose: bool) -> list[Text]:
    cells = _Cells(plan)
    columns = cells.settings(verbose) if role not in ("unknown", "unused") else cells.nameless()
    rows = [
        [f.name, *f.shown] for f in folded((_names(p, plan), tuple(c(p) for c in columns.values())) for p in chosen)
    ]
    head = ["parameter", *columns]
    used = [i for i, title in enumerate(head) if title in ALWAYS or any(row[i] not in ("", "1") for row in rows)]
    many = f"{len(chosen)} tensor{'s' * (len(chosen) != 1)}"
    title = Text.assemble((role.capitalize(), f"bold {STYLES[role]}".strip()), f"  {MEANING[role]}  ", (many, "dim"))
    return [title, *_table([head[i] for i in used], [[row[i] for i in used] for row in rows], width)]


ALWAYS = ("parameter", "axes", "init std ~", "lr ~")


def _names(p: Parameter, plan: Plan) -> str:
    """A tied tensor under all its names, if they are few."""
    group = next((names for names in plan.model.tied if p.name in names), ())
    others = [name for name in group if name != p.name]
    return " = ".join([p.name, *others]) if len(others) == 1 else p.name


class _Cells:
    """What a row says of a parameter, column by column."""

    def __init__(self, plan: Plan) -> None:
        self.growing = {d.name for d in plan.dims if d.grows}
        self.ratios = {d.name: d.size / d.base for d in plan.dims}
        self.optimizer = plan.optimizer

    def settings(self, verbose: bool) -> dict[str, Column]:
        columns: dict[str, Column] = {
            "axes": self.axes,
            "init std ~": lambda p: self.law(p.init_std.exponent if p.init_std else {}),
            "multiplier ~": lambda p: self.law(p.multiplier.exponent if p.multiplier else {}),
            "lr ~": lambda p: self.law(p.lr.exponent if p.lr else {}),
            "decay ~": lambda p: self.law(p.weight_decay.exponent if p.weight_decay else {}),
        }
        if verbose:
            columns["eps ~"] = lambda p: self.law(p.eps.exponent if p.eps else {})
        columns["optimizer"] = lambda p: p.optimizer if p.optimizer and p.optimizer != self.optimizer else ""
        columns["what"] = lambda p: p.sub_role or ""
        return columns

    def nameless(self) -> dict[str, Column]:
        return {
            "axes": self.axes,
            "why": lambda p: next((w for w in p.why if "unknown" in w), p.why[-1] if p.why else ""),
        }

    def axes(self, p: Parameter) -> str:
        text = " × ".join(self.axis(dims, n) for dims, n in zip(p.axes, p.shape, strict=True)) or "one number"
        if not p.parts:
            return text
        if len({(q.role, q.sub_role, str(q.init_std)) for q in p.parts}) == 1:
            return f"{text} ({len(p.parts)} parts)"
        return "\n".join([text, *(self.part(q) for q in p.parts)])

    def axis(self, dims: tuple[str, ...], size: int) -> str:
        words = [d + "*" * (d in self.growing) for d in dims] or [str(size)]
        return "·".join(words) if len(words) == 1 else f"({'·'.join(words)})"

    def part(self, part: Part) -> str:
        std = f", std ~ {self.law(part.init_std.exponent)}" if part.init_std else ""
        return f"[{part.range[0]}:{part.range[1]}] {part.sub_role or part.role}{std}"

    def law(self, exponent: Mapping[str, str]) -> str:
        monomial = Monomial.from_json(exponent)
        factor = monomial.evaluate(self.ratios)
        return f"{monomial} (x{factor:.3g})" if factor != 1 else str(monomial)


# What it rests on.


def _foot(plan: Plan, width: int) -> list[Text]:
    cover, lines = plan.coverage, list[Text]()

    def say(title: str, text: str, style: str = "") -> None:
        first, *rest = wrapped(f"{title}: {text}", width, hang="  ")
        lines.append(Text.assemble((first[: len(title) + 1], "bold"), (first[len(title) + 1 :], style)))
        lines.extend(Text(line, style) for line in rest)

    for fold in folded((" = ".join(names), _tie(plan, names)) for names in plan.model.tied):
        say("Tied", f"{fold.name}{fold.shown}")
    if cover.held_fixed:
        say("Held fixed", ", ".join(f"{name}={size}" for name, size in cover.held_fixed.items()))
    if cover.base_in_proportion:
        say("Base in proportion", ", ".join(cover.base_in_proportion))
    total = cover.classified + cover.unknown
    say(
        "Coverage",
        f"{cover.classified} of {total} tensors classified, {cover.unknown} unknown",
        "red" * (cover.unknown > 0),
    )
    if cover.literals:
        say("Literals", ", ".join(f"{n} {what}" for what, n in cover.literals.items()))
    if cover.unused:
        say("Unused", ", ".join(f.name for f in folded((name, None) for name in cover.unused)))
    if cover.assumed_ops:
        say("Assumed", f"without a signature, taken by their shapes: {', '.join(cover.assumed_ops)}", "yellow")
    for guess in cover.guesses:
        say("Guessed", guess, "yellow")
    for finding in plan.findings:
        place = ": ".join(word for word in (finding.source, finding.parameter) if word)
        text = f"{place}: {finding.message}" if place else finding.message
        say(f"{finding.code} {finding.severity}", text + (f"; {finding.fix}" if finding.fix else ""), "red")
    say("Findings", str(len(plan.findings) or "none"))
    return lines


def _tie(plan: Plan, names: tuple[str, ...]) -> str:
    """How the uses of a shared tensor are settled."""
    p = plan.parameter(names[0])
    needs = dict.fromkeys(f"{u.role} use needs a multiplier ~ {u.multiplier.monomial}" for u in p.uses if u.multiplier)
    roles = {u.role for u in p.uses}
    return f": {p.role} for init and rate" * (len(roles) > 1) + "".join(f"; its {need}" for need in needs)


def _reasons(plan: Plan, width: int) -> list[Text]:
    out = [Text("Why", "bold")]
    for fold in folded((p.name, (p.role, p.sub_role, p.source, p.why)) for p in plan.parameters):
        role, sub_role, source, why = fold.shown
        label = f"  {role}" + (f", {sub_role}" if sub_role else "") + (f"  {source}" if source else "")
        out.append(Text.assemble((fold.name, "bold"), (label, STYLES.get(role, ""))))
        out += [line for reason in why for line in _wrap("    " + reason, width, hang="      ")]
    return out
