"""What mixes places: squeeze and excitation, generated filters, messages over a graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from tests.counterexamples.holds import holds, parts
from tests.traps.convs import FC, STEM, Images, SqueezeExcite
from tests.traps.trap import FRAME, C, D, F, LanguageModel, T, ids, image

SMALL = 6  # narrower than its neighbours on both sides


class Excite(nn.Module):
    """The channels' means through a small MLP, back onto the channels; `means` and `onto` say how."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(D, SMALL), nn.Linear(SMALL, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.onto(x, self.fc2(nnf.relu(self.fc1(self.means(x)))).sigmoid())

    def means(self, x: Tensor) -> Tensor:
        return nnf.adaptive_avg_pool2d(x, 1).flatten(1)

    def onto(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate[:, :, None, None]


class ExciteEinsum(Excite):
    def means(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(-1)

    def onto(self, x: Tensor, gate: Tensor) -> Tensor:
        return torch.einsum("bchw,bc->bchw", x, gate)


class ExciteFlat(Excite):
    """Places as one axis, channels last."""

    def means(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(x.size(0), -1, D).sum(1) / x[0, 0].numel()

    def onto(self, x: Tensor, gate: Tensor) -> Tensor:
        return (x.flatten(2).mT * gate.unsqueeze(1)).mT.view_as(x)


class ExciteExpanded(Excite):
    def onto(self, x: Tensor, gate: Tensor) -> Tensor:
        return x + x * (gate.view(*gate.shape, 1, 1).expand_as(x) - 1)


@pytest.mark.parametrize("spelling", [Excite, ExciteEinsum, ExciteFlat, ExciteExpanded])
def test_squeeze_and_excite(spelling: type[nn.Module]) -> None:
    """ "A dim narrower than both its neighbours is a rank" fails: a nonlinearity stands between, so it is a small
    hidden layer that grows with the rest, and both matrices are hidden."""
    holds(Images(spelling()), image(), STEM + FC + "body.fc?.weight  hidden  nn\nbody.fc?.bias  vector  n")


def test_squeeze_and_excite_by_convolutions() -> None:
    """The same as 1x1 convolutions over a map of one place."""
    table = "body.fc?.weight  hidden  nn..\nbody.fc?.bias  vector  n"
    holds(Images(SqueezeExcite(D, SMALL)), image(), STEM + FC + table)


POSITIONS, ORDER = 5, 20


class Hyena(nn.Module):
    """A long convolution whose filter a small network of the position makes; `positions` and `convolve` say how."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.first, self.second = nn.Linear(POSITIONS, ORDER), nn.Linear(ORDER, ORDER)
        self.freq, self.last = nn.Parameter(torch.ones(1, ORDER)), nn.Linear(ORDER, D, bias=False)
        self.skip = nn.Parameter(torch.zeros(D))

    def positions(self, x: Tensor) -> Tensor:
        t = torch.linspace(0, 1, T, device=x.device)[:, None]
        bands = torch.arange(1, 3, device=x.device)
        return torch.cat([t, (t * bands).cos(), (t * bands).sin()], -1)

    def filters(self, x: Tensor) -> Tensor:
        h = torch.sin(self.freq * self.first(self.positions(x)))
        h = self.last(torch.sin(self.freq * self.second(h)))
        decay = torch.linspace(1, 4, D, device=x.device) * torch.linspace(0, 1, T, device=x.device)[:, None]
        return h * torch.exp(-decay)

    def convolve(self, u: Tensor, k: Tensor) -> Tensor:
        """u: batch, length, width; k: length, width."""
        both = torch.fft.rfft(u.mT, n=2 * T) * torch.fft.rfft(k.t(), n=2 * T)
        return torch.fft.irfft(both, n=2 * T)[..., :T].mT

    def forward(self, x: Tensor) -> Tensor:
        a, b, v = self.into(x).chunk(3, -1)
        v = v * b
        return self.out((self.convolve(v, self.filters(x)) + v * self.skip) * a)


class HyenaStored(Hyena):
    """Positional features from a buffer, transforms along the length itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("z", torch.zeros(1, 2 * T, POSITIONS))

    def positions(self, x: Tensor) -> Tensor:
        return self.z[0, : x.size(1)]

    def convolve(self, u: Tensor, k: Tensor) -> Tensor:
        both = torch.fft.rfft(u, n=2 * T, dim=1) * torch.fft.rfft(k, n=2 * T, dim=0)
        return torch.fft.irfft(both, n=2 * T, dim=1)[:, :T]


class HyenaDirect(Hyena):
    """As a depthwise convolution with the generated kernel."""

    def convolve(self, u: Tensor, k: Tensor) -> Tensor:
        padded = nnf.pad(u.mT, (T - 1, 0))
        return nnf.conv1d(padded, k.t().flip(-1).unsqueeze(1), groups=D).mT


class HyenaToeplitz(Hyena):
    """As a matrix of lags."""

    def convolve(self, u: Tensor, k: Tensor) -> Tensor:
        at = torch.arange(T, device=u.device)
        lag = at[:, None] - at[None]
        mask = (lag >= 0).unsqueeze(-1)
        return torch.einsum("tsd,bsd->btd", k[lag.clamp(min=0)] * mask, u)


@pytest.mark.parametrize("spelling", [Hyena, HyenaStored, HyenaDirect, HyenaToeplitz])
def test_filters_made_by_a_network(spelling: type[nn.Module]) -> None:
    """Hyena. "No input reaches these weights, so they are constants, or one weight's factors" fails: positions are
    data. "A filter is a depthwise kernel, vector-like" fails: the last layer reads a width and makes a width."""
    table = """
        block.into.weight    hidden  nn
        block.out.weight     hidden  nn
        block.first.weight   input   n.   # positional features -> the filter network's own width
        block.second.weight  hidden  nn
        block.last.weight    hidden  nn   # ... -> channels
        block.freq           vector  .n
        block.skip           vector  n
        block.*.bias         vector  n
    """
    found = holds(LanguageModel(spelling()), ids(), FRAME + table).parameters
    assert found["block.last.weight"].axes[1] == found["block.second.weight"].axes[0]


NODES, EDGES = 9, 14


class Messages(nn.Module):
    """Two rounds of messages along edges, a sum per node, an update; `collect` says how they are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.edge = nn.Linear(16, D), nn.Linear(4, F)
        self.message = nn.Sequential(nn.Linear(2 * D + F, F), nn.ReLU(), nn.Linear(F, F))
        self.update, self.head = nn.Linear(D + F, D), nn.Linear(D, C)

    def collect(self, messages: Tensor, target: Tensor) -> Tensor:
        return messages.new_zeros(NODES, messages.size(-1)).index_add_(0, target, messages)

    def forward(self, x: Tensor, features: Tensor, edges: Tensor) -> Tensor:
        x, e = self.node(x), self.edge(features)
        source, target = edges
        for _ in range(2):
            m = self.message(torch.cat([x[source], x[target], e], -1))
            x = x + nnf.relu(self.update(torch.cat([x, self.collect(m, target)], -1)))
        return self.head(x)


class MessagesScattered(Messages):
    def collect(self, messages: Tensor, target: Tensor) -> Tensor:
        index = target.unsqueeze(-1).expand_as(messages)
        return torch.zeros(NODES, messages.size(-1), device=messages.device).scatter_add(0, index, messages)


class MessagesReduced(Messages):
    def collect(self, messages: Tensor, target: Tensor) -> Tensor:
        index = target[:, None].expand(-1, messages.size(-1))
        return messages.new_zeros(NODES, messages.size(-1)).scatter_reduce(0, index, messages, "mean")


class MessagesByMatrix(Messages):
    """The incidence matrix as one-hot rows."""

    def collect(self, messages: Tensor, target: Tensor) -> Tensor:
        return nnf.one_hot(target, NODES).to(messages.dtype).t() @ messages


class MessagesPut(Messages):
    def collect(self, messages: Tensor, target: Tensor) -> Tensor:
        return messages.new_zeros(NODES, messages.size(-1)).index_put((target,), messages, accumulate=True)


class MessagesSelected(Messages):
    """Endpoints by index_select and gather."""

    def forward(self, x: Tensor, features: Tensor, edges: Tensor) -> Tensor:
        x, e = self.node(x), self.edge(features)
        source, target = edges.unbind(0)
        for _ in range(2):
            ends = x.index_select(0, source), x.gather(0, target.unsqueeze(-1).expand(-1, D))
            m = self.message(torch.cat([*ends, e], -1))
            x = x + nnf.relu(self.update(torch.cat([x, self.collect(m, target)], -1)))
        return self.head(x)


@pytest.mark.parametrize(
    "spelling",
    [Messages, MessagesScattered, MessagesReduced, MessagesByMatrix, MessagesPut, MessagesSelected],
)
def test_messages_over_a_graph(spelling: type[nn.Module]) -> None:
    """ "A gathered axis is a look-up, so what follows it is an input layer" fails: nodes are gathered, not weights, and
    the features beside them stay a width. "Scatter forgets its dims" fails too."""
    inputs = torch.zeros(NODES, 16), torch.zeros(EDGES, 4), torch.zeros(2, EDGES, dtype=torch.long)
    table = """
        node.weight       input   n.
        edge.weight       input   n.
        message.?.weight  hidden  nn
        update.weight     hidden  nn
        head.weight       output  .n
        head.bias         scalar  .
        *.bias            vector  n
    """
    found = holds(spelling(), inputs, table)
    thirds = [(0, D, "hidden"), (D, 2 * D, "hidden"), (2 * D, 2 * D + F, "hidden")]
    assert parts(found, "message.0.weight", 1) == thirds
