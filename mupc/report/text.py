"""The report that a person reads in a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
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
HELD_KINDS = ("inner", "count", "rank", "experts")  # fixed by policy: what a user may want otherwise
MARKS = (
    "* grows with width. ~ says how your own number, tuned at a base width, goes with it: lr ~ n^-1 is half the rate "
    "where n is twice its base."
)
SOLID = "\N{NO-BREAK SPACE}"
PLACE = re.compile(r" \(\S+:\d+\)| at \S+:\d+")
GIVEN_BY_SIZE = re.compile(r"d\d+(_\d+)?")
NUMBERED = re.compile(r"(.+?)(?:_(\d+))?")


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
    facts += [f"{d.size} blocks" for d in plan.dims if d.kind == "depth"]
    facts += [f"{plan.parametrization} for {plan.optimizer}"] + ([plan.gauge] if plan.gauge != "fold" else [])
    moved = any(d.base != d.size for d in plan.dims)
    return [
        Text(model.target, "bold"),
        *_wrap(" · ".join(facts), width),
        *_wrap(MARKS + (" x is the factor that comes to, at this size over this base." if moved else ""), width, "dim"),
    ]


def _count(n: int) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def _wrap(text: str, width: int, style: str = "", hang: str = "") -> list[Text]:
    return [Text(line.replace(SOLID, " "), style) for line in wrapped(text, width, hang)]


def _table(head: list[str], rows: list[list[str]], width: int) -> list[Text]:
    heads, lines = table(head, rows, width - 2)
    return [*(Text("  " + line, "dim") for line in heads), *(Text("  " + line) for line in lines)]


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
        out += _table(["dim", "size", *(["base"] if moved else []), "kind", "grows", "why"], rows, width)
    named = [d for d in plain if d.kind != "kernel" and not GIVEN_BY_SIZE.fullmatch(d.name)]
    words = [f"{'..'.join(_ends(run))}={run[0].size} ({run[0].kind})" for run in _runs(named)]
    if words:
        out += _wrap(f"  fixed by the data or the code: {', '.join(words)}", width, hang="  ")
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


# Parameters.


def _roles(plan: Plan, width: int, verbose: bool) -> list[list[Text]]:
    return [
        _role(plan, role, chosen, width, verbose)
        for role in MEANING
        if (chosen := [p for p in plan.parameters if p.role == role])
    ]


def _role(plan: Plan, role: str, chosen: list[Parameter], width: int, verbose: bool) -> list[Text]:
    """One table where every row's laws fit beside its name; else the rows of one law under it."""
    cells = _Cells(plan)
    many = f"{len(chosen)} tensor{'s' * (len(chosen) != 1)}"
    title = Text.assemble((role.capitalize(), f"bold {STYLES[role]}".strip()), f"  {MEANING[role]}  ", (many, "dim"))
    if role in ("unknown", "unused"):
        return [title, *_columns(chosen, {"axes": cells.axes, "why": _unknown}, plan, width)]
    laws = cells.laws(verbose)
    groups: dict[str, list[Parameter]] = {}
    for p in chosen:
        groups.setdefault(_spoken({name: law(p) for name, law in laws.items()}), []).append(p)
    flat = _columns(chosen, {**laws, "axes": cells.axes, "what": cells.what}, plan, width)
    if len(groups) > 1 and len(flat) == 1 + _rows(chosen, cells, laws, plan):
        return [title, *flat]
    out = [title]
    for law, members in groups.items():
        out += _wrap("  " + law, width, hang="  ")
        lines = _columns(members, {"axes": cells.axes, "what": cells.what}, plan, width - 2)
        out += [_indented(line) for line in lines[1:]]
    return out


def _indented(line: Text) -> Text:
    return Text.assemble("  ", line)


def _columns(chosen: list[Parameter], columns: Mapping[str, Column], plan: Plan, width: int) -> list[Text]:
    """A table of the columns that say something; the first of its lines is the head."""
    rows = [
        [f.name, *f.shown] for f in folded((_names(p, plan), tuple(c(p) for c in columns.values())) for p in chosen)
    ]
    head = ["parameter", *columns]
    used = [i for i, title in enumerate(head) if title in ALWAYS or any(row[i] not in ("", "1") for row in rows)]
    return _table([head[i] for i in used], [[row[i] for i in used] for row in rows], width)


def _rows(chosen: list[Parameter], cells: _Cells, laws: Mapping[str, Column], plan: Plan) -> int:
    """The lines that the rows take where nothing is wrapped."""
    columns = [*laws.values(), cells.axes, cells.what]
    shown = folded((_names(p, plan), tuple(c(p) for c in columns)) for p in chosen)
    return sum(max(cell.count("\n") + 1 for cell in f.shown) for f in shown)


