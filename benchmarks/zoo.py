"""Every public model that can be had: traced, classified, and held against two oracles that know nothing of mupc.

    python benchmarks/zoo.py                               # everything; goes on where it stopped
    python benchmarks/zoo.py -l timm -m 'vit*'             # some
    python benchmarks/zoo.py -l transformers --retry       # what did not come through is run again
    python benchmarks/zoo.py --times                       # measure what is traced again, the verdicts as they are
    python benchmarks/zoo.py --table                       # only tell what is known

Two widths (a test of the policy): every config field that by its name is a width is doubled; an axis must be called
growing exactly where its size moved. Jacobian (a test of the partition, no policy in it): each integer of the config is
varied alone; axes that bear the same dims must move by the same factor. Each model has a process of its own, forked
from one that has imported the libraries; records are kept under `--folder`, one file a model. The table goes to
benchmarks/zoo.md. Disagreements that are an oracle's fault are listed in benchmarks/zoo_explained.txt, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.sweep import subjects, table, workers  # noqa: E402
from benchmarks.sweep.judge import clocked, judge, plain  # noqa: E402


def known(folder: Path) -> dict[workers.Job, dict[str, Any]]:
    """All records there are."""
    records = [json.loads(file.read_text()) for file in sorted(folder.glob("*/*.json"))]
    return {(r["library"], r["name"]): r for r in records}


def wanted(libraries: tuple[str, ...], patterns: tuple[str, ...], sample: int) -> list[workers.Job]:
    """The models asked for; `sample` of each library, evenly spread, where it is not 0."""
    jobs: list[workers.Job] = []
    for library in libraries:
        names = [n for n in subjects.names(library) if not patterns or any(fnmatchcase(n, p) for p in patterns)]
        step = max(1, len(names) // sample) if sample else 1
        jobs += [(library, name) for name in names[::step]]
    return jobs


def failed(record: dict[str, Any]) -> bool:
    """Is there something left to mend?"""
    return record["stage"] != "traced" or any(record[key] for key in ("unknown", "wide_wrong", "jacobian_wrong"))


@click.command(help=__doc__)
@click.option("--library", "-l", "libraries", multiple=True, type=click.Choice(subjects.LIBRARIES))
@click.option("--match", "-m", "patterns", multiple=True, help="Names, as a shell would match them.")
@click.option("--sample", default=0, help="So many of each library.")
@click.option("--jobs", "-j", default=2, help="Processes at a time.")
@click.option("--seconds", default=240.0, help="A model's time.")
@click.option("--quick", is_flag=True, help="Vary for 8 seconds a model, where 60 are the rule.")
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / ".zoo", help="Where the records are kept.")
@click.option("--fresh", is_flag=True, help="Judge again what is already judged.")
@click.option("--retry", is_flag=True, help="Judge again what did not come through whole.")
@click.option("--times", is_flag=True, help="Measure times again where a record says traced; judge nothing.")
@click.option("--table", "only_table", is_flag=True, help="Write the table from what is known, and run nothing.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "zoo.md")
def main(
    libraries: tuple[str, ...],
    patterns: tuple[str, ...],
    sample: int,
    jobs: int,
    seconds: float,
    quick: bool,
    folder: Path,
    fresh: bool,
    retry: bool,
    times: bool,
    only_table: bool,
    out: Path,
) -> None:
    console = Console(stderr=True)
    if not only_table:
        chosen = libraries or subjects.LIBRARIES
        subjects.preload(chosen)
        before = known(folder)
        again = {job for job, record in before.items() if fresh or (retry and failed(record))}
        todo = [job for job in wanted(chosen, patterns, sample) if job not in before or job in again]
        if times:
            todo = [job for job in wanted(chosen, patterns, sample) if before.get(job, {}).get("stage") == "traced"]

        def look(library: str, name: str) -> dict[str, Any]:
            if times:
                record = before[library, name]
                with contextlib.suppress(Exception):  # what cannot be had any more keeps what it had
                    record = record | {"ms": clocked(library, name)}
                return record
            return plain(judge(library, name, 8.0 if quick else 60.0))

        for job in () if times else todo:
            workers.path(folder, job).unlink(missing_ok=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("models", total=len(todo))
            for done in workers.run(todo, folder, jobs, seconds, look):
                progress.update(bar, advance=1, description="/".join(done)[:40])
    table.write(known(folder), out)
    console.print(f"{out}: {len(known(folder))} models")


if __name__ == "__main__":
    main()
