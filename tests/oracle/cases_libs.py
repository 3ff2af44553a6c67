"""diffusers, neuraloperator, x-transformers and torch.nn's own modules for the oracles: keyword arguments as configs.

Each case is a small config and what is doubled in it. A library that is not installed has no cases.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mupc.target.torchvision_ops import import_torchvision
from tests.oracle.two_widths import Case

Config = dict[str, Any]
LIBRARY: dict[str, str] = {}
CASES: dict[str, Case] = {}
INSTALLED = {"diffusers": "diffusers", "neuraloperator": "neuralop", "x-transformers": "x_transformers"}


def ramp(*shape: int) -> Tensor:
    """Numbers that are all different, between 0 and 1."""
    return torch.linspace(0, 1, torch.Size(shape).numel()).view(shape)


def ids(*shape: int, below: int = 40) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).remainder(below).view(shape)


def case(
    library: str,
    name: str,
    build: Callable[[Config], nn.Module],
    base: Config,
    wide: Config,
    inputs: Callable[[Config], Any],
) -> None:
    """`wide` holds only what is changed."""
    LIBRARY[name] = library
    CASES[name] = Case(name, lambda: dict(base), lambda: {**base, **wide}, build, inputs)


# Where the written widths and the policy of DESIGN.md section 4 part: (case, parameter) -> why the policy stands.
SINUSOIDS = "sinusoids of the time are data by rule 1, whatever their number"
LATENT = (
    "a latent between layers of its own size is a width by rule 7; nothing but its field's name says that it is fixed"
)
OUTPUT = "what the model returns is data by rule 1: it is fed to another network"
EXPLAINED = {
    ("UNet2DModel", "time_embedding.linear_1.weight"): SINUSOIDS,
    ("UNet2DConditionModel", "time_embedding.linear_1.weight"): SINUSOIDS,
    ("ControlNetModel", "time_embedding.linear_1.weight"): SINUSOIDS,
    ("CogVideoXTransformer3DModel", "time_embedding.linear_1.weight"): SINUSOIDS,
    **{
        ("ControlNetModel", f"controlnet_{n}_block.{kind}".replace("down_block", "down_blocks.0")): OUTPUT
        for n in ("down", "mid")
        for kind in ("weight", "bias")
    },
    **{("AutoencoderKL", n): LATENT for n in ("encoder.conv_out.weight", "encoder.conv_out.bias", "quant_conv.weight")},
    **{
        ("VQModel", f"{n}.{kind}"): LATENT
        for n in ("decoder.conv_in", "encoder.conv_out", "post_quant_conv", "quant_conv", "quantize.embedding")
        for kind in ("weight", "bias")
    },
}


def library_of(name: str) -> str:
    return LIBRARY[name]


# diffusers ----------------------------------------------------------------------------------------------------------


def diffusers(name: str, base: Config, wide: Config, inputs: Any, label: str = "") -> None:
    def build(given: Config) -> nn.Module:
        import_torchvision()
        return getattr(import_module("diffusers"), name)(**given)

    case("diffusers", label or name, build, base, wide, lambda _: inputs() if callable(inputs) else inputs)


if find_spec("diffusers"):
    t2 = torch.tensor([3, 5])
    image = {"sample": ramp(2, 3, 16, 16), "timestep": t2}
    diffusers(
        "UNet2DModel",
        {"sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
         "attention_head_dim": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
         "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        {"block_out_channels": (32, 64), "norm_num_groups": 8},
        image,
    )  # fmt: skip
    condition: Config = {
        "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
        "attention_head_dim": 4, "cross_attention_dim": 40,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    }  # fmt: skip
    asked = {"sample": ramp(2, 4, 16, 16), "timestep": t2, "encoder_hidden_states": ramp(2, 7, 40)}
    diffusers(
        "UNet2DConditionModel",
        {**condition, "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
        {"block_out_channels": (32, 64), "attention_head_dim": 8, "norm_num_groups": 8},
        asked,
    )
    diffusers(
        "ControlNetModel",
        {**{k: v for k, v in condition.items() if k != "sample_size"}, "conditioning_embedding_out_channels": (12, 20)},
        {"block_out_channels": (32, 64), "attention_head_dim": 8, "norm_num_groups": 8,
         "conditioning_embedding_out_channels": (24, 40)},
        {**asked, "controlnet_cond": ramp(2, 3, 32, 32)},
    )  # fmt: skip
    diffusers(
        "AutoencoderKL",
        {"block_out_channels": (16, 32), "down_block_types": ("DownEncoderBlock2D",) * 2,
         "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 4, "norm_num_groups": 4, "sample_size": 16},
        {"block_out_channels": (32, 64), "norm_num_groups": 8},
        {"sample": ramp(2, 3, 16, 16)},
    )  # fmt: skip
    diffusers(
        "VQModel",
        {"block_out_channels": (16, 32), "down_block_types": ("DownEncoderBlock2D",) * 2,
         "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": 3, "num_vq_embeddings": 23,
         "norm_num_groups": 4},
        {"block_out_channels": (32, 64), "norm_num_groups": 8},
        {"sample": ramp(2, 3, 16, 16)},
    )  # fmt: skip
    heads = {"num_attention_heads": 8}
    diffusers(
        "DiTTransformer2DModel",
        {"num_attention_heads": 4, "attention_head_dim": 10, "in_channels": 4, "num_layers": 2, "sample_size": 8,
         "patch_size": 2, "num_embeds_ada_norm": 13, "norm_num_groups": 4, "out_channels": 4},
        heads,
        {"hidden_states": ramp(2, 4, 8, 8), "timestep": t2, "class_labels": t2},
    )  # fmt: skip
    diffusers(
        "PixArtTransformer2DModel",
        {"num_attention_heads": 4, "attention_head_dim": 10, "in_channels": 4, "num_layers": 2, "sample_size": 8,
         "patch_size": 2, "caption_channels": 24, "cross_attention_dim": 40, "out_channels": 8,
         "use_additional_conditions": False},
        {**heads, "cross_attention_dim": 80},
        {"hidden_states": ramp(2, 4, 8, 8), "timestep": t2, "encoder_hidden_states": ramp(2, 7, 24),
         "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
    )  # fmt: skip
    diffusers(
        "FluxTransformer2DModel",
        {"patch_size": 1, "in_channels": 4, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16,
         "num_attention_heads": 4, "joint_attention_dim": 30, "pooled_projection_dim": 28,
         "axes_dims_rope": (4, 4, 8)},
        heads,
        {"hidden_states": ramp(2, 9, 4), "encoder_hidden_states": ramp(2, 7, 30), "pooled_projections": ramp(2, 28),
         "timestep": ramp(2), "img_ids": ids(9, 3), "txt_ids": ids(7, 3)},
    )  # fmt: skip
    diffusers(
        "SD3Transformer2DModel",
        {"sample_size": 8, "patch_size": 2, "in_channels": 4, "num_layers": 2, "attention_head_dim": 10,
         "num_attention_heads": 4, "joint_attention_dim": 30, "caption_projection_dim": 40,
         "pooled_projection_dim": 28, "out_channels": 4, "pos_embed_max_size": 8},
        {**heads, "caption_projection_dim": 80},
        {"hidden_states": ramp(2, 4, 8, 8), "encoder_hidden_states": ramp(2, 7, 30),
         "pooled_projections": ramp(2, 28), "timestep": t2},
    )  # fmt: skip
    diffusers(
        "WanTransformer3DModel",
        {"patch_size": (1, 2, 2), "num_attention_heads": 4, "attention_head_dim": 12, "in_channels": 4,
         "out_channels": 4, "text_dim": 30, "freq_dim": 32, "ffn_dim": 56, "num_layers": 2, "rope_max_seq_len": 32},
        {**heads, "ffn_dim": 112},
        {"hidden_states": ramp(2, 4, 2, 8, 8), "timestep": t2, "encoder_hidden_states": ramp(2, 7, 30)},
    )  # fmt: skip
    diffusers(
        "CogVideoXTransformer3DModel",
        {"num_attention_heads": 4, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4,
         "time_embed_dim": 14, "text_embed_dim": 26, "num_layers": 2, "sample_width": 8, "sample_height": 8,
         "sample_frames": 9, "patch_size": 2, "max_text_seq_length": 7},
        {**heads, "time_embed_dim": 28},
        {"hidden_states": ramp(2, 3, 4, 8, 8), "timestep": t2, "encoder_hidden_states": ramp(2, 7, 26)},
    )  # fmt: skip


# neuraloperator -----------------------------------------------------------------------------------------------------


def neuralop(name: str, base: Config, wide: Config, *shape: int, label: str = "") -> None:
    def build(given: Config) -> nn.Module:
        return getattr(import_module("neuralop.models"), name)(**given)

    case("neuraloperator", label or name, build, base, wide, lambda _: {"x": ramp(*shape)})


if find_spec("neuralop"):
    fno: Config = {"in_channels": 3, "out_channels": 2, "hidden_channels": 24, "n_layers": 2}
    wider = {"hidden_channels": 48}
    neuralop("FNO", {**fno, "n_modes": (6,)}, wider, 2, 3, 16, label="FNO-1d")
    neuralop("FNO", {**fno, "n_modes": (6, 6)}, wider, 2, 3, 16, 16, label="FNO-2d")
    neuralop("FNO", {**fno, "n_modes": (4, 4, 4)}, wider, 2, 3, 8, 8, 8, label="FNO-3d")
    for kind, rank in (("tucker", [10, 11, 4, 3]), ("cp", 13), ("tt", [1, 5, 6, 4, 1])):
        neuralop(
            "TFNO",
            {**fno, "n_modes": (6, 6), "factorization": kind, "rank": rank},
            wider,
            2, 3, 16, 16,
            label=f"TFNO-{kind}",
        )  # fmt: skip
    neuralop(
        "UNO",
        {"in_channels": 3, "out_channels": 2, "hidden_channels": 24, "n_layers": 3, "uno_out_channels": [24, 24, 24],
         "uno_n_modes": [[6, 6], [4, 4], [8, 8]], "uno_scalings": [[1, 1], [1, 1], [1, 1]],
         "lifting_channels": 44, "channel_mlp_skip": "linear", "fno_skip": "linear", "projection_channels": 52},
        {"hidden_channels": 48, "uno_out_channels": [48, 48, 48], "lifting_channels": 88, "projection_channels": 104},
        2, 3, 16, 16,
    )  # fmt: skip


# x-transformers -----------------------------------------------------------------------------------------------------


def x_transformers(label: str, layers: str = "Decoder", dim: int = 48, heads: int = 6, **options: Any) -> None:
    def build(given: Config) -> nn.Module:
        library = import_module("x_transformers")
        attention = getattr(library, layers)(depth=2, **given)
        return library.TransformerWrapper(num_tokens=97, max_seq_len=64, attn_layers=attention)

    base = {"dim": dim, "heads": heads, "attn_dim_head": 10, **options}
    wide = {"dim": 2 * dim, "heads": 2 * heads}
    if "attn_kv_heads" in options:
        wide["attn_kv_heads"] = 2 * options["attn_kv_heads"]
    case("x-transformers", f"x-{label}", build, base, wide, lambda _: (ids(2, 12),))


if find_spec("x_transformers"):
    for label, options in {
        "plain": {}, "rotary": {"rotary_pos_emb": True}, "alibi": {"alibi_pos_bias": True}, "glu": {"ff_glu": True},
        "swish-glu": {"ff_glu": True, "ff_swish": True}, "macaron": {"macaron": True},
        "sandwich": {"sandwich_norm": True}, "qk-norm": {"attn_qk_norm": True}, "rmsnorm": {"use_rmsnorm": True},
        "talking-heads": {"attn_pre_talking_heads": True}, "gate-residual": {"gate_residual": True},
        "one-kv-head": {"attn_one_kv_head": True}, "kv-heads": {"attn_kv_heads": 2},
        "value-residual": {"add_value_residual": True}, "t5-bias": {"rel_pos_bias": True},
        "memory-kv": {"attn_num_mem_kv": 5}, "relu-squared": {"ff_relu_squared": True},
        "scale-residual": {"scale_residual": True}, "no-bias": {"ff_no_bias": True},
        "gate-values": {"attn_gate_values": True}, "head-scale": {"attn_head_scale": True},
        "softclamp": {"attn_softclamp_logits": True}, "shift": {"shift_tokens": 1},
    }.items():  # fmt: skip
        x_transformers(label, **options)
    x_transformers("encoder", "Encoder")


# torch.nn's own modules, each between a layer that makes the width and one that reads it ------------------------------


class Framed(nn.Module):
    """features -> width, the module, width -> classes; `channels` says that the module wants them second."""

    def __init__(self, body: nn.Module, width: int, out: int | None = None, spatial: int = 0) -> None:
        super().__init__()
        self.enter, self.body, self.leave = nn.Linear(7, width), body, nn.Linear(out or width, 5)
        self.spatial = spatial

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        if self.spatial:
            x = x.movedim(-1, 1)
        x = self.body(*(x, x, x)[: 3 if isinstance(self.body, nn.MultiheadAttention) else self._inputs()])
        x = x[0] if isinstance(x, tuple) else x
        return self.leave(x.movedim(1, -1) if self.spatial else x)

    def _inputs(self) -> int:
        return 2 if isinstance(self.body, (nn.Bilinear, nn.Transformer, nn.TransformerDecoderLayer)) else 1


def stock(
    name: str,
    make: Callable[..., nn.Module],
    spatial: int = 0,
    out: Callable[[int], int] | None = None,
    base: Config | None = None,
    wide: Config | None = None,
) -> None:
    def build(given: Config) -> nn.Module:
        d = given["d"]
        return Framed(make(**given), d, out(d) if out else None, spatial)

    shape = (2, *(9,) * max(1, spatial), 7)
    case(
        "torch.nn", f"nn.{name}", build, {"d": 24, **(base or {})}, {"d": 48, **(wide or {})}, lambda _: (ramp(*shape),)
    )


heads_of = {"base": {"h": 3}, "wide": {"h": 6}}
stock("MultiheadAttention", lambda d, h: nn.MultiheadAttention(d, h, batch_first=True), **heads_of)
stock(
    "MultiheadAttention-bias_kv",
    lambda d, h: nn.MultiheadAttention(d, h, batch_first=True, add_bias_kv=True),
    **heads_of,
)
feed = {"base": {"h": 3, "f": 40}, "wide": {"h": 6, "f": 80}}
stock("TransformerEncoderLayer", lambda d, h, f: nn.TransformerEncoderLayer(d, h, f, batch_first=True), **feed)
stock("TransformerDecoderLayer", lambda d, h, f: nn.TransformerDecoderLayer(d, h, f, batch_first=True), **feed)
stock("Transformer", lambda d, h, f: nn.Transformer(d, h, 1, 2, f, batch_first=True), **feed)
for recurrent in (nn.LSTM, nn.GRU, nn.RNN):
    two = {"base": {"f": 20}, "wide": {"f": 40}}
    stock(recurrent.__name__, lambda d, kind=recurrent: kind(d, d, batch_first=True))
    stock(
        f"{recurrent.__name__}-2-bidirectional",
        lambda d, kind=recurrent: kind(d, d // 2, 2, batch_first=True, bidirectional=True),
    )
stock("LSTM-proj", lambda d: nn.LSTM(d, 2 * d, proj_size=d, batch_first=True))
stock("Bilinear", lambda d: nn.Bilinear(d, d, d))
for n, (conv, transposed) in enumerate(
    ((nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d), (nn.Conv3d, nn.ConvTranspose3d)), 1
):
    stock(conv.__name__, lambda d, kind=conv: kind(d, d, 3, padding=1), n)
    stock(f"{conv.__name__}-depthwise", lambda d, kind=conv: kind(d, d, 3, padding=1, groups=d), n)
    stock(transposed.__name__, lambda d, kind=transposed: kind(d, d, 2, stride=2), n)
for n, norm in enumerate((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), 1):
    stock(norm.__name__, lambda d, kind=norm: kind(d), n)
for n, norm in enumerate((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), 1):
    stock(norm.__name__, lambda d, kind=norm: kind(d, affine=True), n)
stock("GroupNorm", lambda d: nn.GroupNorm(4, d), 2)
stock("LayerNorm", lambda d: nn.LayerNorm(d))
stock("RMSNorm", lambda d: nn.RMSNorm(d))
stock("LocalResponseNorm", lambda d: nn.LocalResponseNorm(3), 2)
stock("PReLU", lambda d: nn.PReLU(d), 2)
stock("PixelShuffle", lambda d: nn.Sequential(nn.Conv2d(d, 4 * d, 1), nn.PixelShuffle(2)), 2)
stock("Upsample", lambda d: nn.Sequential(nn.Conv2d(d, d, 1), nn.Upsample(scale_factor=2)), 2)


class Bags(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(41, width), nn.Linear(width, 5)

    def forward(self, idx: Tensor) -> Tensor:
        return self.head(self.bag(idx))


case("torch.nn", "nn.EmbeddingBag", lambda given: Bags(**given), {"width": 24}, {"width": 48}, lambda _: (ids(2, 6),))
