"""The examples: what each parameter does, tensor by tensor, and that each example trains."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from tests.traps.roles_table import mismatches

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    """Import examples/NAME.py as a user's own file would be."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ids(vocab: int, length: int = 8) -> Tensor:
    return torch.randint(vocab, (2, length))


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size)


@dataclass(frozen=True)
class Example:
    """How to build an example small, what to feed it, how many classes it tells apart, and the roles expected."""

    name: str
    root: str
    config: str | None
    sizes: dict[str, object]
    inputs: object
    table: str

    def build(self) -> nn.Module:
        module = load(self.name)
        if self.config is None:
            return getattr(module, self.root)(**self.sizes)
        return getattr(module, self.root)(getattr(module, self.config)(**self.sizes))

    def example_inputs(self) -> Tensor:
        torch.manual_seed(0)
        return self.inputs()  # type: ignore[operator]


CASES = [
    Example(
        "nano_gpt",
        "GPT",
        "GPTConfig",
        {"block_size": 32, "vocab_size": 101, "n_layer": 2, "n_head": 3, "n_embd": 24},
        lambda: ids(101),
        """
        wte.weight              input   .n
        lm_head.weight          input   .n   # tied to wte
        wpe.weight              input   .n
        h.*.ln_?.*              vector  n
        h.*.attn.c_attn.weight  hidden  nn
        h.*.attn.c_proj.weight  hidden  nn
        h.*.mlp.c_fc.weight     hidden  nn
        h.*.mlp.c_proj.weight   hidden  nn
        h.*.bias                vector  n
        ln_f.*                  vector  n
        """,
    ),
    Example(
        "mlp",
        "MLP",
        None,
        {"in_features": 28, "width": 20, "depth": 3, "num_classes": 10},
        lambda: torch.randn(4, 28),
        """
        body.0.weight  input   n.
        body.2.weight  hidden  nn
        body.4.weight  hidden  nn
        body.?.bias    vector  n
        head.weight    output  .n
        head.bias      scalar  .
        """,
    ),
    Example(
        "resnet",
        "ResNet",
        None,
        {"block": "basic", "layers": (1, 2), "base_width": 6, "num_classes": 11},
        lambda: images(32),
        """
        stem.0.weight         input   n...
        stem.1.*              vector  n
        blocks.*.bn?.*        vector  n
        blocks.*.conv?.weight hidden  nn..
        blocks.*.shortcut.0.* hidden  nn..
        blocks.*.shortcut.1.* vector  n
        fc.weight             output  .n
        fc.bias               scalar  .
        """,
    ),
    Example(
        "resnet",
        "ResNet",
        None,
        {"block": "bottleneck", "layers": (1, 2), "base_width": 6, "num_classes": 11},
        lambda: images(32),
        """
        stem.0.weight         input   n...
        stem.1.*              vector  n
        blocks.*.bn?.*        vector  n
        blocks.*.conv?.weight hidden  nn..
        blocks.*.shortcut.0.* hidden  nn..
        blocks.*.shortcut.1.* vector  n
        fc.weight             output  .n
        fc.bias               scalar  .
        """,
    ),
    Example(
        "llama",
        "Llama",
        "LlamaConfig",
        {
            "vocab_size": 101,
            "dim": 48,
            "n_layers": 2,
            "n_heads": 6,
            "n_kv_heads": 3,
            "hidden_dim": 56,
            "max_seq_len": 32,
        },
        lambda: ids(101),
        """
        tok_embeddings.weight        input   .n
        layers.*.attention.w?.weight hidden  nn
        layers.*.feed_forward.w?.*   hidden  nn
        layers.*_norm.weight         vector  n
        norm.weight                  vector  n
        output.weight                output  .n
        """,
    ),
    Example(
        "moe",
        "MoETransformer",
        "MoEConfig",
        {"vocab_size": 101, "block_size": 32, "n_layer": 2, "n_head": 4, "d_model": 24, "d_expert": 40, "n_experts": 5},
        lambda: ids(101),
        """
        tokens.weight             input   .n
        positions                 input   .n
        blocks.*.norm?.*          vector  n
        blocks.*.attn.*.weight    hidden  nn
        blocks.*.moe.router.*     output  .n
        blocks.*.moe.w_in         hidden  .nn
        blocks.*.moe.w_out        hidden  .nn
        norm.*                    vector  n
        head.weight               output  .n
        """,
    ),
    Example(
        "lstm",
        "LSTMLanguageModel",
        None,
        {"vocab_size": 101, "embedding_dim": 12, "hidden_size": 20},
        lambda: ids(101),
        """
        embedding.weight    input   .n
        lstm.weight_ih_l?   hidden  nn
        lstm.weight_hh_l?   hidden  nn
        lstm.bias_?h_l?     vector  n
        head.weight         output  .n
        head.bias           scalar  .
        """,
    ),
    Example(
        "ssm",
        "SSM",
        "SSMConfig",
        {"vocab_size": 101, "d_model": 24, "n_layer": 2, "d_state": 5, "dt_rank": 3},
        lambda: ids(101),
        """
        embedding.weight               input   .n
        layers.*.norm.weight           vector  n
        layers.*.mixer.in_proj.weight  hidden  nn
        layers.*.mixer.conv1d.weight   vector  n..
        layers.*.mixer.conv1d.bias     vector  n
        layers.*.mixer.x_proj.weight   output  .n   # dt rank + B + C, all fixed
        layers.*.mixer.dt_proj.weight  input   n.
        layers.*.mixer.dt_proj.bias    vector  n
        layers.*.mixer.A_log           vector  n.   # the state is fixed
        layers.*.mixer.D               vector  n
        layers.*.mixer.out_proj.weight hidden  nn
        norm.weight                    vector  n
        lm_head.weight                 output  .n
        """,
    ),
    Example(
        "unet",
        "UNet",
        None,
        {"channels": 8, "multipliers": (1, 2), "num_heads": 2, "groups": 4},
        lambda: images(16),
        """
        stem.weight          input   n...
        stem.bias            vector  n
        *.norm?.*            vector  n
        attn.norm.*          vector  n
        down.*.conv?.weight  hidden  nn..
        down.*.skip.weight   hidden  nn..
        pool.*.weight        hidden  nn..
        mid?.conv?.weight    hidden  nn..
        attn.*.weight        hidden  nn..
        grow.*.weight        hidden  nn..
        up.*.conv?.weight    hidden  nn..
        up.*.skip.weight     hidden  nn..
        norm.*               vector  n
        out.weight           output  .n..
        out.bias             scalar  .
        *.bias               vector  n
        """,
    ),
    Example(
        "vit",
        "ViT",
        None,
        {"image_size": 32, "patch_size": 8, "dim": 24, "depth": 2, "num_heads": 3, "num_classes": 11},
        lambda: images(32),
        """
        patch_embed.weight     input   n...
        patch_embed.bias       vector  n
        cls_token              vector  ..n
        pos_embed              input   ..n
        *norm*                 vector  n
        blocks.*.attn.*.weight hidden  nn
        blocks.*.mlp.*.weight  hidden  nn
        blocks.*.bias          vector  n
        head.weight            output  .n
        head.bias              scalar  .
        """,
    ),
]

name_of = [f"{case.name}-{case.sizes.get('block', '')}".strip("-") for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_roles(case: Example) -> None:
    from mupc.analysis import analyze

    with torch.device("meta"):
        model = case.build()
    analysis = analyze(model, (case.example_inputs().to("meta"),))
    assert mismatches(analysis.parameters, case.table) == []


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_trains_on_cpu(case: Example) -> None:
    torch.manual_seed(0)
    model = case.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        out = model(case.example_inputs())
        out = out[0] if isinstance(out, tuple) else out
        loss = out.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_plain_and_short(path: Path) -> None:
    """No mupc in them; one file each, under 150 lines; exactly one module can be built without arguments."""
    text = path.read_text()
    assert "mupc" not in text
    assert len(text.splitlines()) < 150
    module = load(path.stem)
    built = []
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__:
            try:
                with torch.device("meta"):
                    value()
                built.append(name)
            except TypeError:
                continue
    assert len(built) == 1
