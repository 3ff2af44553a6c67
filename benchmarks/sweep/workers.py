"""Models judged in processes of their own, forked from one that has imported everything, killed when too slow."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

MEMORY = 9 << 30  # bytes of address space a model may take
Job = tuple[str, str]  # library, name


@dataclass(frozen=True)
class Running:
    job: Job
    process: BaseProcess
    since: float


def path(folder: Path, job: Job) -> Path:
    """Where a model's record is kept."""
    library, name = job
    return folder / library / f"{name.replace('/', '_')}.json"


def run(
    jobs: Sequence[Job], folder: Path, workers: int, seconds: float, work: Callable[[str, str], dict[str, Any]]
) -> Iterator[Job]:
    """Each job in a fork, `workers` at a time; yields a job as its record is written. What dies leaves a record too."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(jobs)), []
    while waiting or running:
        while waiting and len(running) < workers:
            job = waiting.pop()
            process = context.Process(target=_child, args=(job, folder, work))
            process.start()
            running.append(Running(job, process, time.monotonic()))
        time.sleep(0.05)
        for one in list(running):
            late = time.monotonic() - one.since > seconds
            if late:
                one.process.kill()
            if late or not one.process.is_alive():
                one.process.join()
                running.remove(one)
                if not path(folder, one.job).exists():
                    why = f"no answer in {seconds:.0f} s" if late else f"died with {one.process.exitcode}"
                    _write(folder, one.job, {"library": one.job[0], "name": one.job[1], "stage": "died", "error": why})
                yield one.job


def _child(job: Job, folder: Path, work: Callable[[str, str], dict[str, Any]]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        sys.stdout = sys.stderr = nowhere
        try:
            record = work(*job)
        except Exception:  # the sweep's own mistake
            record = {"library": job[0], "name": job[1], "stage": "died", "error": traceback.format_exc()[-900:]}
        _write(folder, job, record)


def _write(folder: Path, job: Job, record: dict[str, Any]) -> None:
    """Whole or not at all: the sweep may be stopped at any moment and gone on with."""
    target = path(folder, job)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(record, indent=1))
    part.replace(target)
