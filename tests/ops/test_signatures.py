"""Rows against the ops they describe: run on meta, every pattern must have the sizes of the real result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from mupc.ops import signature_of
from mupc.ops.table import ROWS, strings
from mupc.signature import Signature, written

aten = torch.ops.aten


def t(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype)


def ids(*shape: int) -> torch.Tensor:
    return t(*shape, dtype=torch.long)


def call(op: Any, *args: Any, **kwargs: Any) -> Signature:
    """The signature of a real call, by way of a one-op graph."""
    graph = fx.Graph()

    def node(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            made = graph.placeholder("x")
            made.meta["val"] = value
            return made
        return [node(v) for v in value] if isinstance(value, list) else value

    made = graph.call_function(op, tuple(node(a) for a in args), {k: node(v) for k, v in kwargs.items()})
    made.meta["val"] = op(*args, **kwargs)
    return signature_of(made)


GOLDEN = [
    (call, aten.linear.default, (t(2, 3, 8), t(5, 8), t(5)), "_2 _1 i, o i, o -> _2 _1 o"),
    (call, aten.linear.default, (t(2, 1, 8), t(5, 8)), "_2 1 i, o i -> _2 1 o"),
    (call, aten.matmul.default, (t(2, 1, 4, 8), t(3, 8, 5)), "_2 1 i k, _1 k j -> _2 _1 i j"),
    (call, aten.matmul.default, (t(8), t(8, 5)), "k, k j -> j"),
    (call, aten.einsum.default, ("...ij,jk", [t(2, 4, 8), t(8, 5)]), "_1 i j, j k -> _1 i k"),
    (call, aten.addmm.default, (t(5), t(4, 8), t(8, 5)), "j, i k, k j -> i j"),
    (call, aten.view.default, (t(2, 6, 12), [2, 6, 3, 4]), "m0 m1 (m2 m3) -> m0 m1 m2 m3"),
    (call, aten.view.default, (t(4, 6, 8), [8, 24]), "m0 (m1 m2) m3 -> (m0 m1) (m2 m3)"),
    (call, aten.permute.default, (t(2, 3, 4), [2, 0, 1]), "r0 r1 r2 -> r2 r0 r1"),
    (call, aten.cat.default, ([t(2, 3), t(2, 4)], 1), "r0 p0, r0 p1 -> r0 (p0 + p1)"),
    (call, aten.split.Tensor, (t(2, 7), 3, 1), "r0 (p0 + p1 + 1) -> r0 p0, r0 p1, r0 1"),
    (call, aten.slice.Tensor, (t(2, 9), 1, 2, 6), "r0 (before + part + after) -> r0 part"),
    (call, aten.slice.Tensor, (t(2, 8), 1, 1, 8, 2), "r0 (major minor) -> r0 major"),
    (call, aten.expand.default, (t(2, 1, 3), [2, 5, 3]), "r0 1 r2 -> r0 r1 r2"),
    (call, aten.repeat_interleave.self_int, (t(2, 3), 4, 1), "x0 x1 -> x0 (x1 n1)"),
    (call, aten.repeat.default, (t(2, 3), [1, 4]), "x0 x1 -> x0 (n1 x1)"),
    (call, aten.stack.default, ([t(2, 3), t(2, 3)], 1), "r0 r2, r0 r2 -> r0 r1 r2"),
    (call, aten.select.int, (t(2, 3, 4), 1, 0), "r0 r1 r2 -> r0 r2"),
    (call, aten.conv2d.default, (t(2, 6, 9, 9), t(8, 3, 3, 3), t(8), [1, 1], [1, 1], [1, 1], 2),
     "b0 (g i) s0 s1, (g o) i k0 k1, (g o) -> b0 (g o) s0 s1"),
    (call, aten.conv2d.default, (t(2, 6, 9, 9), t(6, 1, 3, 3), None, [2, 2], [1, 1], [1, 1], 6),
     "b0 g s0 s1, g 1 k0 k1 -> b0 g t0 t1"),
    (call, aten.conv_transpose2d.input, (t(2, 6, 4, 4), t(6, 5, 2, 2), t(5), [2, 2]),
     "b0 i s0 s1, i o k0 k1, o -> b0 o t0 t1"),
    (call, aten.embedding.default, (t(50, 8), ids(2, 3)), "v d, i0 i1 -> i0 i1 d"),
    (call, aten.scaled_dot_product_attention.default, (t(2, 6, 5, 4), t(2, 6, 7, 4), t(2, 6, 7, 3)),
     "b0 b1 s d, b0 b1 t d, b0 b1 t e -> b0 b1 s e"),
    (call, aten.pixel_shuffle.default, (t(2, 12, 5, 7), 2), "b0 (c ra rb) h w -> b0 c (h ra) (w rb)"),
    (call, aten.channel_shuffle.default, (t(2, 6, 5, 5), 2), "r0 (g c) r2 r3 -> r0 (c g) r2 r3"),
    (call, aten.glu.default, (t(2, 8), -1), "r0 (r1 + r1) -> r0 r1"),
    (call, aten.sum.dim_IntList, (t(2, 3, 4), [1], True), "r0 r1 r2 -> r0 1 r2"),
    (call, aten.index.Tensor, (t(9, 4), [ids(5, 5)]), "x0 x1, i0 i1 -> i0 i1 x1"),
    (call, aten.index.Tensor, (t(2, 9, 4), [None, ids(5)]), "x0 x1 x2, i0 -> x0 i0 x2"),
    (call, aten.gather.default, (t(2, 9, 4), 1, ids(2, 3, 4)), "x0 x1 x2, x0 w1 x2 -> x0 w1 x2"),
    (call, aten.unfold.default, (t(2, 8), 1, 4, 4), "r0 (grid window) -> r0 grid window"),
    (call, aten.constant_pad_nd.default, (t(2, 8), [1, 2]), "r0 r1 -> r0 (1 + r1 + a1)"),
    (call, aten.add.Tensor, (t(2, 3, 4), t(4)), "r0 r1 r2, r2 -> r0 r1 r2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "op", "args", "expected"), GOLDEN, ids=[f"{case[1]}-{i}" for i, case in enumerate(GOLDEN)]
)
def test_written_form(run: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    signature = run(op, *args)
    assert not signature.assumed
    assert written(signature) == expected


def test_lstm_gates_are_four_parts_of_one_hidden_dim() -> None:
    x, h = t(2, 5, 6), t(2, 2, 7)
    weights = [t(28, 6), t(28, 7), t(28), t(28), t(28, 7), t(28, 7), t(28), t(28)]
    signature = call(aten.lstm.input, x, [h, h], weights, True, 2, 0.0, False, False, True)
    assert written(signature).split(", ")[3:5] == ["(gate h) i", "(gate h) h"]
    assert signature.words[3] == ("out", "in")


def test_an_op_without_a_row_is_assumed_pointwise_only_where_shapes_allow_it() -> None:
    assert call(aten.special_bessel_j0.default, t(2, 3)).assumed
    assert call(aten.trapezoid.dx, t(2, 3)).kind == "opaque"


def test_a_reshape_that_does_not_line_up_relates_products_only() -> None:
    signature = call(aten.view.default, t(6, 4), [8, 3])
    assert signature.regroups == ((("u0", "u1"), ("v0", "v1")),)


def test_every_row_is_an_op_of_torch_or_of_a_named_library() -> None:
    known = {
        name.split("::")[-1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::")
    }
    strange = sorted(
        name for name in {*ROWS, *strings()} if name.startswith("aten::") and name.removeprefix("aten::") not in known
    )
    assert strange == []
