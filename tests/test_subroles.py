"""Finer names: from what attention does with a value, from the residual stream and from the axes' kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

import mupc
from mupc.target import load_target
from tests.oracle import cases_hf
from tests.oracle.checks import judge

EXAMPLES = Path(__file__).parent.parent / "examples"


def found(name: str) -> dict[str, str | None]:
    target = load_target(str(EXAMPLES / f"{name}.py"), (), ())
    analysis = mupc.analyze(target.model, target.args, target.kwargs)
    return {key: p.sub_role for key, p in analysis.parameters.items()}


def test_an_moe_block() -> None:
    roles = found("moe")
    block = {key.removeprefix("blocks.0."): role for key, role in roles.items() if key.startswith("blocks.0.")}
    assert block["attn.proj.weight"] == "attn_out"
    assert block["attn.qkv.weight"] is None  # query, key and value in one
    assert (block["moe.router.weight"], block["moe.w_in"], block["moe.w_out"]) == ("router", "expert_in", "expert_out")
    assert (block["norm1.weight"], block["norm1.bias"]) == ("gain", "bias")
    assert (roles["tokens.weight"], roles["positions"]) == ("embedding", "positional")


EXPECTED = {
    "llama": {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "attn_out", "gate_proj": "mlp_in"},
    "bert": {"query": "query", "key": "key", "value": "value", "attention.output.dense": "attn_out"},
    "t5": {"SelfAttention.q": "query", "EncDecAttention.k": "key", "wi": "mlp_in", "wo": "mlp_out"},
    "bloom": {"query_key_value": None, "self_attention.dense": "attn_out", "dense_4h_to_h": "mlp_out"},
    "mixtral": {"mlp.gate": "router", "q_proj": "query", "o_proj": "attn_out"},
    "deepseek_v3": {"q_a_proj": "lora_a", "kv_b_proj": "lora_b", "o_proj": "attn_out"},
    "mamba": {"A_log": "ssm_state", "conv1d": "conv", "dt_proj": "lora_b"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_library_models(name: str) -> None:
    parameters = judge(cases_hf.CASES[name]).analysis.roles.parameters
    for part, expected in EXPECTED[name].items():
        named = [p for key, p in parameters.items() if key.removesuffix(".weight").endswith(part)]
        assert named
        assert {p.sub_role for p in named} == {expected}, part
