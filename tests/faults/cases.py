"""The planted mistakes: one line each that differs from the right set-up, and what must be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tests.faults.models import GPT, MLP, Conv, Looped, LoRA, MoE, Pool, Towers


@dataclass(frozen=True)
class Case:
    """`fault` and `right` are arguments of `set_up`; `said` the code of the finding, `line` what stands on its line, or
    `parameter` whom it names. `measured`: the coordinate check sees it too."""

    kind: type[nn.Module]
    fault: dict[str, Any]
    said: str
    line: str = ""
    parameter: str = ""
    right: dict[str, Any] = field(default_factory=dict)
    measured: bool = True
    scaling: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


def one(m: float) -> float:
    return 1.0


def down(m: float) -> float:
    return 1 / m


def rates(name: str, law: Callable[[float], float]) -> dict[str, Any]:
    return {"lr": {name: law}}


CASES = {
    "readout_init_root": Case(GPT, {"std": {"head.weight": lambda m: 0.2 / math.sqrt(m)}}, "MUP202", "self.head(x)"),
    "readout_multiplier_twice": Case(
        GPT, {"knobs": {"readout": lambda w: 32 / w}}, "MUP203", parameter="head.weight", measured=True
    ),
    "readout_rate_unscaled": Case(GPT, rates("head.weight", one), "MUP202", parameter="head.weight"),
    "readout_zero_and_unscaled": Case(
        GPT, {"std": {"head.weight": lambda m: 0.0}, **rates("head.weight", one)}, "MUP202", parameter="head.weight",
        right={"std": {"head.weight": lambda m: 0.0}},
    ),
    "attention_root_of_a_growing_head": Case(
        GPT, {"knobs": {"few_heads": True}}, "MUP202", "scores = scores",
        right={"knobs": {"few_heads": True, "attention": lambda d, w: 1 / d}}, scaling=("head_dim",), fixed=("heads",),
    ),
    "attention_scaled_by_width_too": Case(
        GPT, {"knobs": {"attention": lambda d, w: (d * w) ** -0.5}}, "MUP204", "scores = scores"
    ),
    "embedding_rate_scaled": Case(GPT, rates("wte.weight", down), "MUP203", parameter="wte.weight"),
    "positions_rate_scaled": Case(GPT, rates("wpe.weight", down), "MUP203", parameter="wpe.weight"),
    "embedding_init_root": Case(
        GPT, {"std": {"wte.weight": lambda m: 0.5 / math.sqrt(m), "wpe.weight": lambda m: 0.5 / math.sqrt(m)}},
        "MUP202", "self.qkv(self.ln1(x))", measured=False,  # branches of size one join it: it grows later than 512
    ),
    "embedding_times_root_of_width": Case(
        GPT, {"knobs": {"embed": lambda w: math.sqrt(w)}}, "MUP201", "self.wte(ids)"
    ),
    "hidden_rate_unscaled": Case(GPT, rates("hidden", one), "MUP202", parameter="blocks.0.up.weight"),
    "hidden_init_constant": Case(GPT, {"std": {"hidden": lambda m: 0.2}}, "MUP201", "self.qkv(self.ln1(x))"),
    "gain_rate_scaled": Case(GPT, rates("blocks.0.ln1.weight", down), "MUP203", parameter="blocks.0.ln1.weight"),
    "bias_rate_scaled": Case(GPT, rates("blocks.0.up.bias", down), "MUP203", parameter="blocks.0.up.bias"),
    "branch_over_width": Case(GPT, {"knobs": {"branch": lambda w: 32 / w}}, "MUP203", parameter="blocks.0.down.weight"),
    "tied_without_multiplier": Case(
        GPT, {"knobs": {"tied": True}}, "MUP201", "self.head(x)",
        right={"knobs": {"tied": True, "readout": lambda w: 32 / w}},
    ),
    "decay_shrinks_with_the_rate": Case(
        GPT, {"decay": lambda m, rate: 0.1}, "MUP206", parameter="blocks.0.up.weight", measured=False
    ),
    "decay_scaled_twice": Case(
        GPT, {"decay": lambda m, rate: 0.1 / rate**2}, "MUP206", parameter="blocks.0.up.weight", measured=False
    ),
    "eps_unscaled": Case(GPT, {"eps": one}, "MUP205", parameter="blocks.0.up.weight", measured=False),
    "sgd_embedding_unscaled": Case(
        GPT, {"optimizer": "sgd", **rates("wte.weight", one)}, "MUP203", parameter="wte.weight",
        right={"optimizer": "sgd"},
    ),
    "sgd_readout_unscaled": Case(
        GPT, {"optimizer": "sgd", **rates("head.weight", one)}, "MUP202", parameter="head.weight",
        right={"optimizer": "sgd"},
    ),
    "sgd_gain_unscaled": Case(
        GPT, {"optimizer": "sgd", **rates("ln.weight", one)}, "MUP203", parameter="ln.weight",
        right={"optimizer": "sgd"},
    ),
    "mlp_input_rate_scaled": Case(MLP, rates("first.weight", down), "MUP203", parameter="first.weight"),
    "mlp_hidden_unscaled": Case(MLP, rates("hidden.weight", one), "MUP202", parameter="hidden.weight"),
    "features_normalized": Case(
        MLP, {"knobs": {"normalize": lambda w: 1.0}}, "MUP203", parameter="last.weight",
        right={"knobs": {"normalize": lambda w: math.sqrt(w)}},
    ),
    "patch_rate_scaled": Case(Conv, rates("patch.weight", down), "MUP203", parameter="patch.weight"),
    "depthwise_rate_scaled": Case(Conv, rates("deep.weight", down), "MUP203", parameter="deep.weight"),
    "pointwise_unscaled": Case(Conv, rates("point.weight", one), "MUP202", parameter="point.weight"),
    "product_over_root": Case(Towers, {"knobs": {"product": lambda w: w**-0.5}}, "MUP201", "return (a @ b.mT)"),
    "sum_pool_over_width": Case(Pool, {"knobs": {"sum": True}}, "MUP201", "x.sum(-1, keepdim=True)"),
    "router_as_hidden": Case(MoE, {"std": {"router.weight": lambda m: 0.2 / math.sqrt(m)}}, "MUP202", "self.router(x)"),
    "experts_unscaled": Case(MoE, rates("up", one), "MUP202", parameter="up"),
    "tied_depth_without_1_over_L": Case(
        Looped, {"knobs": {"loop": lambda n: 1.0}}, "MUP207", "x = x + torch.relu(", measured=False
    ),
    "lora_a_unscaled": Case(LoRA, rates("a", one), "MUP202", parameter="a"),
}  # fmt: skip
