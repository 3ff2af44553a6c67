"""Repeated blocks traced once give the very graph that tracing each gives, and what cannot be repeated is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from mupc.target import import_timm, import_transformers
from mupc.trace import Trace, trace
from mupc.trace import templates as templates_module
from tests.trace.graphs import faithful


def same_graphs(folded: Trace, whole: Trace) -> None:
    """Node for node: target, arguments, shapes, module and source."""
    places = [{n: i for i, n in enumerate(found.graph.nodes)} for found in (folded, whole)]

    def plain(value: Any, at: int) -> Any:
        if isinstance(value, fx.Node):
            return f"%{places[at][value]}"
        if isinstance(value, (list, tuple)):
            return [plain(v, at) for v in value]
        return {k: plain(v, at) for k, v in value.items()} if isinstance(value, dict) else repr(value)

    def shown(value: Any) -> Any:
        if isinstance(value, Tensor):
            return tuple(value.shape), value.dtype
        return [shown(v) for v in value] if isinstance(value, (list, tuple)) else value

    def row(node: fx.Node, at: int) -> Any:
        meta = node.meta
        said = [meta.get(k) for k in ("module", "source", "user_source", "kind", "name")]
        return str(node.target), plain(node.args, at), plain(node.kwargs, at), shown(meta["val"]), said

    for a, b in zip(folded.graph.nodes, whole.graph.nodes, strict=True):
        assert row(a, 0) == row(b, 1)
    for get in (lambda t: t.parameters, lambda t: t.buffers, lambda t: t.inputs, lambda t: t.outputs):
        ends = [{k: places[at][n] for k, n in get(found).items()} for at, found in enumerate((folded, whole))]
        assert ends[0] == ends[1]
    assert (folded.unused, folded.tied, folded.guesses) == (whole.unused, whole.tied, whole.guesses)


def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Filled with the replays that happen."""
    seen: list[str] = []
    real = templates_module._Replay.run

    def run(self: Any) -> Any:
        seen.append(self.recorder.writer.path[-1])
        return real(self)

    monkeypatch.setattr(templates_module._Replay, "run", run)
    return seen


def _gpt2() -> tuple[nn.Module, dict[str, Any]]:
    t = import_transformers()
    return t.GPT2LMHeadModel(t.GPT2Config(n_embd=16, n_layer=6, n_head=2, vocab_size=50)), {}


def _llama() -> tuple[nn.Module, dict[str, Any]]:
    t = import_transformers()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    return t.LlamaForCausalLM(t.LlamaConfig(num_hidden_layers=6, vocab_size=50, **sizes)), {}


def _mixtral() -> tuple[nn.Module, dict[str, Any]]:
    t = import_transformers()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = t.MixtralConfig(num_hidden_layers=6, vocab_size=50, num_local_experts=4, **sizes)
    return t.MixtralForCausalLM(config), {}


def _deepseek() -> tuple[nn.Module, dict[str, Any]]:
    t = import_transformers()
    config = t.DeepseekV3Config(
        hidden_size=32, intermediate_size=40, moe_intermediate_size=8, num_hidden_layers=7, first_k_dense_replace=1,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, n_group=2, topk_group=1,
        num_experts_per_tok=2, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8,
        vocab_size=50,
    )  # fmt: skip
    return t.DeepseekV3ForCausalLM(config), {}


def _t5() -> tuple[nn.Module, dict[str, Any]]:
    t = import_transformers()
    config = t.T5Config(d_model=16, d_ff=24, d_kv=8, num_layers=6, num_heads=2, vocab_size=50)
    ids = torch.zeros(1, 5, dtype=torch.long)
    return t.T5ForConditionalGeneration(config), {"decoder_input_ids": ids}


def _vit() -> tuple[nn.Module, dict[str, Any]]:
    model = import_timm().create_model("vit_tiny_patch16_224", depth=6, img_size=32, embed_dim=24, num_heads=2)
    return model, {"x": torch.zeros(1, 3, 32, 32)}


MODELS = {"gpt2": _gpt2, "llama": _llama, "mixtral": _mixtral, "deepseek": _deepseek, "t5": _t5, "vit": _vit}


@pytest.mark.parametrize("name", MODELS)
def test_folded_and_whole_are_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        model, kwargs = MODELS[name]()
    model.eval()
    if "x" not in kwargs:
        kwargs |= {"input_ids": torch.tensor([[1, 2, 3, 4, 5]])}
    if "use_cache" in model.forward.__code__.co_varnames:
        kwargs["use_cache"] = False
    whole = trace(model, (), kwargs, fold_blocks=False)
    seen = replays(monkeypatch)
    folded = trace(model, (), kwargs)
    assert seen, "nothing was folded"
    same_graphs(folded, whole)


class Block(nn.Module):
    def __init__(self, i: int, step: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer_idx, self.step = i, step
        self.norm, self.up, self.down = nn.LayerNorm(6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self, x)


class Stack(nn.Module):
    def __init__(self, step: Callable[[Any, Tensor], Tensor], depth: int = 7) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(i, step) for i in range(depth))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def mlp(b: Any, x: Tensor) -> Tensor:
    return x + b.down(torch.relu(b.up(b.norm(x))))


SHARED: dict[str, Any] = {}


