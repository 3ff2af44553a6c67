"""What mixes places without attention: recurrences, scans, Fourier transforms, matrices over places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.random.spec import ACTS, PLACES, RANK, STATE, UNIT, Act, Block, Parts, Sizes, matrix

MODES, STEPS = 3, 4  # of a Fourier filter; of a loop over places, whose result is laid out again


def again(steps: list[Tensor]) -> Tensor:
    """What a loop made of its first places, as often as there are places."""
    out = torch.stack(steps, 1)
    return out.repeat(1, PLACES // STEPS, *(1 for _ in out.shape[2:]))


@dataclass(frozen=True)
class Recurrent(Block):
    """torch's recurrent layers, their cells in a loop, or gates by hand."""

    kind: Literal["gru", "lstm", "rnn"]
    how: Literal["layer", "cell", "hand", "view"]
    both: bool
    layers: Literal[1, 2]

    def parts(self, s: Sizes) -> Parts:
        h = 2 * s.w
        if self.how in ("hand", "view"):
            return {"ih": nn.Linear(s.w, 4 * h), "hh": nn.Linear(h, 4 * h, bias=False), "out": nn.Linear(h, s.w)}
        if self.how == "cell":
            cell = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "rnn": nn.RNNCell}[self.kind]
            return {"cell": cell(s.w, h), "out": nn.Linear(h, s.w)}
        layer = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[self.kind]
        made = layer(s.w, h, self.layers, batch_first=True, bidirectional=self.both)
        return {"layer": made, "out": nn.Linear(2 * h if self.both else h, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "layer":
            return m.out(m.layer(x)[0])
        h = c = x.new_zeros(x.shape[0], 2 * m.w)
        out = []
        for t in range(STEPS):
            if self.how == "cell":
                h, c = m.cell(x[:, t], (h, c)) if self.kind == "lstm" else (m.cell(x[:, t], h), c)
            else:
                rows = m.ih(x[:, t]) + m.hh(h)
                i, f, g, o = rows.chunk(4, -1) if self.how == "hand" else rows.view(-1, 4, 2 * m.w).unbind(1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            out.append(h)
        return m.out(again(out))


@dataclass(frozen=True)
class Scan(Block):
    """A selective diagonal state space: a state per channel, B and C from the stream, steps through a rank."""

    how: Literal["cumsum", "loop", "einsum"]
    rank: bool
    conv: bool
    gated: bool

    def parts(self, s: Sizes) -> Parts:
        rank = RANK if self.rank else 0
        out: Parts = {"into": nn.Linear(s.w, 2 * s.w if self.gated else s.w)}
        out |= {"conv": nn.Conv1d(s.w, s.w, 3, groups=s.w, padding=2)} if self.conv else {}
        out |= {"dt": nn.Linear(RANK, s.w)} if self.rank else {}
        out |= {"bc": nn.Linear(s.w, rank + 2 * STATE, bias=False)}
        return out | {"log_a": matrix(s.w, STATE), "skip": matrix(s.w), "out": nn.Linear(s.w, s.w)}

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        x, z = m.into(x).chunk(2, -1) if self.gated else (m.into(x), None)
        x = F.silu(m.conv(x.mT)[..., :PLACES].mT) if self.conv else x
        *low, b, c = m.bc(x).split([*([RANK] if self.rank else []), STATE, STATE], -1)
        dt = F.softplus(m.dt(low[0])) if self.rank else torch.ones_like(x)
        decay = torch.exp(-dt.unsqueeze(-1) * m.log_a.exp())
        drive = (dt * x).unsqueeze(-1) * b.unsqueeze(-2)
        y = self.states(decay, drive, c) + x * m.skip
        return m.out(F.gelu(y) if z is None else y * F.silu(z))

    def states(self, decay: Tensor, drive: Tensor, c: Tensor) -> Tensor:
        if self.how == "cumsum":
            return ((drive * decay).cumsum(1) * c.unsqueeze(-2)).sum(-1)
        h, out = torch.zeros_like(drive[:, 0]), []
        for t in range(STEPS):
            h = decay[:, t] * h + drive[:, t]
            if self.how == "einsum":
                out.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
            else:
                out.append((h @ c[:, t].unsqueeze(-1)).squeeze(-1))
        return again(out)


@dataclass(frozen=True)
class Gates(Block):
    """A linear recurrence per channel (minGRU, RG-LRU): everything beside the matrices is vector-like."""

    how: Literal["loop", "cumsum"]
    learned: bool

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {n: nn.Linear(s.w, s.w) for n in ("gate", "value", "out")}
        return out | ({"rate": matrix(s.w)} if self.learned else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        f, v = torch.sigmoid(m.gate(x)), m.value(x)
        f = torch.exp(-F.softplus(m.rate) * f) if self.learned else f
        if self.how == "cumsum":
            logs = f.log().cumsum(1)
            return m.out(torch.tanh((v * (-logs).exp()).cumsum(1) * logs.exp()))
        h, out = torch.zeros_like(v[:, 0]), []
        for t in range(STEPS):
            h = torch.lerp(v[:, t], h, f[:, t])
            out.append(h)
        return m.out(F.relu(again(out)))


@dataclass(frozen=True)
class Memory(Block):
    """A matrix per head as the state (linear attention, retention): keys times values, added up over places."""

    how: Literal["loop", "cumsum", "masked"]
    decayed: bool

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {n: nn.Linear(s.w, s.w, bias=False) for n in ("q", "k", "v", "o")}
        return out | ({"decay": matrix(s.w // UNIT)} if self.decayed else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, UNIT)) for f in (m.q, m.k, m.v))
        k = k * torch.sigmoid(m.decay).unsqueeze(-1) if self.decayed else k
        if self.how == "masked":
            scores = torch.einsum("bshd,bthd->bhst", q, k).tril()
            return m.o(F.normalize(torch.einsum("bhst,bthd->bshd", scores, v), dim=-1).flatten(2))
        pairs = k.unsqueeze(-1) * v.unsqueeze(-2)
        if self.how == "cumsum":
            y = torch.einsum("bthd,bthde->bthe", q, pairs.cumsum(1))
        else:
            state, out = torch.zeros_like(pairs[:, 0]), []
            for t in range(STEPS):
                state = state + pairs[:, t]
                out.append((q[:, t].unsqueeze(-2) @ state).squeeze(-2))
            y = again(out)
        return m.o(F.normalize(y, dim=-1).flatten(2))


@dataclass(frozen=True)
class Fourier(Block):
    """Mixing in the frequency domain: no weight, a filter per channel, a matrix per frequency (FNO)."""

    how: Literal["plain", "filter", "matrices", "pairs"]
    act: Act

    def parts(self, s: Sizes) -> Parts:
        out: Parts = {"mix": nn.Linear(s.w, s.w)}
        if self.how == "filter":
            return out | {"filter": matrix(PLACES // 2 + 1, s.w, 2)}
        if self.how == "matrices":
            return out | {"modes": nn.Parameter(torch.empty(s.w, s.w, MODES, dtype=torch.cfloat))}
        return out | ({"modes": matrix(MODES, s.w, s.w, 2)} if self.how == "pairs" else {})

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        if self.how == "plain":
            return m.mix(ACTS[self.act](torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real))
        z = torch.fft.rfft(x, dim=1)
        if self.how == "filter":
            z = z * torch.view_as_complex(m.filter)
        else:
            low, out = z[:, :MODES], torch.zeros_like(z)
            if self.how == "pairs":
                out[:, :MODES] = torch.einsum("bki,kio->bko", low, torch.view_as_complex(m.modes))
            else:
                out[:, :MODES] = torch.einsum("bki,iok->bko", low, m.modes)
            z = out
        return ACTS[self.act](torch.fft.irfft(z, n=PLACES, dim=1) + m.mix(x))


@dataclass(frozen=True)
class Tokens(Block):
    """Matrices over places, whose number is data: an MLP whose hidden layer grows, or one matrix.

    What they make is joined to places of the input: else it would be a hidden layer's axis, which grows, as any is.
    """

    how: Literal["mlp", "plain", "gating"]
    act: Act

    def parts(self, s: Sizes) -> Parts:
        if self.how == "mlp":
            return {"up": nn.Linear(PLACES, 2 * s.w), "down": nn.Linear(2 * s.w, PLACES)}
        if self.how == "plain":
            return {"mix": nn.Linear(PLACES, PLACES), "out": nn.Linear(s.w, s.w)}
        return {
            "into": nn.Linear(s.w, 4 * s.w),
            "norm": nn.LayerNorm(2 * s.w),
            "mix": nn.Conv1d(PLACES, PLACES, 1),
            "out": nn.Linear(2 * s.w, s.w),
        }

    def run(self, m: Any, x: Tensor, memory: Tensor) -> Tensor:
        act = ACTS[self.act]
        if self.how == "mlp":
            return x + m.down(act(m.up(x.mT))).mT  # the places stay the input's
        if self.how == "plain":
            return m.out(x + act(m.mix(x.mT)).mT)
        u, v = act(m.into(x)).chunk(2, -1)
        return m.out(u * m.mix(m.norm(v)))
