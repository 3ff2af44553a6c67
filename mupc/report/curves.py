"""A coordinate check as one page of HTML: curves over width, measured points and predicted slopes, and the table."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from jinja2 import Environment

from mupc.check.document import Check, Row, Series
from mupc.check.judge import worst
from mupc.errors import MupcError
from mupc.report.standing import line_of

PANELS = (("init", "size at init"), ("effective", "moved by own update"),
          ("propagating", "moved by updates before"), ("grad", "gradient"))  # fmt: skip
COLORS = {"stable": "#2a7f62", "grows": "#c0392b", "vanishes": "#2563a8", "nothing": "#888888"}
MOST = 12  # values with curves of their own

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ check.target }}: coordinate check</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1d2125 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e3e6e8; vertical-align: top }
.off { color: #c0392b; font-weight: 600 } .dim { color: #6b7378 } code { font-size: .92em }
svg { max-width: 100%; height: auto } .pass { color: #2a7f62 } .fail { color: #c0392b }
</style></head><body>
<h1>{{ check.target }}</h1>
<p>{{ check.setup }}; {{ how }}; {{ check.seeds }} seeds; <code>{{ check.said }}</code></p>
<p class="{{ 'pass' if check.passed else 'fail' }}"><strong>{{ 'Passed' if check.passed else 'Failed' }}</strong>:
{{ check.agreeing }} of {{ check.judged }} values agree with the prediction;
{{ 'nothing grows or vanishes with width' if check.healthy else 'something grows or vanishes with width' }}.</p>
<h2>All values</h2>
<p class="dim">Each line is one value, relative to the smallest width; red grows, blue vanishes, green is stable.</p>
{{ overview }}
{% if curves %}<h2>Where to look</h2>
<p class="dim">Points: measured, RMS over seeds. Dashed: the predicted slope through the largest width.</p>
{% for row, svg in curves %}<h3><code>{{ row.name }}</code> <span class="dim">{{ line(row.source) }}</span></h3>
{{ svg }}{% endfor %}{% endif %}
<h2>Every value</h2>
<table><tr><th>value</th>{% for _, title in panels %}<th>{{ title }}</th>{% endfor %}<th>predicted</th><th>measured</th>
<th>line</th></tr>
{% for row in check.rows %}<tr><td><code>{{ row.name }}</code></td>
{% for quantity, _ in panels %}{% set s = series(row, quantity) %}
<td{% if s and s.verdict == 'off' %} class="off"{% endif %}>
{%- if s %}{{ s.predicted or 'none' }} / {{ '%.2f' % s.slope if s.slope is not none else 'none' }}
{%- if s.half is not none %} <span class="dim">±{{ '%.2f' % s.half }}</span>{% endif %}{% endif %}</td>{% endfor %}
<td>{{ row.predicted }}</td>
<td{% if row.predicted != row.measured and not row.why %} class="off"{% endif %}>{{ row.measured }}</td>
<td class="dim">{{ line(row.source) }}</td></tr>{% endfor %}</table>
<h2>Parameters</h2>
<p class="dim">Slopes of the RMS of each tensor, of its first update over the rate, of its gradient, and of what its
update alone moves.</p>
<table><tr><th>parameter</th><th>size</th><th>update</th><th>gradient</th><th>own effect</th><th>predicted</th>
<th>verdict</th></tr>
{% for t in check.tensors %}<tr><td><code>{{ t.name }}</code></td>{% for v in (t.size, t.update, t.grad, t.effect) %}
<td>{{ '%.2f' % v if v is not none else '' }}</td>{% endfor %}<td>{{ t.predicted or '' }}</td>
<td{% if t.verdict in ('explodes', 'lazy', 'off') %} class="off"{% endif %}>{{ t.verdict }}</td></tr>{% endfor %}
</table>
{% for note in check.notes %}<p class="dim">{{ note }}</p>{% endfor %}
</body></html>
"""


def html(check: Check) -> str:
    """One file that needs no other, the same bytes for the same check. Raises `MupcError` without matplotlib."""
    curves = [(row, _figure([row], alone=True)) for row in worst(check)[:MOST]]
    how = "linear response" if check.regime == "linear" else f"{check.steps} steps of training"
    page = Environment(autoescape=True).from_string(PAGE)
    from markupsafe import Markup

    return page.render(
        check=check, how=how, panels=PANELS, line=line_of, series=_series, overview=Markup(_figure(check.rows)),
        curves=[(row, Markup(svg)) for row, svg in curves],
    )  # fmt: skip


def _series(row: Row, quantity: str) -> Series | None:
    return next((s for s in row.series if s.quantity == quantity), None)


def _figure(rows: Sequence[Row], *, alone: bool = False) -> str:
    """Four panels in a row, as SVG."""
    try:
        import matplotlib
    except ImportError as error:
        raise MupcError("--html draws with matplotlib: pip install 'mupc[plots]'") from error
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "mupc", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(13, 2.6 if alone else 3.4), layout="constrained")
        for axes, (quantity, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            for row in rows:
                _draw(axes, row, quantity, alone)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_title(title)
            axes.set_xlabel("width")
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)


def _draw(axes: object, row: Row, quantity: str, alone: bool) -> None:
    series = _series(row, quantity)
    if series is None or not series.points or any(value <= 0 for _, value in series.points):
        return
    xs = [width for width, _ in series.points]
    unit = 1.0 if alone else series.points[0][1]
    ys = [value / unit for _, value in series.points]
    color = COLORS.get(row.measured, "#888888")
    axes.plot(xs, ys, marker="o" if alone else "", ms=4, lw=1.2, color=color, alpha=1 if alone else 0.6)  # type: ignore[attr-defined]
    if alone and series.predicted is not None:
        from fractions import Fraction

        power = float(Fraction(series.predicted))
        axes.plot(xs, [ys[-1] * (x / xs[-1]) ** power for x in xs], ls="--", lw=1, color="#444444")  # type: ignore[attr-defined]
