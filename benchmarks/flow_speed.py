"""What flow costs beside one bare meta forward of the same model, in one process, alternating.

    python benchmarks/flow_speed.py                      # a dozen models
    python benchmarks/flow_speed.py hf:llama timm:resnet50

Flow is everything between an analysis with a set-up's exponents and its verdicts: the passes forward and backward, and
the judging. Processor time, the better of several.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mupc import analyze
from mupc.flow import Ray, flow, from_plan
from mupc.flow.verdicts import judge
from mupc.plan import make_plan
from mupc.rulebase import load_rules
from mupc.target import load_target

TARGETS = ("hf:bert", "hf:gpt2", "hf:llama", "hf:qwen2", "hf:gemma2", "hf:mixtral", "hf:t5", "hf:vit", "hf:clip",
           "hf:whisper", "hf:mamba", "timm:resnet50", "timm:convnext_tiny", "timm:vit_base_patch16_224")  # fmt: skip


def best(job: Callable[[], Any], times: int = 5) -> float:
    """Milliseconds of the processor."""
    took = []
    for _ in range(times):
        start = time.process_time()
        job()
        took.append((time.process_time() - start) * 1e3)
    return min(took)


@click.command(help=__doc__)
@click.argument("targets", nargs=-1)
def main(targets: tuple[str, ...]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rules, ratios = load_rules(), []
    click.echo(f"Machine: {platform.machine()}, 1 thread, torch {torch.__version__}")
    for name in targets or TARGETS:
        target = load_target(name)
        analysis = analyze(target.model, target.args, target.kwargs, sizes=target.sizes, target=target.name)
        setup = from_plan(make_plan(analysis, rulebase=rules), analysis.roles, rules, Ray())
        args, kwargs = torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda t: t.to("meta"), (target.args, target.kwargs)
        )

        def bare(model: Any = target.model, args: Any = args, kwargs: Any = kwargs) -> None:
            with torch.device("meta"), torch.no_grad():
                model(*args, **kwargs)

        def whole(analysis: Any = analysis, setup: Any = setup) -> None:
            judge(analysis, flow(analysis, setup, Ray()))

        try:
            forward = best(bare)
        except Exception as error:  # it reads values, which meta tensors have not
            click.echo(f"{name}: no bare meta forward ({type(error).__name__})")
            continue
        took = best(whole)
        ratios.append(took / forward)
        click.echo(f"{name}: flow {took:.1f} ms, bare meta forward {forward:.1f} ms, ratio {took / forward:.2f}")
    click.echo(f"median ratio {statistics.median(ratios):.2f} of {len(ratios)}")


if __name__ == "__main__":
    main()
