"""Parameters in a table: grouped by role, repeated blocks folded, each law said once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from rich.text import Text

from mupc.exponents import Monomial
from mupc.plan import Parameter, Part, Plan
from mupc.report.layout import SOLID, lines_of, table_of
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
    "unused": "reaches no output, given these inputs",
    "unknown": "not guessed",
}
Column = Callable[[Parameter], str]
GIVEN_BY_SIZE = re.compile(r"d\d+(_\d+)?")


def role_sections(plan: Plan, width: int, verbose: bool) -> list[list[Text]]:
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
        out += lines_of("  " + law, width, hang="  ")
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
    return table_of([head[i] for i in used], [[row[i] for i in used] for row in rows], width)


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
