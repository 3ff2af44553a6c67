"""Every way to name a model, and what is said when it cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

from mupc.errors import TargetError
from mupc.target import build_target, load_target
from mupc.target.build import OnMeta, build
from mupc.target.settings import parse_settings, parse_value

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A file in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "net.py") -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import torch\nfrom torch import nn\n" + dedent(text))
        return name

    return write


def said(name: str, *settings: str) -> str:
    with pytest.raises(TargetError) as caught:
        build_target(name, settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_model_of_a_file_is_the_one_that_no_other_is_made_from():
    built = build_target(str(EXAMPLES / "nano_gpt.py"))
    assert type(built.model).__name__ == "GPT"
    assert {p.device.type for p in built.model.parameters()} == {"meta"}


def test_settings_reach_the_config_object():
    small = build_target(str(EXAMPLES / "nano_gpt.py"), ["n_layer=1", "n_embd=48"])
    dotted = build_target(str(EXAMPLES / "nano_gpt.py"), ["config.n_layer=1", "config.n_embd=48"])
    for built in (small, dotted):
        assert sum(type(module).__name__ == "Block" for module in built.model.modules()) == 1


def test_the_numbers_a_factory_is_called_with_are_named():
    assert dict(build_target(str(EXAMPLES / "mlp.py"), ["width=64"]).sizes)["width"] == 64
    assert {"n_layer": 1, "n_embd": 384}.items() <= build_target(
        str(EXAMPLES / "nano_gpt.py"), ["n_layer=1"]
    ).sizes.items()


def test_a_target_can_be_made_again_at_another_size():
    built = build_target(str(EXAMPLES / "mlp.py"))
    assert built.make({"width": 32}) is not built.model
    assert {p.shape[0] for p in built.make({"width": 32}).parameters()} == {32, 10}


def test_a_helper_function_hides_its_parts(write):
    name = write("""
        class Block(nn.Linear):
            def __init__(self, width: int = 4): super().__init__(width, width)
        def stack(n): return nn.Sequential(*(Block() for _ in range(n)))
        class Net(nn.Module):
            def __init__(self, depth: int = 2):
                super().__init__(); self.layers = stack(depth)
    """)
    assert type(build_target(name).model).__name__ == "Net"


ASSEMBLED = """
    class Part(nn.Module):
        def __init__(self, width: int):
            super().__init__(); self.up = nn.Linear(3, width)
    def pair(x): return x, x
    def build(width: int = 8) -> nn.Module: return nn.Sequential(Part(width), nn.Linear(width, 2))
"""


def test_the_one_function_that_returns_a_module_is_the_factory_where_no_class_is(write):
    assert type(build_target(write(ASSEMBLED)).model).__name__ == "Sequential"
    assert build_target(write(ASSEMBLED), ["width=16"]).model[1].in_features == 16
    alone = "def build() -> 'nn.Module': return nn.Linear(3, 2)"
    assert type(build_target(write(alone)).model).__name__ == "Linear"


def test_functions_are_not_guessed_between(write):
    """Two of them, one that needs arguments, or one that does not say what it returns: the user is asked."""
    two = dedent(ASSEMBLED) + "def other() -> nn.Module: return Part(4)\n"
    bare = dedent(ASSEMBLED).replace(" -> nn.Module", "")
    open_ = dedent(ASSEMBLED).replace("width: int = 8", "width: int")
    for text in (two, bare, open_):
        assert "name a function" in said(write(text))


def test_a_class_that_can_be_built_comes_before_a_function(write):
    name = write("""
        class Net(nn.Module):
            def __init__(self, width: int = 4):
                super().__init__(); self.up = nn.Linear(3, width)
        def wide() -> nn.Module: return Net(64)
    """)
    assert build_target(name).model.up.out_features == 4


def test_a_base_class_is_not_the_model(write):
    name = write("""
        class Base(nn.Module):
            def __init__(self, width: int = 4):
                super().__init__(); self.layer = nn.Linear(width, width)
        class Net(Base): pass
    """)
    assert type(build_target(name).model).__name__ == "Net"


def test_a_config_without_an_annotation_is_the_only_dataclass(write):
    name = write("""
        from dataclasses import dataclass
        @dataclass
        class Settings:
            width: int = 4
        class Net(nn.Module):
            def __init__(self, config):
                super().__init__(); self.layer = nn.Linear(config.width, config.width)
    """)
    assert build_target(name, ["width=6"]).model.layer.weight.shape == (6, 6)


def test_a_config_instance_in_the_module_is_used(write):
    name = write("""
        class Config:
            def __init__(self, width): self.width = width
        config = Config(5)
        class Net(nn.Module):
            def __init__(self, config: Config):
                super().__init__(); self.layer = nn.Linear(config.width, config.width)
    """)
    assert build_target(name).model.layer.weight.shape == (5, 5)


def test_a_module_level_model_is_a_target(write):
    name = write("model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))")
    assert isinstance(build_target(name).model, nn.Sequential)
    assert isinstance(build_target(f"{name}:model").model, nn.Sequential)


def test_a_factory_may_return_its_optimizer(write):
    name = write("""
        def make(width: int = 4):
            model = nn.Linear(width, width)
            return model, torch.optim.SGD(model.parameters(), lr=0.1)
    """)
    built = build_target(f"{name}:make", ["width=3"])
    assert built.model.in_features == 3
    assert isinstance(built.optimizer, torch.optim.SGD)


def test_a_dotted_module_and_a_file_of_a_package(write):
    write("", "pkg/__init__.py")
    write("WIDTH = 6", "pkg/sizes.py")
    write(
        """
        from .sizes import WIDTH
        class Net(nn.Module):
            def __init__(self):
                super().__init__(); self.layer = nn.Linear(WIDTH, WIDTH)
        """,
        "pkg/net.py",
    )
    assert build_target("pkg.net:Net").model.layer.in_features == 6
    assert build_target("pkg/net.py").model.layer.in_features == 6


def test_a_file_named_like_a_module_that_is_loaded(write):
    name = write("class Net(nn.Linear):\n    def __init__(self): super().__init__(2, 3)", "json.py")
    assert build_target(name).model.in_features == 2
    assert json.dumps({}) == "{}"


def test_example_inputs_beside_the_factory(write):
    name = write("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__(); self.layer = nn.Linear(5, 5)
            def forward(self, left, right): return self.layer(left) * right
        def example_inputs(): return {"left": torch.randn(3, 5), "right": torch.randn(3, 5)}
    """)
    target = load_target(name)
    assert sorted(target.kwargs) == ["left", "right"]
    assert target.how == "given by example_inputs()"