def writes_its_input(b, x):
    x += b.down(torch.relu(b.up(b.norm(x))))
    return x


def writes_what_it_made(b, x):
    y = torch.zeros_like(x)
    y[:, :3] += mlp(b, x)[:, :3]
    return y


def alternates(b, x):
    return mlp(b, x) if b.layer_idx % 2 else x - mlp(b, x)


def compares_the_index(b, x):
    return x * 2 if b.layer_idx == 4 else mlp(b, x)


def indexes_by_index(b, x):
    return mlp(b, x) * (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)[b.layer_idx]


def scales_by_index(b, x):
    return mlp(b, x) / (b.layer_idx + 1)


def formats_the_index(b, x):
    return mlp(b, x) if str(b.layer_idx) in "35" else x + mlp(b, x)


def counts_calls(b, x):
    b.calls += 1
    return mlp(b, x)


def keeps_its_result(b, x):
    b.latest = mlp(b, x)
    return b.latest


def counts_on_a_global(b, x):
    SHARED["n"] = SHARED.get("n", 0) + 1
    return mlp(b, x) * SHARED["n"]


def fills_a_shared_list(b, x):
    y = mlp(b, x)
    SHARED.setdefault("kept", []).append(y)
    return y + sum(SHARED["kept"])


FOLDED = [mlp, writes_what_it_made]
REFUSED = [
    writes_its_input,
    alternates,
    compares_the_index,
    indexes_by_index,
    scales_by_index,
    counts_calls,
    keeps_its_result,
    fills_a_shared_list,
    formats_the_index,
]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    SHARED.clear()


def _traced(step: Callable[[Any, Tensor], Tensor], fold: bool) -> Trace:
    SHARED.clear()
    return trace(Stack(step), (torch.zeros(2, 6),), fold_blocks=fold)


@pytest.mark.parametrize("step", FOLDED, ids=lambda f: f.__name__)
def test_plain_blocks_are_folded(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _traced(step, False)
    seen = replays(monkeypatch)
    same_graphs(_traced(step, True), whole)
    assert seen == [f"blocks.{i}" for i in range(2, 6)]
    torch.manual_seed(0)
    faithful(Stack(step), torch.randn(2, 6))


@pytest.mark.parametrize("step", [*REFUSED, counts_on_a_global], ids=lambda f: f.__name__)
def test_blocks_with_effects_are_not(step: Any) -> None:
    same_graphs(_traced(step, True), _traced(step, False))


def test_a_cache_handed_through_is_not_repeated() -> None:
    class Cached(Stack):
        def forward(self, x: Tensor) -> Any:
            cache: list[Tensor] = []
            for block in self.blocks:
                x = block.step(block, x, cache) if False else block(x)
                cache.append(x)
            return self.head(x + torch.stack(cache).sum(0))

    model = Cached(mlp)
    x = (torch.zeros(2, 6),)
    same_graphs(trace(model, x), trace(model, x, fold_blocks=False))


def test_a_cache_as_an_argument_is_not_repeated() -> None:
    class Cache:
        def __init__(self) -> None:
            self.kept: list[Tensor] = []

    class Filling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(6, 6)

        def forward(self, x: Tensor, cache: Any) -> Tensor:
            cache.kept.append(self.q(x))
            return x + sum(cache.kept)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Filling() for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            cache = Cache()
            for block in self.blocks:
                x = block(x, cache)
            return x

    model, x = Model(), (torch.zeros(2, 6),)
    same_graphs(trace(model, x), trace(model, x, fold_blocks=False))


def test_blocks_of_other_widths_are_apart() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(nn.Linear(6 + i // 4, 6 + (i + 1) // 4) for i in range(12)))

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x)

    faithful(Pyramid(), torch.randn(2, 6))


def test_tied_blocks() -> None:
    shared = nn.Linear(6, 6)
    model = nn.Sequential(*(nn.Sequential(shared, nn.Linear(6, 6)) for _ in range(6)))
    found = faithful(model, torch.randn(2, 6))
    same_graphs(found, faithful(model, torch.randn(2, 6), fold_blocks=False))
    assert len(found.parameters) == 14


def test_a_module_that_blocks_share_keeps_its_own_path() -> None:
    class Sharing(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.own, self.shared = nn.Linear(6, 6), shared

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(self.own(x)) / torch.tensor(2.0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Linear(6, 6)
            self.blocks = nn.Sequential(*(Sharing(self.table) for _ in range(6)))

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x)

    model = Model()
    same_graphs(faithful(model, torch.randn(2, 6)), faithful(model, torch.randn(2, 6), fold_blocks=False))


def test_a_block_called_twice() -> None:
    class Twice(Stack):
        def forward(self, x: Tensor) -> Any:
            for block in [*self.blocks, *self.blocks]:
                x = block(x)
            return self.head(x)

    model = Twice(mlp)
    same_graphs(faithful(model, torch.randn(2, 6)), faithful(model, torch.randn(2, 6), fold_blocks=False))


def test_what_a_block_decides_by_a_value_is_the_same_for_all_or_not_folded() -> None:
    def gated(b: Any, x: Tensor) -> Tensor:
        return mlp(b, x) if x.sum() > 0 else x - b.up(x)[:, :6]

    same_graphs(_traced(gated, True), _traced(gated, False))
