"""Control flow on values: exact where inputs decide it, guessed and recorded where parameters do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mupc.errors import TraceError
from mupc.trace import Trace, trace
from tests.trace.graphs import calls, count, faithful, reads

EXACT: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {}


def exact(function: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """A forward whose control flow its whole-number input decides."""
    EXACT[function.__name__] = function
    return function


class Reads(nn.Module):
    """An embedding, two layers and a function that decides by ids."""

    def __init__(self, function: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.embed, self.a, self.b = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.register_buffer("limit", torch.tensor(3))
        self.register_buffer("eye", torch.eye(6).bool())

    def forward(self, ids: Tensor) -> Tensor:
        return self.function(self, ids, self.embed(ids))


@exact
def item(m, ids, x):
    return m.a(x[:, : int(ids.max().item())])


@exact
def integer(m, ids, x):
    return x[:, int(ids[0, 0]) :] + float(ids.sum())


@exact
def as_list(m, ids, x):
    return torch.cat([x[:, n] for n in ids.clamp(max=3)[0].tolist()], -1)


@exact
def nonzero(m, ids, x):
    rows, columns = (ids > 1).nonzero(as_tuple=True)
    return m.a(x[rows, columns])


@exact
def boolean_index(m, ids, x):
    return m.a(x[ids != 1])


@exact
def boolean_write(m, ids, x):
    y = torch.zeros_like(x)
    y[ids == 1] = m.a(x)[ids == 1]
    return y


@exact
def masked_select(m, ids, x):
    return x.masked_select((ids > 1)[..., None])


@exact
def branch(m, ids, x):
    return m.a(x) if (ids > 1).any() else m.b(x)


@exact
def branch_on_a_buffer(m, ids, x):
    return m.a(x) if m.limit > 2 else m.b(x)


@exact
def loop(m, ids, x):
    n = 0
    while n < ids.max():
        x = m.a(x)
        n += 1
    return x


@exact
def lengths(m, ids, x):
    return torch.repeat_interleave(x.mean(1), ids.sum(-1), dim=0)


@exact
def split_by_lengths(m, ids, x):
    return torch.stack([part.sum(0) for part in x.flatten(0, 1).split((ids[0] > 0).sum().repeat(2).tolist())])


@exact
def cumulative(m, ids, x):
    positions = (ids.ne(1).cumsum(-1) * ids.ne(1)).long()
    return m.a(x[:, : positions[0].max()])


@exact
def mask_of_features(m, ids, x):
    mask = (ids == 1).unsqueeze(-1).expand_as(x)
    assert x[mask].numel() == 3 * 6
    return x.masked_scatter(mask, m.a(x[ids == 1]))


@exact
def unique(m, ids, x):
    return m.a(m.embed(torch.unique(ids)))


@exact
def formatted(m, ids, x):
    return getattr(m, "ab"[int(ids[0, 0])])(x) if f"{ids[0, 0]}" == "1" else m.a(x)


@exact
def where_of_a_mask(m, ids, x):
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    return m.a(x) * torch.where(causal, 0.0, -1.0)[None, :, :1] + torch.arange(4)[None, :, None]


@exact
def mask_of_a_buffer(m, ids, x):
    return m.a(x)[..., m.eye[0]]


@pytest.mark.parametrize("case", EXACT)
def test_what_inputs_decide_is_exact(case: str) -> None:
    found = faithful(Reads(EXACT[case]), torch.tensor([[1, 2, 3, 2], [2, 1, 1, 3]]))
    assert not found.guesses


class Experts(nn.Module):
    """A mixture of experts in a loop that skips those that no token chose."""

    def __init__(self, choose: Callable[[Tensor, int], Tensor], skip: bool) -> None:
        super().__init__()
        self.router = nn.Linear(6, 5)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)) for _ in range(5))
        self.choose, self.skip = choose, skip

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x).topk(2, -1).indices
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mask = (chosen == i).any(-1)
            if self.skip and not mask.any():
                continue
            rows = self.choose(mask, i)
            out[rows] += expert(x[rows])
        return out


CHOOSE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mask": lambda mask, _: mask,
    "where": lambda mask, _: torch.where(mask)[0],
    "nonzero": lambda mask, _: mask.nonzero().squeeze(-1),
    "flat": lambda mask, _: mask.flatten().nonzero()[:, 0],
}


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("choose", CHOOSE)
def test_every_expert_is_used(choose: str, skip: bool) -> None:
    found = trace(Experts(CHOOSE[choose], skip), (torch.randn(7, 6),))
    assert {f"experts.{i}.{j}.weight" for i in range(5) for j in (0, 2)} <= reads(found)
    assert found.guesses and all("test_values.py" in str(g.source) for g in found.guesses)


class Hits(nn.Module):
    """The loop of transformers' mixtures: over the rows of `nonzero`, each the number of an expert."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 5)
        self.experts = nn.ModuleDict({f"expert_{i}": nn.Linear(6, 6) for i in range(5)})

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        mask = nn.functional.one_hot(self.router(x).topk(2, -1).indices, 5).permute(2, 1, 0)
        for hit in mask.sum((-1, -2)).nonzero():
            _, row = torch.where(mask[hit].squeeze(0))
            out.index_add_(0, row, self.experts[f"expert_{hit[0]}"](x[row]))
        return out


