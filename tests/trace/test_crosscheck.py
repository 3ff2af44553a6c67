"""The recorder held against torch's own tracers, and against `torch.export` in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mupc.errors import TraceError
from mupc.target import import_timm, import_transformers
from mupc.trace import crosscheck, search, trace
from mupc.trace.fallback import recorder_works
from tests.trace.graphs import calls

Built = tuple[nn.Module, dict[str, Any]]
IDS = torch.tensor([[1, 2, 3, 4, 5]])
DECODER = {"input_ids": IDS, "use_cache": False, "attention_mask": torch.zeros(1, 1, 5, 5)}  # a mask that is not read


def _gpt2() -> Built:
    t = import_transformers()
    config = t.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50)
    return t.GPT2LMHeadModel(config), dict(DECODER)


def _llama() -> Built:
    t = import_transformers()
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = t.LlamaConfig(num_hidden_layers=2, vocab_size=50, **sizes)
    return t.LlamaForCausalLM(config), dict(DECODER)


def _bert() -> Built:
    t = import_transformers()
    config = t.BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    return t.BertForMaskedLM(config), {"input_ids": IDS}


def _t5() -> Built:
    t = import_transformers()
    config = t.T5Config(d_model=16, d_ff=24, d_kv=8, num_layers=2, num_heads=2, vocab_size=50)
    return t.T5ForConditionalGeneration(config), {"input_ids": IDS, "decoder_input_ids": IDS, "use_cache": False}


def _timm(name: str, size: int, **settings: Any) -> Callable[[], Built]:
    def build() -> Built:
        model = import_timm().create_model(name, **settings)
        return model, {"x": torch.zeros(2, 3, size, size)}

    return build


MODELS: dict[str, Callable[[], Built]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "bert": _bert,
    "t5": _t5,
    "vit": _timm("vit_tiny_patch16_224", 32, img_size=32, depth=2, embed_dim=24, num_heads=2),
    "resnet": _timm("resnet18", 64),
}


@pytest.fixture(params=MODELS)
def built(request: pytest.FixtureRequest) -> Built:
    with torch.device("meta"):
        model, kwargs = MODELS[request.param]()
    return model.eval(), kwargs


def test_torch_export_agrees(built: Built) -> None:
    model, kwargs = built
    ours = crosscheck.counts(trace(model, (), kwargs))
    assert ours == crosscheck.counts(crosscheck.exported(model, (), kwargs))
    assert sum(ours.ops.values()) > 4 and len(ours.used) > 20


def test_make_fx_agrees(built: Built) -> None:
    model, kwargs = built
    assert crosscheck.counts(trace(model, (), kwargs)) == crosscheck.functional_counts(model, (), kwargs)


def test_the_recorder_works_here() -> None:
    """No fallback where this suite runs: a torch on which this fails needs a look at the recorder."""
    assert recorder_works()


@pytest.fixture
def without_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    def entered(*_: Any) -> None:
        raise AttributeError("no such key")

    monkeypatch.setattr("mupc.trace.recorder.Recorder.__enter__", entered)
    recorder_works.cache_clear()
    yield
    recorder_works.cache_clear()


@pytest.mark.usefixtures("without_recorder")
def test_without_the_recorder_export_takes_its_place() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.up, self.spare = nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(2, 2)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight
            self.down = nn.Linear(8, 6)
            self.register_buffer("scale", torch.ones(6))

        def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
            x = self.embed(ids)
            return {"logits": self.head(x + self.down(self.up(x).relu()) * self.scale), "features": x}

    assert not recorder_works()
    model = Model()
    found = trace(model, (), {"ids": IDS})
    assert found.unused == ("spare.weight", "spare.bias")
    assert found.tied == (("embed.weight", "head.weight"),) and "head.weight" not in found.parameters
    assert list(found.inputs) == ["ids"] and list(found.buffers) == ["scale"]
    assert list(found.outputs) == ["logits", "features"]
    assert [n.meta["module"] for n in calls(found, "linear")] == ["up", "down", "head"]
    assert all("test_crosscheck.py" in n.meta["source"] for n in calls(found, "mul"))
    assert all(n.meta["val"].is_meta for n in found.graph.nodes)
    assert not any(getattr(n.target, "_schema", None) and n.target._schema.is_mutable for n in calls(found))
    assert not any(p.is_meta for p in model.parameters())


@pytest.mark.usefixtures("without_recorder")
def test_the_fallback_blames_the_users_line_too() -> None:
    class Raises(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    with pytest.raises(TraceError, match=r"test_crosscheck.py:\d+: ValueError: no"):
        trace(Raises(), (torch.zeros(2),))


@pytest.mark.usefixtures("without_recorder")
def test_analysis_reads_the_fallbacks_trace() -> None:
    from mupc.analysis import analyze

    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    roles = [p.role for name, p in analyze(model, (torch.zeros(4, 3),)).parameters.items() if name.endswith("weight")]
    assert roles == ["input", "hidden", "output"]


def test_the_search_asks_whether_the_recorder_works() -> None:
    assert search.recorder_works is recorder_works
