"""Rarer blocks: biases of attention, shared and mixed values, chosen tokens, modulated weights, library layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random.attention import mix
from tests.random.spec import ACTS, COUNT, PLACES, RANK, SIDE, STATE, UNIT, Act, Block, Parts, Sizes, mapped, matrix

KERNEL = 3


@dataclass(frozen=True)
class Library(Block):
    """torch's own layers."""

    kind: Literal["encoder", "attention", "decoder"]
    first: bool
    reads = True

    def parts(self, s: Sizes) -> Parts:
        heads, inner = s.w // UNIT, 2 * s.w
        if self.kind == "attention":
            return {"layer": nn.MultiheadAttention(s.w, heads, batch_first=True)}
        kind = nn.TransformerEncoderLayer if self.kind == "encoder" else nn.TransformerDecoderLayer
        layer = kind(s.w, heads, inner, batch_first=True, norm_first=self.first)
        return {"layer": layer} | ({"widen": nn.Linear(s.memory, s.w)} if self.kind == "decoder" else {})

    def needs_memory(self) -> bool:
        return self.kind == "decoder"

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.kind == "attention":
            return m.layer(x, x, x, need_weights=self.first)[0]
        return m.layer(x) if self.kind == "encoder" else m.layer(x, F.relu(m.widen(memory)))


