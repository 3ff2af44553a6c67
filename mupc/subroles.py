"""Finer names within a role, for people and rules: from the op, the axes' kinds and what reads the result."""

from __future__ import annotations

from mupc.dims.fold import RawUse


def sub_role(use: RawUse, role: str, shape: tuple[int, ...], kinds: tuple[str, ...], uses: list[RawUse]) -> str | None:
    """One of DESIGN.md section 5's sub-roles, or None where nothing says so."""
    words = [next((w for w, _ in entries), "") for entries in use.axes]
    if "lookup" in words and role == "input":
        return "embedding" if use.op.startswith("embedding") else "positional"
    if "experts" in kinds and "in" in words and "out" in words:
        return "expert_in" if kinds[words.index("out")] == "width" and kinds[words.index("in")] == "width" else None
    if use.op.startswith("conv") and len(shape) > 2:
        return "conv"
    if role == "input" and not use.contracts:
        return "positional"
    if role in ("vector", "scalar"):
        return vector_role(use, kinds)
    if role == "output" and kinds and "rank" in kinds:
        return "lora_a"
    if role == "input" and "rank" in kinds:
        return "lora_b"
    return None


def vector_role(use: RawUse, kinds: tuple[str, ...]) -> str | None:
    """Gain or bias."""
    if use.op.endswith("_norm"):
        return "gain" if use.node.args and len(use.node.args) > 2 and _is(use, "weight") else "bias"
    if use.op in ("mul", "div"):
        return "gain"
    if (
        use.op in ("add", "sub", "linear")
        or use.op.startswith("conv")
        or use.op in ("lstm", "gru", "rnn_tanh", "rnn_relu", "addmm")
    ):
        return "bias" if not use.contracts else None
    if "inner" in kinds:
        return "ssm_state"
    return None


def _is(use: RawUse, argument: str) -> bool:
    """Does the parameter enter the op under that argument name?"""
    names = [a.name for a in use.node.target._schema.arguments]  # type: ignore[union-attr]
    at = names.index(argument) if argument in names else -1
    given = use.node.args[at] if 0 <= at < len(use.node.args) else use.node.kwargs.get(argument)
    return bool(getattr(given, "meta", {}).get("name") == use.parameter)
