"""What `mupc.Monitor` costs at its default interval: training with and without it, in turns, in one process.

python benchmarks/monitor.py
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mupc
from benchmarks.families import GPT
from mupc.monitor import INTERVAL

WIDTH, DEPTH, BATCH, LENGTH, ROUNDS = 256, 4, 8, 16, 4


def main() -> None:
    """Rounds of one interval each, alternately watched and not; the ratio of their medians."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(WIDTH, depth=DEPTH)
    ids = torch.randint(64, (BATCH, LENGTH))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    plan = mupc.plan(mupc.analyze(model, (ids,)))

    def interval() -> float:
        start = time.perf_counter()
        for _ in range(INTERVAL):
            optimizer.zero_grad()
            F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
            optimizer.step()
        return time.perf_counter() - start

    interval()
    plain, watched = [], []
    for _ in range(ROUNDS):
        plain.append(interval())
        with mupc.Monitor(model, plan, optimizer):
            watched.append(interval())
    ratio = statistics.median(watched) / statistics.median(plain)
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}: GPT of width {WIDTH}, {DEPTH} blocks, "
          f"{BATCH}x{LENGTH} tokens, {1e3 * statistics.median(plain) / INTERVAL:.1f} ms a step; with the monitor every "
          f"{INTERVAL} steps {ratio:.3f} times that")  # fmt: skip


if __name__ == "__main__":
    main()
