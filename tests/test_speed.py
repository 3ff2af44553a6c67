"""The promise of speed: Llama at the 405B shape is traced and judged in at most 1.5 bare meta forwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.speed import llama
from mupc.analysis import analyze


def best(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def test_405b_in_one_and_a_half_bare_forwards() -> None:
    model, inputs = llama(126)
    with torch.no_grad():
        bare = best(lambda: model(**inputs))
    assert best(lambda: analyze(model, (), inputs)) < 1.5 * bare
