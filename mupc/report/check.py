"""The text of a coordinate check."""

from __future__ import annotations

from rich.text import Text

from mupc.check.document import AGREEING, Check, Row, Series
from mupc.report.layout import lines_of, table_of
from mupc.report.standing import line_of
from mupc.report.text import ansi

HEAD = ["value", "at init", "own update", "updates before", "gradient", "verdict", "line"]
QUANTITIES = ("init", "effective", "propagating", "grad")


def render(check: Check, *, verbose: bool = False, color: bool = False, width: int = 100) -> str:
    """Check -> text: predicted powers beside measured slopes, those that are off or ill first."""
    lines = [Text(check.target, "bold")]
    how = "in the linear response" if check.regime == "linear" else f"{check.steps} steps of training"
    lines += lines_of(f"{check.setup} · {how} · {check.seeds} seeds · {check.said}", width)
    lines.append(Text("Each cell: power predicted / slope measured over the three largest widths.", "dim"))
    shown = [row for row in check.rows if verbose or row.verdict == "off" or row.ill]
    lines.append(Text())
    if shown:
        rows = [[row.name, *(_cell(row, q) for q in QUANTITIES), _verdict(row), line_of(row.source)] for row in shown]
        lines += table_of(HEAD, rows, width)
        lines.append(Text())
    own = [t for t in check.tensors if t.verdict in ("explodes", "lazy") or (verbose and t.effect is not None)]
    if own:
        rows = [[t.name, t.predicted or "none", _slope(t.effect, t.half), t.verdict, line_of(t.source)] for t in own]
        lines += table_of(["parameter", "its own update moves by", "measured", "verdict", "line"], rows, width)
        lines.append(Text())
    matrices = [t for t in check.tensors if t.top is not None] if verbose else []
    if matrices:
        rows = [[t.name, *(_slope(s, None) for s in (t.top, t.top_update, t.equilibrium, t.eps))] for t in matrices]
        head = ["matrix", "singular value over sqrt(out/in)", "its update's", "size at decay's equilibrium",
                "eps over gradient"]  # fmt: skip
        lines += table_of(head, rows, width)
        lines.append(Text())
    ill = [row for row in check.rows if row.ill]
    agreeing = f"Agreeing: {check.agreeing} of {check.judged} values"
    if check.unclear:
        agreeing += f"; {check.unclear} of {len(check.rows)} unclear, their seeds differ too much: more --seeds tell"
    lines += lines_of(agreeing, width)
    healthy = (
        "nothing grows or vanishes with width"
        if check.healthy
        else f"{len(ill)} of {len(check.rows)} values " + ("grow or vanish with width")
    )
    lines += lines_of(f"Measured: {healthy}", width)
    for note in check.notes:
        lines += lines_of(f"Note: {note}", width, "dim", hang="  ")
    lines.append(Text("Passed" if check.passed else f"Failed: {_why(check)}", "green" if check.passed else "red"))
    return "".join(ansi(lines) if color else (line.plain + "\n" for line in lines))


def _why(check: Check) -> str:
    if not check.judged:
        return "nothing could be judged"
    if not check.healthy:
        return "something grows or vanishes with width"
    if check.agreeing < AGREEING * check.judged:
        return "measured slopes are not what is predicted"
    return "too many values are unclear"


def _cell(row: Row, quantity: str) -> str:
    series = next((s for s in row.series if s.quantity == quantity), None)
    if series is None:
        return "-"
    mark = " !" if series.verdict == "off" else ""
    return f"{series.predicted or 'none'} / {_measured(series)}{mark}"


def _measured(series: Series) -> str:
    return _slope(series.slope, series.half)


def _slope(slope: float | None, half: float | None) -> str:
    if slope is None:
        return "none"
    return f"{slope + 0.0:.2f}" + ("" if half is None else f"±{half:.2f}")


def _verdict(row: Row) -> str:
    if row.predicted == row.measured:
        return row.measured
    return f"{row.measured}, {row.predicted} in the end" if row.why else f"{row.measured}, not {row.predicted}"