def _spoken(laws: Mapping[str, str]) -> str:
    """`init std ~ n^-1/2 · lr ~ n^-1 · decay ~ n`; what does not change is said to. No line breaks within a law."""
    said = [f"{name} {law}".replace(" ", SOLID) for name, law in laws.items() if law not in ("", "1")]
    same = [name.removesuffix(" ~") for name, law in laws.items() if law == "1" and name != "multiplier ~"]
    return " · ".join([*said, f"{', '.join(same)} the same at every width"] if same else said)


ALWAYS = ("parameter", "axes", "init std ~", "lr ~")


def _unknown(p: Parameter) -> str:
    return next((w for w in p.why if "unknown" in w), p.why[-1] if p.why else "")


def _names(p: Parameter, plan: Plan) -> str:
    """A tied tensor under all its names, if they are few."""
    group = next((names for names in plan.model.tied if p.name in names), ())
    others = [name for name in group if name != p.name]
    return " = ".join([p.name, *others]) if len(others) == 1 else p.name


def _uneven(p: Parameter) -> bool:
    return len({(q.role, str(q.init_std and q.init_std.exponent)) for q in p.parts}) > 1


class _Cells:
    """What a row says of a parameter, column by column."""

    def __init__(self, plan: Plan) -> None:
        self.dims = {d.name: d for d in plan.dims}
        self.ratios = {d.name: d.size / d.base for d in plan.dims}
        self.optimizer = plan.optimizer

    def laws(self, verbose: bool) -> dict[str, Column]:
        columns: dict[str, Column] = {
            "init std ~": self.std,
            "multiplier ~": lambda p: self.law(p.multiplier.exponent if p.multiplier else {}),
            "lr ~": lambda p: self.law(p.lr.exponent if p.lr else {}),
            "decay ~": lambda p: self.law(p.weight_decay.exponent if p.weight_decay else {}),
        }
        if verbose:
            columns["eps ~"] = lambda p: self.law(p.eps.exponent if p.eps else {})
        columns["optimizer"] = lambda p: p.optimizer if p.optimizer and p.optimizer != self.optimizer else ""
        return columns

    def std(self, p: Parameter) -> str:
        return "by part" if _uneven(p) else self.law(p.init_std.exponent if p.init_std else {})

    def what(self, p: Parameter) -> str:
        return p.sub_role or ""

    def axes(self, p: Parameter) -> str:
        axes = zip(p.axes, p.shape, strict=True)
        text = " × ".join(self.axis(p, at, dims, n) for at, (dims, n) in enumerate(axes)) or "one number"
        if not _uneven(p):
            return text
        return "\n".join([text, *(self.part(q) for q in p.parts)])

    def axis(self, p: Parameter, at: int, dims: tuple[str, ...], size: int) -> str:
        """`(n_head*·head_dim)`; parts laid end to end as `(384+384+384)*`; what is named by its size alone as that."""
        ranges = [q.range for q in p.parts if q.axis == at]
        if len(dims) == 1 and ranges:
            parts = "+".join(str(stop - start) for start, stop in ranges)
            return f"({parts})" + "*" * bool(self.dims[dims[0]].grows)
        words = [self.dim(name) for name in dims] or [str(size)]
        return "·".join(words) if len(words) == 1 else f"({'·'.join(words)})"

    def dim(self, name: str) -> str:
        dim = self.dims[name]
        plain = dim.grows is False and (dim.kind == "kernel" or GIVEN_BY_SIZE.fullmatch(name))
        return str(dim.size) if plain else name + "*" * bool(dim.grows)

    def part(self, part: Part) -> str:
        std = f", init std ~ {self.law(part.init_std.exponent)}" if part.init_std else ""
        return f"[{part.range[0]}:{part.range[1]}] {part.role}{std}"

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
    """Why, parameter by parameter; blocks alike in all but their number together; what the rules cite, once."""
    out, cited = [Text("Why", "bold")], f"rule {plan.parametrization}: "
    sources = dict.fromkeys(line for p in plan.parameters for line in p.why if line.startswith(cited))
    for fold in folded((p.name, (p.role, p.sub_role, p.source, _numberless(p.why))) for p in plan.parameters):
        role, sub_role, source, why = fold.shown
        label = f"  {role}" + (f", {sub_role}" if sub_role else "") + (f"  {source}" if source else "")
        out.append(Text.assemble((fold.name, "bold"), (label, STYLES.get(role, ""))))
        for reason in why:
            if reason not in sources:
                out += _wrap("    " + reason, width, hang="      ")
    if sources:
        out += [Text(), Text("Sources", "bold")]
        out += [line for source in sources for line in _wrap("  " + source, width, hang="    ")]
    return out


def _numberless(why: Iterable[str]) -> tuple[str, ...]:
    return tuple(line if line.startswith("rule ") else re.sub(r"(?<=\w\.)\d+(?=\.\w)", "{i}", line) for line in why)
