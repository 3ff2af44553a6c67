"""The report a person reads in a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mupc.exponents import Monomial
from mupc.plan import ParameterEntry, Plan
from mupc.report.names import folded

STYLES = {
    "input": "cyan",
    "hidden": "green",
    "output": "magenta",
    "vector": "blue",
    "scalar": "white",
    "unused": "dim",
    "unknown": "bold red",
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


def render(plan: Plan, *, verbose: bool = False, color: bool = False, width: int = 100) -> str:
    """Plan -> text of at most `width` columns (more where a parameter's name needs them). `verbose` says why."""
    buffer = io.StringIO()
    names = max((len(p.name) for p in plan.parameters), default=0) if verbose else 0
    console = Console(
        file=buffer,
        width=max(width, 72, names + 8),
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
    )
    for part in (_head(plan), _dims(plan, verbose), *_roles(plan), _foot(plan)):
        console.print(part)
    if verbose:
        console.print(_reasons(plan))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).rstrip() + "\n"


def _head(plan: Plan) -> RenderableType:
    model = plan.model
    facts = [f"{_count(model.parameters)} parameters in {model.tensors} tensors"]
    facts += [f"{model.depth} blocks deep"] if model.depth else []
    return Group(
        Text(model.target, style="bold"),
        Text(" · ".join([*facts, f"{plan.parametrization}, {plan.optimizer}"])),
        Text(),
    )


def _count(n: int) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return str(n)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(
            column, no_wrap=column in ("dim", "parameter", "size", "base", "grows", "kind"), overflow="fold"
        )
    return table


def _dims(plan: Plan, verbose: bool) -> RenderableType:
    moved = any(dim.base != dim.size for dim in plan.dims)
    table = _table("dim", "size", *(["base"] if moved else []), "kind", "grows", "why")
    shown = [d for d in plan.dims if verbose or d.grows is not False or d.kind not in ("kernel", "data", "lookup")]
    for dim in sorted(shown, key=lambda d: (d.grows is False, d.grows is None)):
        grows = {True: Text("yes", style="green"), False: Text("no", style="dim"), None: Text("?", style="bold red")}
        sizes = [str(dim.size), *([str(dim.base)] if moved else [])]
        table.add_row(dim.name, *sizes, dim.kind, grows[dim.grows], dim.why)
    return Group(Text("Dims", style="bold"), table, Text())


def _roles(plan: Plan) -> list[RenderableType]:
    growing = {dim.name for dim in plan.dims if dim.grows}
    out: list[RenderableType] = []
    for role, meaning in MEANING.items():
        chosen = [p for p in plan.parameters if p.role == role]
        if not chosen:
            continue
        known = role not in ("unknown", "unused")
        table = _table("parameter", "axes", *(["init std", "lr", "decay"] if known else ["why"]))
        for name, count, shown, _ in folded((p.name, _row(p, growing)) for p in chosen):
            assert isinstance(shown, tuple)
            cells = [Text.from_markup(cell) for cell in shown]
            table.add_row(Text(name if count == 1 else f"{name}"), *cells)
        title = Text.assemble((role.capitalize(), f"bold {STYLES[role]}"), f"  {meaning}  ", (f"{len(chosen)}", "dim"))
        out.append(Group(title, table, Text()))
    return out


def _row(p: ParameterEntry, growing: set[str]) -> tuple[str, ...]:
    axes = " × ".join(_axis(dims, n, growing) for dims, n in zip(p.axes, p.shape, strict=True)) or "scalar"
    if p.parts and len({part.role for part in p.parts}) > 1:
        axes += "\n" + "\n".join(
            f"  [{q.range[0]}:{q.range[1]}] {q.role}, std {_law(q.init_std.exponent)}" for q in p.parts
        ).replace("[", "\\[")
    elif len(p.parts) > 1:
        axes += f"  ({len(p.parts)} parts)"
    if p.lr is None or p.init_std is None or p.weight_decay is None:
        return (axes, p.why[-1] if p.why else "")
    std = "" if p.init_std.value is None else _law(p.init_std.exponent)
    return (axes, std, _law(p.lr.exponent), _law(p.weight_decay.exponent))


def _axis(dims: tuple[str, ...], size: int, growing: set[str]) -> str:
    words = [f"[green]{d}[/green]" if d in growing else d for d in dims]
    return "1" if size == 1 else "·".join(words) if len(words) < 2 else f"({'·'.join(words)})"


def _law(exponent: Mapping[str, str]) -> str:
    return str(Monomial.from_json(exponent))


def _foot(plan: Plan) -> RenderableType:
    lines: list[Text] = []

    def say(title: str, text: str, style: str = "") -> None:
        lines.append(Text.assemble((f"{title}: ", "bold"), (text, style)))

    for names in plan.model.tied:
        say("Tied", " = ".join(names) + "; an input for init and rate, its readout needs 1/width elsewhere")
    cover = plan.coverage
    if cover.held_fixed:
        say("Held fixed", ", ".join(f"{name}={size}" for name, size in cover.held_fixed.items()))
    total = cover.classified + cover.unknown
    say(
        "Coverage",
        f"{cover.classified} of {total} tensors classified, {cover.unknown} unknown",
        "bold red" if cover.unknown else "",
    )
    if cover.assumed_ops:
        say("Assumed pointwise or unknown ops", ", ".join(cover.assumed_ops), "yellow")
    for guess in cover.guesses[:8]:
        say("Guessed", guess, "yellow")
    if len(cover.guesses) > 8:
        say("Guessed", f"{len(cover.guesses) - 8} more branches or numbers that depend on values", "yellow")
    for finding in plan.findings:
        place = f"{finding.source}: " if finding.source else ""
        say(finding.code, f"{place}{finding.message}" + (f"; {finding.fix}" if finding.fix else ""), "red")
    say("Findings", str(len(plan.findings)) if plan.findings else "none")
    return Group(*lines)


def _reasons(plan: Plan) -> RenderableType:
    parts: list[Any] = [Text(), Text("Why", style="bold")]
    for name, _, shown, _first in folded((p.name, (p.role, p.sub_role, p.source, p.why)) for p in plan.parameters):
        assert isinstance(shown, tuple)
        role, sub, source, why = shown
        label = f"{role}/{sub}" if sub else str(role)
        parts.append(Text.assemble((name, "bold"), f"  {label}" + (f"  at {source}" if source else "")))
        parts += [Padding(Text(line), (0, 0, 0, 4)) for line in why]
    return Group(*parts)
