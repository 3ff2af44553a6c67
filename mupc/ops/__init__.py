"""One row per op: its signature. Rows that are a plain string live in `rules/ops.toml`; the rest are functions here."""

from mupc.ops import elementwise, index, layout, products, windows
from mupc.ops.table import signature_of, tensor_nodes

__all__ = ["elementwise", "index", "layout", "products", "signature_of", "tensor_nodes", "windows"]
