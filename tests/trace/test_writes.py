"""In-place ops become values: the graph, in which nothing aliases, computes what the model computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mupc.trace import trace
from tests.trace.graphs import calls, count, faithful, reads


class Body(nn.Module):
    """Two weights and a function of them."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.w, self.v = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6))
        self.register_buffer("state", torch.zeros(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x @ self.w, self.v, self.state)


WRITES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {}


def writes(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`function(y, v, state)` for y of shape (4, 6), reached by both weights."""
    WRITES[function.__name__] = function
    return function


@writes
def add(y, v, state):
    y.add_(v)
    return y


@writes
def augmented(y, v, state):
    y *= 2
    y += v
    y -= 1
    y /= 3
    return y


@writes
def through_a_slice(y, v, state):
    y[:, :3] += v[:3]
    return y


@writes
def through_a_strided_slice(y, v, state):
    y[::2, 1::2] *= v[1::2]
    return y


@writes
def through_a_select(y, v, state):
    y[1] = v
    return y


@writes
def through_a_negative_select(y, v, state):
    y[:, -1].mul_(v[0])
    return y


@writes
def through_a_transpose(y, v, state):
    y.t().add_(v[:, None])
    return y


@writes
def through_a_permutation(y, v, state):
    y.view(2, 2, 6).permute(2, 0, 1)[1:3].add_(v[0])
    return y


@writes
def through_a_view(y, v, state):
    y.view(-1)[3:9].copy_(v)
    return y


@writes
def through_nested_views(y, v, state):
    y[1:][:, 2:4].t()[1].add_(v[:3])
    return y


@writes
def through_a_chunk(y, v, state):
    a, b = y.chunk(2, -1)
    a.add_(b * v[:3])
    return y


@writes
def through_split_sizes(y, v, state):
    _, b, _ = y.split([1, 2, 3], -1)
    b.zero_().add_(v[:2])
    return y


@writes
def through_unbind(y, v, state):
    for row in y.unbind(0)[1:]:
        row.mul_(v)
    return y


@writes
def through_a_diagonal(y, v, state):
    y[:, :4].diagonal().add_(v[:4])
    return y


@writes
def through_an_expansion_of_one(y, v, state):
    y.unsqueeze(0).squeeze(0).unsqueeze(-1)[..., 0].add_(v)
    return y


@writes
def through_as_strided(y, v, state):
    y.as_strided((2, 3), (6, 2)).add_(v[:3])
    return y


@writes
def through_real_of_complex(y, v, state):
    z = torch.complex(y, y + 1)
    torch.view_as_real(z)[..., 0].add_(v)
    return torch.view_as_real(z * z)


@writes
def through_detach(y, v, state):
    y.detach().add_(v)
    return y


@writes
def through_data(y, v, state):
    y.data[:, :2] += v[:2]
    return y


@writes
def view_is_stale(y, v, state):
    head = y[:, :3]
    y.add_(v)
    return head * 2


@writes
def nested_view_is_stale(y, v, state):
    part = y[1:].t()[2:4]
    y[2].mul_(v)
    return part


@writes
def sibling_view_is_stale(y, v, state):
    left, right, whole = y[:, :4], y[:, 2:], y.view(2, 12)
    left += v[:4]
    return torch.cat([right.reshape(-1), whole.reshape(-1)])


@writes
def chunk_is_stale(y, v, state):
    a, b = y.chunk(2, -1)
    y.mul_(v)
    return a - b


@writes
def copy(y, v, state):
    out = torch.empty_like(y)
    out.copy_(y * v)
    return out


@writes
def copy_broadcasts(y, v, state):
    out = torch.zeros_like(y)
    out.copy_(v)
    return out + y


@writes
def out_argument(y, v, state):
    out = torch.empty_like(y)
    torch.mul(y, v, out=out)
    return out


@writes
def out_argument_is_a_view(y, v, state):
    out = torch.zeros(4, 12)
    torch.add(y, v, out=out[:, 6:])
    return out


@writes
def two_out_arguments(y, v, state):
    top, at = torch.empty(4), torch.empty(4, dtype=torch.long)
    torch.max(y * v, -1, out=(top, at))
    return top


@writes
def index_put(y, v, state):
    y[torch.tensor([0, 2])] = v
    return y


@writes
def index_put_of_two(y, v, state):
    y[torch.tensor([0, 2]), torch.tensor([1, 1])] += v[:2]
    return y


@writes
def mask_put(y, v, state):
    y[torch.tensor([True, False, True, False])] = v
    return y


@writes
def masked_fill(y, v, state):
    y.masked_fill_(torch.eye(6, dtype=torch.bool)[:4], 0.0)
    return y * v


@writes
def scatter(y, v, state):
    y.scatter_(1, torch.zeros(4, 1, dtype=torch.long), v[:4, None])
    return y


@writes
def scatter_add(y, v, state):
    return torch.zeros(6).scatter_add_(0, torch.tensor([0, 0, 1, 5]), y[:, 0]) + v


@writes
def index_add(y, v, state):
    return y.index_add_(0, torch.tensor([1, 3]), torch.stack([v, v]))


@writes
def setitem_ellipsis(y, v, state):
    z = y.view(2, 2, 6)
    z[..., 0] = v[:2]
    return y


@writes
def setitem_of_number(y, v, state):
    y[:, 0] = 1.0
    return y * v


@writes
def a_buffer(y, v, state):
    state.copy_(y)
    state[0] += v
    return state * 2


@writes
def a_running_mean(y, v, state):
    state.mul_(0.9).add_(y, alpha=0.1)
    return y + state * v


@writes
def relu_in_place(y, v, state):
    return nn.functional.relu(y, inplace=True) + y * v


@writes
def transposed_in_place(y, v, state):
    z = y.clone()
    z.t_()
    z.unsqueeze_(0)
    return z[0].t() * v + y


@writes
def swapped_halves(y, v, state):
    left, right = y[:, :3].clone(), y[:, 3:].clone()
    y[:, :3], y[:, 3:] = right, left
    return y * v


@writes
def grown_in_a_loop(y, v, state):
    out = y.new_zeros(4, 6)
    for i in range(4):
        out[i] = y[i] * v + (out[i - 1] if i else 0)
    return out


@writes
def addcmul(y, v, state):
    y.addcmul_(v, v, value=0.5)
    return y.clamp_(min=0)


@writes
def foreach(y, v, state):
    parts = [y[0].clone(), y[1].clone()]
    torch._foreach_add_(parts, [v, v])
    return torch.stack(parts)


@pytest.mark.parametrize("case", WRITES)
@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
def test_the_graph_computes_what_the_model_computes(case: str) -> None:
    torch.manual_seed(0)
    model = Body(WRITES[case])
    found = faithful(model, torch.randn(4, 6))
    in_place = [n for n in calls(found) if getattr(getattr(n.target, "_schema", None), "is_mutable", False)]
    assert not in_place
    assert {"w", "v"} <= reads(found)


def test_a_value_that_was_overwritten_is_no_longer_read() -> None:
    def function(y: Tensor, v: Tensor, state: Tensor) -> Tensor:
        y.copy_(v)
        return y

    assert reads(faithful(Body(function), torch.randn(4, 6))) == {"v"}


def test_an_input_written_by_the_model_is_left_as_it_was() -> None:
    x = torch.zeros(2, 6)

    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    assert count(trace(Writes(), (x,))) == {"add": 1}
    assert not x.any()