class Sorted(nn.Module):
    """Tokens sorted by their expert and split by how many each expert got."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 5)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x).argmax(-1)
        order = chosen.argsort()
        parts = x[order].split(chosen.bincount(minlength=5).tolist())
        out = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        return torch.zeros_like(x).index_copy(0, order, out)


def test_parts_of_guessed_sizes_add_up() -> None:
    found = trace(Sorted(), (torch.randn(13, 6),))
    assert not found.unused
    assert [node.meta["val"].shape[0] for node in calls(found, "linear")] == [13, 5, 2, 2, 2, 2]


def test_experts_by_name() -> None:
    assert not trace(Hits(), (torch.randn(7, 6),)).unused


class Sides(nn.Module):
    """A branch on a parameter's value."""

    def __init__(self, function: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.a, self.b = nn.Linear(6, 1), nn.Linear(6, 6), nn.Linear(6, 6)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x, self.gate(x))


def _sides(function: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Trace:
    return trace(Sides(function), (torch.randn(2, 6),))


def test_both_sides_of_a_branch_are_joined() -> None:
    found = _sides(lambda m, x, g: m.a(x) if g.sum() > 0 else m.b(x))
    assert {"a.weight", "b.weight"} <= reads(found)
    assert {guess.took for guess in found.guesses} == {True, False}
    assert len(found.outputs) == 2


def test_a_side_that_changes_nothing_is_not_kept() -> None:
    found = _sides(lambda m, x, g: m.a(m.b(x)) * (2 if g.sum() > 0 else 3) + g)
    assert len(found.outputs) == 1 and count(found)["linear"] == 3


@pytest.mark.parametrize("raising", [True, False])
def test_a_side_that_raises_is_not_taken(raising: bool) -> None:
    def function(m: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        if bool(g.isnan().any()) is raising:
            raise ValueError("not finite")
        return m.a(x) + m.b(x) * g

    found = _sides(function)
    assert not found.unused
    assert [guess.took for guess in found.guesses] == [not raising]


def test_two_checks_of_opposite_sense() -> None:
    def function(m: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        if not torch.isfinite(g).all():
            raise ValueError("not finite")
        if (g > 100).any():
            raise ValueError("too large")
        return m.a(x) + m.b(x) * g

    assert not _sides(function).unused


def test_where_every_side_raises_the_users_line_is_named() -> None:
    def function(m: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        raise ValueError(f"no way, {bool(g.sum() > 0)}")

    with pytest.raises(TraceError, match=r"test_values.py:\d+: ValueError: no way") as caught:
        _sides(function)
    assert "values" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_number_read_from_parameters_is_a_guess() -> None:
    found = _sides(lambda m, x, g: m.a(x) * g.mean().item() + m.b(x))
    assert [g.what for g in found.guesses] == ["a number read from values"]


def test_parameters_read_in_training_mode_only() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.body(x)
            return (y, self.head(y)) if self.training else (y,)

    model = Auxiliary().eval()
    found = trace(model, (torch.randn(2, 6),))
    assert not found.unused and "head.weight" in reads(found)
    assert not model.training


def test_numbers_are_guessed_only_where_parameters_decide() -> None:
    """A mask that is given real is exact, in the very forward whose router is guessed."""

    def function(m: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        kept = torch.tensor([True, False])
        return m.a(x[kept]) if g.sum() > 0 else m.b(x[kept])

    found = _sides(function)
    assert {guess.what for guess in found.guesses} == {"a branch on values"}
    sides = [node for node in calls(found, "linear") if node.meta["module"] in ("a", "b")]
    assert [tuple(node.meta["val"].shape) for node in sides] == [(1, 6), (1, 6)]


def test_written_with_guessed_values_a_real_tensor_is_real_no_more() -> None:
    def function(m: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        flags = torch.zeros(2, dtype=torch.long)
        flags[:] = (g[:, 0] > 0).long()
        return m.a(x) if flags.any() else m.b(x)

    assert not _sides(function).unused
