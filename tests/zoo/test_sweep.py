"""The sweep's committed table: every model in it can be had again, here a few, evenly spread over each library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = {"transformers": 4, "timm": 3, "torch.nn": 4}  # more would take minutes


def committed() -> dict[tuple[str, str], list[str]]:
    """The table's rows by library and name: class, tensors (or how far it came), unknown, ..."""
    found: dict[tuple[str, str], list[str]] = {}
    library = ""
    for line in (ROOT / "benchmarks" / "zoo.md").read_text().splitlines():
        if line.startswith("## "):
            library = line[3:]
        elif library in SAMPLE and line.startswith("| "):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[library, name] = cells
    return found


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("sweep")
    for library, count in SAMPLE.items():
        command = [sys.executable, "benchmarks/zoo.py", "-l", library, "--sample", str(count), "-j", "1", "--quick"]
        subprocess.run(
            [*command, "--folder", str(folder), "--out", str(folder / "zoo.md")],
            cwd=ROOT, check=True, capture_output=True, timeout=600,
        )  # fmt: skip
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


def test_the_sample_is_as_the_table_says(records: list[dict]) -> None:
    """What the table calls traced is traced again, with as many tensors and no more unknown."""
    table, checked = committed(), 0
    for record in records:
        row = table[record["library"], record["name"]]
        if row[1].isdigit():
            assert record["stage"] == "traced", record
            assert record["tensors"] == int(row[1]), record["name"]
            assert len(record["unknown"]) <= int(row[2]), record
            checked += 1
    assert checked >= 8


def test_the_sample_agrees_with_both_oracles(records: list[dict]) -> None:
    from benchmarks.sweep.table import explained

    lines = [(r, line) for r in records for line in (*r.get("wide_wrong", ()), *r.get("jacobian_wrong", ()))]
    assert [f"{r['name']}: {line}" for r, line in lines if not explained(r, line)] == []
    assert sum(r.get("varied", 0) for r in records) > 20
