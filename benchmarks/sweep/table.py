"""The sweep as one page: a summary, what is left to explain, and a row a model."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

EXPLAINED = Path(__file__).resolve().parent.parent / "zoo_explained.txt"
Records = Mapping[tuple[str, str], dict[str, Any]]


def explanations() -> list[tuple[str, str, str]]:
    """Rows `library/name  text  reason`: a disagreement with that text in it is the oracle's fault, for that reason."""
    rows = []
    for line in EXPLAINED.read_text().splitlines() if EXPLAINED.exists() else ():
        if line.strip() and not line.startswith("#"):
            who, text, reason = (part.strip() for part in line.split("  ", 2))
            rows.append((who, text, reason))
    return rows


def explained(record: dict[str, Any], line: str) -> str | None:
    """Why this disagreement says nothing against the analysis."""
    who = f"{record['library']}/{record['name']}"
    return next((why for name, text, why in explanations() if fnmatchcase(who, name) and text in line), None)


def write(records: Records, out: Path) -> None:
    """The whole page, atomically."""
    libraries = list(dict.fromkeys(library for library, _ in records))
    by_library = {library: [r for r in records.values() if r["library"] == library] for library in libraries}
    page = [
        "# The zoo\n",
        "Written by `python benchmarks/zoo.py`; what each column means stands in that script.",
        f"Machine: {platform.machine()}, {torch.get_num_threads()} thread a model, torch {torch.__version__}.\n",
        *_summary(by_library),
        *_left(records),
        *_rows(by_library),
    ]
    part = out.with_suffix(".part")
    part.write_text("\n".join(page) + "\n")
    part.replace(out)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"


def counts(records: list[dict[str, Any]]) -> dict[str, int]:
    """What a summary is made of."""
    built = [r for r in records if r["stage"] != "unbuildable"]
    traced = [r for r in built if r["stage"] == "traced"]
    wrong = [(r, line) for r in traced for line in (*r["wide_wrong"], *r["jacobian_wrong"])]
    open_ones = {r["name"] for r, line in wrong if not explained(r, line)}
    return {
        "listed": len(records),
        "buildable": len(built),
        "traced": len(traced),
        "tensors": sum(r["tensors"] for r in traced),
        "unknown": sum(len(r["unknown"]) for r in traced),
        "unused": sum(r["unused"] for r in traced),
        "two widths": sum(bool(r["wide"]) for r in traced),
        "varied": sum(r["varied"] for r in traced),
        "disagreeing": len(open_ones),
        "explained": len({r["name"] for r, _ in wrong} - open_ones),
    }


HEAD = (
    "library", "listed", "buildable", "traced", "tensors", "classified", "unused", "with two widths", "integers varied",
    "agreeing", "oracle's fault", "trace / bare", "inference / bare",
)  # fmt: skip


def _summary(by_library: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    rows = (HEAD, ["---"] * len(HEAD), *map(_line, by_library.items()))
    return [*("| " + " | ".join(row) + " |" for row in rows), ""]


def _line(named: tuple[str, list[dict[str, Any]]]) -> list[str]:
    library, records = named
    n = counts(records)
    agreeing = n["traced"] - n["disagreeing"]
    return [
        library,
        str(n["listed"]),
        str(n["buildable"]),
        f"{n['traced']} ({_share(n['traced'], n['buildable'])})",
        str(n["tensors"]),
        _share(n["tensors"] - n["unknown"], n["tensors"]),
        str(n["unused"]),
        str(n["two widths"]),
        str(n["varied"]),
        f"{agreeing} ({_share(agreeing, n['traced'])})",
        str(n["explained"]),
        _ratio(records, "trace"),
        _ratio(records, "infer"),
    ]


def _ratio(records: list[dict[str, Any]], what: str) -> str:
    """The median over models of a stage's time in times of one bare meta forward."""
    times = [r["ms"] for r in records if r["stage"] == "traced" and "bare" in r["ms"]]
    return f"{statistics.median(t[what] / t['bare'] for t in times):.2f}" if times else "-"


def _left(records: Records) -> list[str]:
    """What did not come through, and why."""
    page: list[str] = []
    for stage, title in (
        ("unbuildable", "Not buildable from the library's own defaults"),
        ("no inputs", "No inputs found"),
        ("untraced", "Not traced"),
        ("died", "Out of time or memory"),
    ):
        rows = [r for r in records.values() if r["stage"] == stage]
        if rows:
            page += [f"## {title}\n", *(f"- {r['library']}/{r['name']}: {_quoted(r['error'])}" for r in rows), ""]
    rows = [r for r in records.values() if r.get("unknown")]
    if rows:
        page += ["## Unknown tensors\n"]
        page += [f"- {r['library']}/{r['name']} ({len(r['unknown'])}): {_quoted(r['unknown'][0])}" for r in rows]
        page.append("")
    known, open_ones = _disagreements(records)
    if open_ones:
        page += ["## Disagreements\n", *open_ones, ""]
    if known:
        page += ["## Disagreements that are the oracle's fault\n", *known, ""]
    return page


def _disagreements(records: Records) -> tuple[list[str], list[str]]:
    known: dict[str, None] = {}
    open_ones: list[str] = []
    for record in records.values():
        for oracle in ("wide_wrong", "jacobian_wrong"):
            for line in record.get(oracle, ()):
                who = f"{record['library']}/{record['name']}"
                why = explained(record, line)
                if why:
                    known[f"- {who}: {why}"] = None
                else:
                    open_ones.append(
                        f"- {who}, {'two widths' if oracle == 'wide_wrong' else 'Jacobian'}: {_quoted(line)}"
                    )
    return list(known), open_ones


def _quoted(text: str) -> str:
    return f"`{text[:300].replace('`', chr(39))}`"


def _rows(by_library: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    page: list[str] = []
    for library, records in by_library.items():
        page += [
            f"## {library}\n",
            "| name | class | tensors | unknown | unused | integers varied | bare ms | trace ms | inference ms |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for r in records:
            if r["stage"] != "traced":
                page.append(f"| {r['name']} | {r.get('model', '')} | {r['stage']} | | | | | | |")
                continue
            ms = [str(r["ms"].get(k, "")) for k in ("bare", "trace", "infer")]
            varied = f"{r['varied']}{'' if r['complete'] else '+'}"
            cells = (r["name"], r["model"], r["tensors"], len(r["unknown"]), r["unused"], varied, *ms)
            page.append("| " + " | ".join(map(str, cells)) + " |")
        page.append("")
    return page