@dataclass(frozen=True)
class Biased(Block):
    """Something per head, or per head_dim, goes into the scores."""

    bias: Literal["buckets", "shaw", "alibi", "sink", "temperature", "network", "talking", "gate", "scale", "two"]

    def parts(self, s: Sizes) -> Parts:
        h = s.w // UNIT
        out: Parts = {"qkv": nn.Linear(s.w, 3 * s.w), "o": nn.Linear(s.w, s.w)}
        extra: dict[str, Parts] = {
            "buckets": {"table": nn.Embedding(COUNT, h)},
            "shaw": {"table": matrix(2 * PLACES, UNIT)},
            "sink": {"sink": matrix(h)},
            "temperature": {"heat": matrix(h, 1, 1)},
            "network": {"one": nn.Linear(1, s.w), "two": nn.Linear(s.w, h, bias=False)},
            "talking": {"before": nn.Linear(h, h, bias=False), "after": matrix(h, h)},
            "gate": {"gate": nn.Linear(s.w, h)},
            "scale": {"scale": matrix(h)},
            "two": {"other": nn.Linear(s.w, 2 * s.w), "left": matrix(UNIT), "right": matrix(UNIT)},
        }
        return out | extra.get(self.bias, {})

    def scores(self, m: Any, x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.mT
        at = torch.arange(x.shape[1], device=x.device)
        lag = (at[:, None] - at[None]).abs()
        if self.bias == "buckets":
            return scores + m.table(lag.clamp(max=COUNT - 1)).permute(2, 0, 1)
        if self.bias == "shaw":
            return scores + torch.einsum("bhsd,std->bhst", q, m.table[lag])
        if self.bias == "alibi":
            slopes = 2.0 ** -torch.arange(1, q.shape[1] + 1, device=x.device)
            return scores - slopes[:, None, None] * lag
        if self.bias == "network":
            return scores + m.two(F.relu(m.one(lag.unsqueeze(-1).to(x.dtype)))).permute(2, 0, 1)
        if self.bias == "temperature":
            return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * m.heat.exp()
        return scores

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = m.qkv(x).unflatten(-1, (3, -1, UNIT)).permute(2, 0, 3, 1, 4)
        scores = self.scores(m, x, q, k)
        if self.bias == "sink":
            sinks = m.sink[None, :, None, None].expand(x.shape[0], -1, x.shape[1], 1)
            weights = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
        elif self.bias == "talking":
            scores = m.before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
            weights = torch.einsum("bhst,hg->bgst", scores, m.after)
        elif self.bias == "two":
            q2, k2 = m.other(x).unflatten(-1, (2, -1, UNIT)).permute(2, 0, 3, 1, 4)
            share = torch.exp((m.left * m.right).sum())
            weights = scores.softmax(-1) - share * (q2 @ k2.mT).softmax(-1)
        else:
            weights = scores.softmax(-1)
        y = (weights @ v).transpose(1, 2)
        if self.bias == "gate":
            y = y * torch.sigmoid(m.gate(x)).unsqueeze(-1)
        return m.o((y * m.scale.view(-1, 1) if self.bias == "scale" else y).flatten(2))


@dataclass(frozen=True)
class Twice(Block):
    """Two layers of attention of which the second has something of the first: its values, or keys and values."""

    shares: Literal["scalars", "one", "lerp", "keys", "scores"]

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {n: nn.Linear(s.w, s.w) for n in ("q1", "k1", "v1", "o1", "q2", "o2")}
        out |= {} if self.shares == "keys" else {"k2": nn.Linear(s.w, s.w), "v2": nn.Linear(s.w, s.w)}
        alone = {"scalars": {"mix": matrix(2)}, "one": {"mix": matrix()}, "lerp": {"mix": matrix(1)}}
        return out | alone.get(self.shares, {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        def cut(z: Tensor) -> Tensor:
            return z.unflatten(-1, (-1, UNIT))

        q, k, v = cut(m.q1(x)), cut(m.k1(x)), cut(m.v1(x))
        x = x + m.o1(mix(q, k, v, "sdpa", True).flatten(2))
        if self.shares == "keys":
            return m.o2(mix(cut(m.q2(x)), k, v, "sdpa", True).flatten(2))
        v2 = cut(m.v2(x))
        if self.shares == "scores":
            scores = torch.einsum("bshd,bthd->bhst", q, k) + torch.einsum("bshd,bthd->bhst", cut(m.q2(x)), cut(m.k2(x)))
            return m.o2(torch.einsum("bhst,bthd->bshd", scores.softmax(-1), v2).flatten(2))
        v2 = {
            "scalars": lambda: m.mix[0] * v2 + m.mix[1] * v.view_as(v2),
            "one": lambda: (1 - m.mix) * v2 + m.mix * v,
            "lerp": lambda: torch.lerp(v2, v, torch.sigmoid(m.mix)),
        }[self.shares]()
        return m.o2(mix(cut(m.q2(x)), cut(m.k2(x)), v2, "sdpa", True).flatten(2))


@dataclass(frozen=True)
class Chosen(Block):
    """A few places are chosen by a score, go through a layer, and are put back; or each place reads its neighbours."""

    how: Literal["top", "neighbours", "slots", "sorted"]

    def parts(self, s: Sizes) -> Parts:
        if self.how == "slots":
            made = {n: nn.Linear(s.w, s.w) for n in ("k", "v", "q", "out")}
            return made | {"cell": nn.GRUCell(s.w, s.w), "start": matrix(1, COUNT, s.w)}
        out: Parts = {"fc": nn.Linear(2 * s.w if self.how == "neighbours" else s.w, s.w), "out": nn.Linear(s.w, s.w)}
        return out | ({} if self.how == "neighbours" else {"score": nn.Linear(s.w, 1)})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "slots":
            return self.slots(m, x)
        if self.how == "neighbours":
            at = torch.cdist(x, x).topk(KERNEL, largest=False)[1]
            near = x.unsqueeze(1).expand(-1, PLACES, -1, -1).gather(2, at.unsqueeze(-1).expand(-1, -1, -1, m.w))
            own = x.unsqueeze(2).expand_as(near)
            return m.out(F.relu(m.fc(torch.cat([own, near - own], -1))).amax(2))
        score = m.score(x).squeeze(-1)
        if self.how == "sorted":
            at = score.argsort(-1).unsqueeze(-1).expand(-1, -1, m.w)
            return m.out(F.gelu(m.fc(x.gather(1, at)))) * torch.sigmoid(score).unsqueeze(-1)
        top, at = score.topk(COUNT, -1)
        at = at.unsqueeze(-1).expand(-1, -1, m.w)
        y = m.out(F.gelu(m.fc(x.gather(1, at)))) * torch.sigmoid(top).unsqueeze(-1)
        return torch.zeros_like(x).scatter_add(1, at, y)

    def slots(self, m: Any, x: Tensor) -> Tensor:
        """Slots compete for places; what they read is laid back where it came from."""
        k, v = m.k(x), m.v(x)
        slots = m.start.expand(x.shape[0], -1, -1)
        for _ in range(2):
            weights = (m.q(slots) @ k.mT).softmax(1)
            update = (weights / weights.sum(-1, keepdim=True)) @ v
            slots = m.cell(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        return m.out(weights.mT @ slots)


@dataclass(frozen=True)
class Channelwise(Block):
    """Learned activations and the like: one number, or a few, per channel."""

    how: Literal["prelu", "snake", "maxout", "poly", "spline", "dyt", "shift", "norms"]

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"up": nn.Linear(s.w, s.w * (3 if self.how == "maxout" else 1)), "down": nn.Linear(s.w, s.w)}
        extra: dict[str, Parts] = {
            "prelu": {"act": nn.PReLU(s.w)},
            "snake": {"alpha": matrix(1, 1, s.w)},
            "poly": {"powers": matrix(s.w, 3)},
            "spline": {"knots": torch.empty(STATE), "coefficients": matrix(s.w, s.w, STATE)},
            "dyt": {"alpha": matrix(1), "gain": matrix(s.w), "shift": matrix(s.w)},
            "shift": {"past": matrix(s.w)},
            "norms": {"norms": nn.ModuleList(nn.LayerNorm(s.w) for _ in range(2)), "pick": matrix(2)},
        }
        return out | extra.get(self.how, {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        h = m.up(x)
        if self.how == "spline":
            near = torch.exp(-((x.unsqueeze(-1) - m.knots) ** 2))
            return m.down(F.relu(h + torch.einsum("btig,oig->bto", near, m.coefficients)))
        if self.how == "shift":
            before = F.pad(x, (0, 0, 1, 0))[:, :-1]
            return m.down(F.relu(m.up(x * m.past + before * (1 - m.past))))
        h = {
            "prelu": lambda: m.act(h.mT).mT,
            "snake": lambda: h + (m.alpha * h).sin().square() / (m.alpha + 1e-6),
            "maxout": lambda: h.unflatten(-1, (-1, 3)).amax(-1),
            "poly": lambda: (torch.stack([h, h**2, h**3], -1) * m.powers).sum(-1),
            "dyt": lambda: torch.tanh(m.alpha * h) * m.gain + m.shift,
            "norms": lambda: sum(p * norm(h) for p, norm in zip(m.pick.softmax(0), m.norms, strict=True)),
        }[self.how]()
        return m.down(F.gelu(h))


@dataclass(frozen=True)
class Generated(Block):
    """Kernels, or factors of a weight, that the data makes."""

    how: Literal["light", "style", "demod", "scores", "cross"]
    act: Act

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"out": nn.Linear(s.w, s.w)}
        if self.how == "light":
            return out | {"kernel": nn.Linear(s.w, s.w // UNIT * KERNEL), "value": nn.Linear(s.w, s.w)}
        if self.how in ("style", "demod"):
            return out | {
                "style": nn.Linear(s.w, s.w),
                "weight": matrix(2 * s.w, s.w, 3),
                "back": nn.Linear(2 * s.w, s.w),
            }
        return out | {n: nn.Linear(s.w, s.w) for n in ("one", "two")}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        act, b = ACTS[self.act], x.shape[0]
        if self.how == "light":
            kernel = m.kernel(x).unflatten(-1, (-1, KERNEL)).softmax(-1)
            value = F.pad(m.value(x).mT, (1, 1)).unfold(-1, KERNEL, 1)
            value = value.unflatten(1, (-1, UNIT))
            return m.out(torch.einsum("bhdtk,bthk->bthd", value, kernel).flatten(2))
        if self.how == "scores":
            return m.out(act(m.one(x) * m.two(x).mean(1, keepdim=True)))
        if self.how == "cross":
            return x * m.out(act(m.one(x))) + m.two(x)
        weight = m.weight * (1 + m.style(x.mean(1)))[:, None, :, None]
        if self.how == "demod":
            weight = weight * torch.rsqrt(weight.square().sum((2, 3), keepdim=True) + 1e-6)
        y = F.conv1d(x.mT.reshape(1, -1, PLACES), weight.flatten(0, 1), padding=1, groups=b)
        return m.out(F.relu(m.back(act(y.view(b, -1, PLACES).mT))))


@dataclass(frozen=True)
class Reduced(Block):
    """Attention over fewer keys, or along rows and then columns of the map."""

    how: Literal["conv", "pool", "axial", "linformer"]

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {n: nn.Linear(s.w, s.w) for n in ("q", "k", "v", "o")}
        out |= {"less": nn.Conv2d(s.w, s.w, 2, stride=2), "norm": nn.LayerNorm(s.w)} if self.how == "conv" else {}
        return out | ({"fewer": matrix(PLACES, COUNT)} if self.how == "linformer" else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "axial":
            for turn in (False, True):
                z = x.unflatten(1, (SIDE, SIDE))
                z = (z.transpose(1, 2) if turn else z).flatten(0, 1)
                q, k, v = (f(z).unflatten(-1, (-1, UNIT)) for f in (m.q, m.k, m.v))
                z = m.o(mix(q, k, v, "matmul", False).flatten(2)).unflatten(0, (-1, SIDE))
                x = x + (z.transpose(1, 2) if turn else z).flatten(1, 2)
            return x
        keys = x
        if self.how == "conv":
            keys = m.norm(m.less(mapped(x)).flatten(2).mT)
        elif self.how == "pool":
            keys = F.avg_pool2d(mapped(x), 2).flatten(2).mT
        k, v = m.k(keys), m.v(keys)
        if self.how == "linformer":
            k, v = (torch.einsum("btd,tn->bnd", z, m.fewer) for z in (k, v))
        q, k, v = (z.unflatten(-1, (-1, UNIT)) for z in (m.q(x), k, v))
        return m.o(mix(q, k, v, "sdpa", False).flatten(2))


@dataclass(frozen=True)
class Structured(Block):
    """Matrices with a structure: a core between two ranks, two block-diagonal factors, complex numbers, circulants."""

    how: Literal["tucker", "monarch", "complex", "circulant", "bilinear"]

    def parts(self, s: Sizes) -> Parts:
        d = s.w // 2
        kinds: dict[str, Parts] = {
            "tucker": {"a": matrix(s.w, RANK), "core": matrix(RANK, RANK), "b": matrix(RANK, s.w)},
            "monarch": {"a": matrix(2, d, d), "b": matrix(2, d, d)},
            "complex": {"a": nn.Parameter(torch.empty(s.w, s.w, dtype=torch.cfloat))},
            "circulant": {"a": matrix(s.w)},
            "bilinear": {"a": nn.Bilinear(s.w, s.w, s.w)},
        }
        return kinds[self.how] | {"out": nn.Linear(s.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "tucker":
            y = x @ m.a @ m.core @ m.b
        elif self.how == "monarch":
            y = torch.einsum("btgi,gio->btgo", x.unflatten(-1, (2, -1)), m.a)
            y = torch.einsum("btgi,gio->btgo", y.transpose(-1, -2).reshape(*x.shape[:2], 2, -1), m.b).flatten(2)
        elif self.how == "complex":
            y = (x.to(torch.cfloat) @ m.a).abs()
        elif self.how == "circulant":
            y = torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(m.a), n=m.w)
        else:
            y = m.a(x, x)
        return m.out(F.relu(y))
