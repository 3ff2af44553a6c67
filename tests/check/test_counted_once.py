"""Numbers in the code that are powers of a width are counted once: predicted with them, measured with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mupc.check.document import Check
from mupc.child import Job, run

MODEL = '''
import math

import torch
from torch import nn


class Attention(nn.Module):
    """{how}"""

    def __init__(self, width: int = 64):
        super().__init__()
        self.embed = nn.Embedding(32, width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.head = nn.Linear(width, 8, bias=False)
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=width**-0.5)

    def forward(self, ids):
        x = self.embed(ids)
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(-1, -2) {how}
        return self.head(scores.softmax(-1) @ v)


def example_inputs():
    return torch.arange(32).view(4, 8)
'''
ROWS = {"/ math.sqrt(k.size(-1))": "0", "/ k.size(-1)": "-1/2", "* 0.125": "1/2"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checked(target: str, *settings: str, seeds: int = 3, **options: Any) -> Check:
    given = {"widths": {}, "regime": "linear", "steps": 5, "seeds": seeds, "lr": 1e-3, "optimizer": "adamw",
             "parametrization": None, "rules": ()} | options  # fmt: skip
    return Check.from_json(run(Job(target, settings, (), given, work="check", memory=16.0)).document)


def init(check: Check, name: str) -> tuple[str | None, float | None]:
    row = next(row for row in check.rows if name in row.name)
    series = next(s for s in row.series if s.quantity == "init")
    return series.predicted, series.slope


@pytest.mark.parametrize("how", ROWS)
def test_a_root_written_by_hand(tmp_path: Path, how: str) -> None:
    """q.k over so many places is their root before it is divided."""
    (tmp_path / "model.py").write_text(MODEL.replace("{how}", how))
    found = checked(f"{tmp_path / 'model.py'}:Attention", widths={"width": [64, 128, 256]})
    row = "div" if how.startswith("/") else "mul"
    predicted, measured = init(found, row)
    assert predicted == ROWS[how]
    assert measured == pytest.approx(float(eval(predicted)), abs=0.12)
    assert how.startswith("*") or found.agreeing == found.judged  # growing scores settle a softmax


def test_t5_divides_its_tied_logits_by_a_root() -> None:
    """The embedding is in the stream that it reads again: logits add as n, and d_model**-0.5 takes half of that."""
    found = checked("hf:t5", "num_layers=1", "vocab_size=128", "d_ff=128", seeds=2,
                    widths={"d_model": [128, 256, 512], "d_ff": [128, 256, 512]})  # fmt: skip
    predicted, measured = init(found, "lm_head")
    assert predicted == "1/2"
    assert measured is not None
    assert 0 < measured <= 0.6  # one logit of many is its own token's
    assert found.agreeing == found.judged > 15


def test_gemma_multiplies_its_embedding_by_a_root() -> None:
    """The number is a buffer of one element, and the gains are 1 + w."""
    small = ("num_hidden_layers=1", "vocab_size=128", "num_attention_heads=4", "num_key_value_heads=1", "head_dim=16",
             "hidden_size=64", "intermediate_size=128")  # fmt: skip
    found = checked("hf:gemma", *small, parametrization="mup")
    predicted, measured = init(found, "embed_tokens")
    assert predicted == "1/2"
    assert measured == pytest.approx(0.5, abs=0.12)
    assert found.agreeing == found.judged > 8
