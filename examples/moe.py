"""A decoder whose feed-forward layers are mixtures of experts: 3-D expert tensors and a top-k router."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class MoEConfig:
    vocab_size: int = 32000
    block_size: int = 256
    n_layer: int = 4
    n_head: int = 8
    d_model: int = 256
    d_expert: int = 512
    n_experts: int = 16
    top_k: int = 2


class Attention(nn.Module):
    def __init__(self, config: MoEConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class MoE(nn.Module):
    """Every expert sees every token; the gates of experts that were not chosen are zero."""

    def __init__(self, config: MoEConfig):
        super().__init__()
        self.top_k = config.top_k
        self.router = nn.Linear(config.d_model, config.n_experts, bias=False)
        self.w_in = nn.Parameter(torch.empty(config.n_experts, config.d_model, config.d_expert))
        self.w_out = nn.Parameter(torch.empty(config.n_experts, config.d_expert, config.d_model))
        nn.init.normal_(self.w_in, std=config.d_model**-0.5)
        nn.init.normal_(self.w_out, std=config.d_expert**-0.5)

    def forward(self, x):
        probs = F.softmax(self.router(x), dim=-1)
        top, chosen = probs.topk(self.top_k, dim=-1)
        gates = torch.zeros_like(probs).scatter(-1, chosen, top / top.sum(-1, keepdim=True))
        h = F.gelu(torch.einsum("btd,edf->btef", x, self.w_in))
        y = torch.einsum("btef,efd->bted", h, self.w_out)
        return torch.einsum("bted,bte->btd", y, gates)


class Block(nn.Module):
    def __init__(self, config: MoEConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.moe = MoE(config)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.moe(self.norm2(x))


class MoETransformer(nn.Module):
    def __init__(self, config: MoEConfig = MoEConfig()):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Parameter(0.02 * torch.randn(config.block_size, config.d_model))
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, idx):
        x = self.tokens(idx) + self.positions[: idx.size(1)]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
