"""Small models of many families, each as a function of one width, for the coordinate check."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples import llama, lstm, moe, resnet, unet, vit
from examples.zoo import mamba, mt_deeponet, pdeinvbench_fno, s4d, widenet
from mupc.target.torchvision_ops import import_transformers


@dataclass(frozen=True)
class Family:
    """`make(width)` builds the model; `inputs()` draws a batch, the same at every width."""

    make: Callable[[int], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)


class MLP(nn.Module):
    def __init__(self, width: int, act: Callable[[Tensor], Tensor], depth: int = 3) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(20, width), nn.Linear(width, 10), act
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        for layer in self.hidden:
            x = self.act(layer(x))
        return self.last(x)


class CNN(nn.Module):
    def __init__(self, width: int, normed: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(c, width, 3, padding=1) for c in (3, width, width)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) if normed else nn.Identity() for _ in range(3)])
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return self.last(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width: int, normed: bool) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.q_norm = nn.RMSNorm(16) if normed else nn.Identity()
        self.k_norm = nn.RMSNorm(16) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (-1, 16)).transpose(1, 2) for t in self.qkv(self.ln1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    """Heads of 16; `normed` puts norms on queries and keys."""

    def __init__(self, width: int, normed: bool = False, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(64, width), nn.Embedding(16, width)
        self.blocks = nn.ModuleList(Block(width, normed) for _ in range(depth))
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, 64, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


class LoRALinear(nn.Module):
    def __init__(self, width: int, out: int, rank: int = 16) -> None:
        super().__init__()
        self.base = nn.Linear(width, out, bias=False).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(rank, width) / math.sqrt(width)), nn.Parameter(torch.zeros(out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


class LoRA(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, width), nn.Linear(width, 10)
        self.one, self.two = LoRALinear(width, width), LoRALinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.two(torch.relu(self.one(torch.relu(self.first(x)))))))


def t5(width: int) -> nn.Module:
    """transformers' T5, encoder and decoder, relative positions."""
    transformers = import_transformers()
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=101, d_model=width, d_kv=16, d_ff=2 * width, num_layers=2, num_heads=width // 16,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def ids(vocab: int, length: int = 8) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randint(vocab, (4, length)),)


def image(size: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(4, 3, size, size),)


def vector() -> tuple[Tensor]:
    return (torch.randn(8, 20),)


FAMILIES = {
    "mlp_relu": Family(lambda w: MLP(w, torch.relu), vector, (128, 256, 512, 1024, 2048)),
    "mlp_gelu": Family(lambda w: MLP(w, F.gelu), vector, (128, 256, 512, 1024, 2048)),
    "mlp_tanh": Family(lambda w: MLP(w, torch.tanh), vector, (128, 256, 512, 1024, 2048)),
    "cnn": Family(lambda w: CNN(w, False), image(8), (64, 128, 256, 512)),
    "cnn_bn": Family(lambda w: CNN(w, True), image(8), (64, 128, 256, 512)),
    "gpt": Family(GPT, ids(64)),
    "gpt_qk_norm": Family(lambda w: GPT(w, True), ids(64)),
    "llama": Family(lambda w: llama.Llama(llama.LlamaConfig(101, w, 2, w // 16, w // 32, 2 * w, 32)), ids(101)),
    "vit": Family(
        lambda w: vit.ViT(image_size=16, patch_size=4, dim=w, depth=2, num_heads=w // 16, num_classes=10), image(16)
    ),
    "t5": Family(t5, lambda: (*ids(101)(), None, *ids(101)())),
    "moe": Family(
        lambda w: moe.MoETransformer(moe.MoEConfig(101, 32, 2, w // 16, w, 2 * w, 8, 2)),
        ids(101),
    ),
    "mamba": Family(lambda w: mamba.MambaLM(101, w, 2 * w, 2, 5, 4, 3), ids(101)),
    "s4d": Family(lambda w: s4d.build(w, 8), lambda: (torch.randn(4, 12, 5),)),
    "lstm": Family(
        lambda w: lstm.LSTMLanguageModel(vocab_size=101, embedding_dim=w, hidden_size=w, num_layers=2), ids(101, 5)
    ),
    "resnet": Family(
        lambda w: resnet.ResNet(block="basic", layers=(1, 1), base_width=w, num_classes=10),
        image(16),
        (16, 32, 64, 128),
    ),
    "unet": Family(
        lambda w: unet.UNet(channels=w, multipliers=(1, 2), num_heads=w // 8, groups=4), image(8), (16, 32, 64, 128)
    ),
    "fno": Family(
        lambda w: pdeinvbench_fno.build(width=w, lifting=w, layers=2, hidden=w),
        lambda: (pdeinvbench_fno.example_inputs(),),
        (32, 64, 128, 256),
    ),
    "deeponet": Family(
        lambda w: mt_deeponet.build(32, (w // 4, w // 4, w // 4, w // 4), (w, w), (w, w), w),
        mt_deeponet.example_inputs,
        (64, 128, 256, 512),
    ),
    "widenet": Family(lambda w: widenet.WideNet(w, w // 16, 2 * w, 2), image(16)),
    "lora": Family(LoRA, vector, (128, 256, 512, 1024, 2048)),
}