def test_hf_types_and_settings():
    pytest.importorskip("transformers")
    built = build_target("hf:llama", ["hidden_size=64", "num_hidden_layers=1", "num_attention_heads=4"])
    assert type(built.model).__name__ == "LlamaForCausalLM"
    assert built.make({"hidden_size": 128}).config.hidden_size == 128
    nested = build_target("hf:clip", ["text_config.hidden_size=64", "text_config.num_attention_heads=4"])
    assert nested.model.config.text_config.hidden_size == 64


def test_hf_config_file(tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "gpt2", "n_embd": 48, "n_head": 4, "n_layer": 1}))
    assert build_target(f"hf:{path}", ["n_layer=2"]).model.config.n_layer == 2
    path.write_text('{"n_embd": 48,}')
    assert f"{path}:1:" in said(f"hf:{path}")


def test_timm_names_and_settings():
    pytest.importorskip("timm")
    built = build_target("timm:resnet18", ["num_classes=7"])
    assert built.model.num_classes == 7
    assert {p.device.type for p in built.model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("missing.py", [], "missing.py: no such file"),
        ("hf:lama", [], "transformers has no model type 'lama'; did you mean llama, "),
        ("hf:gpt2", ["n_lyer=2"], "hf:gpt2 has no setting 'n_lyer'; did you mean n_layer"),
        ("hf:missing.json", [], "missing.json: no such file"),
        ("timm:resnt50", [], "timm has no model 'resnt50'; did you mean resnet50"),
        ("no_such_package.models:Net", [], "no_such_package.models: no module named 'no_such_package'"),
        ("1/2", [], "1/2: no such file"),
        ("", [], "no target: give model.py, "),
        ("missing.py", ["width"], "bad setting 'width': write key=value"),
        ("missing.py", ["w=1", "w=2"], "w is set twice: 1 and 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(name, settings, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name.startswith(("hf:", "timm:")):
        pytest.importorskip({"hf": "transformers", "timm": "timm"}[name.partition(":")[0]])
    assert said(name, *settings).startswith(line)


def test_values_are_literals_words_or_strings():
    assert [parse_value(text) for text in ("2", "1e-3", "(1, 2)", "true", "None", "gelu", "'8'")] == [
        2, 1e-3, (1, 2), True, None, "gelu", "8",
    ]  # fmt: skip
    assert parse_settings(["a.b=1", "c=x=y"]) == {"a.b": 1, "c": "x=y"}


def test_constants_of_a_constructor_have_values_and_weights_have_none():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 4)]
            self.layer = nn.Linear(10**6, 10**6)
            self.register_buffer("mask", torch.tril(torch.ones(8, 8)))
            self.layer.to("cuda").cuda()

    net = build(Net)
    assert net.rates[-1] == pytest.approx(0.1)
    assert net.layer.weight.is_meta


def test_a_constructor_that_reads_weights_is_run_for_real():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.scale = self.layer.weight.norm().item()

    assert build(Net).scale > 0
    with pytest.raises(ZeroDivisionError), OnMeta():
        raise ZeroDivisionError
