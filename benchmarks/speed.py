"""How long tracing and inference take, beside one bare meta forward and `torch.export` of the same model.

    python benchmarks/speed.py            # Llama at the 405B shape
    python benchmarks/speed.py --layers 32 --repeats 5

Every figure is a ratio of times taken in one process, alternating; the peak resident memory is of the whole
`mupc analyze` command (parent and child), run apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, ROOT)

SHAPE = {
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def timed(function: Callable[[], Any]) -> float:
    """Seconds one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def llama(layers: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model on meta, and inputs that a bare meta forward accepts: a ready mask, or it would call `.item()`."""
    from mupc.target import import_transformers

    transformers = import_transformers()
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=layers, **SHAPE)).eval()
        inputs = {
            "input_ids": torch.zeros(2, 10, dtype=torch.long),
            "attention_mask": torch.zeros(2, 1, 10, 10),
            "use_cache": False,
        }
    return model, inputs


def command(layers: int) -> tuple[float, float]:
    """Seconds and peak resident MB of the whole command."""
    settings = [f"{name}={value}" for name, value in SHAPE.items()]
    call = [
        sys.executable,
        "-m",
        "mupc",
        "analyze",
        "hf:llama",
        f"num_hidden_layers={layers}",
        *settings,
        "--format",
        "json",
    ]
    seconds = timed(lambda: subprocess.run(call, check=True, stdout=subprocess.DEVNULL, cwd=ROOT))
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=126)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-export", action="store_true")
    options = parser.parse_args()
    seconds, megabytes = command(options.layers)

    from mupc.analysis import analyze
    from mupc.trace import trace

    model, inputs = llama(options.layers)

    def forward() -> None:
        with torch.no_grad():
            model(**inputs)

    jobs: dict[str, Callable[[], Any]] = {
        "bare meta forward": forward,
        "trace": lambda: trace(model, (), inputs),
        "trace + inference": lambda: analyze(model, (), inputs),
    }
    if not options.no_export:
        jobs["torch.export"] = lambda: torch.export.export(model, (), inputs, strict=False)
    for name in list(jobs)[:3]:
        jobs[name]()  # imports and caches
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.repeats):
        for name, job in jobs.items():
            if name != "torch.export" or not times[name]:
                times[name].append(timed(job))
    middle = {name: statistics.median(t) for name, t in times.items()}
    result = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "layers": options.layers,
        "seconds": {name: round(t, 3) for name, t in middle.items()},
        "trace + inference / bare meta forward": round(middle["trace + inference"] / middle["bare meta forward"], 2),
        "trace + inference / torch.export": round(middle["trace + inference"] / middle["torch.export"], 3)
        if "torch.export" in middle
        else None,
        "whole command": {"seconds": round(seconds, 1), "peak MB of one process": round(megabytes)},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
