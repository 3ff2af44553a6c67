"""Variants of a config, made without knowing the model: shallower, wider, and with one integer changed at a time."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.sweep.subjects import put, walk
from tests.oracle.two_widths import Shapes, shapes

Path = tuple[Any, ...]

# Words of config fields. A width is what the policy of DESIGN.md section 4 lets grow.
DEPTH = re.compile(r"(^|_)(layers?|depths?|blocks?|repeats|stages?)$|^n_layers?$|num_.*layers$")
WIDTH = re.compile(
    r"^(.*_)?(hidden_size|hidden_sizes|hidden_dim|hidden_dims|d_model|n_embd|embed_dim|embed_dims|embedding_dim|dim|dims"
    r"|d_ff|d_inner|n_inner|ffn_dim|ffn_dims|intermediate_size|ffn_hidden_size|inner_dim|mlp_dim|feed_forward_proj_dim"
    r"|num_attention_heads|num_key_value_heads|n_head|n_heads|num_heads|attention_heads|kv_heads|num_kv_heads"
    r"|conv_dim|tdnn_dim|projection_dim|num_channels_latents|base_channels|hidden_channels|channels|stem_chs|width"
    r"|widths|mid_chs|classifier_proj_size|lru_width|mamba_d_ssm|decoder_channels|dec_dim|enc_dim)$"
)
FIXED = re.compile(
    r"(^|_)(head_dim|kv_channels|qk_rope|rank|vocab|num_channels|in_channels|out_channels|in_chans|patch|image|groups?)"
)
SKIP = re.compile(
    r"(_id|_ids|_index|_token|seed|version|_idx|indices|top_k|_stride|_type|dtype|_step|steps|_position|window_layers)$"
)


def integers(config: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    """Every whole number above 1 in a config, with its path."""
    if isinstance(config, int) and not isinstance(config, bool):
        if config > 1:
            yield path, config
        return
    for key, value in walk(config):
        if not (isinstance(key, str) and (key.startswith("_") or SKIP.search(key))):
            yield from integers(value, (*path, key))


def replaced(config: Any, path: Path, value: Any) -> Any:
    """A copy with the number at that path replaced."""
    if not path:
        return value
    inner = dict(walk(config))[path[0]]
    return put(config, path[0], replaced(inner, path[1:], value))


def word(path: Path) -> str:
    """The name of the field that a number stands in."""
    return next((key for key in reversed(path) if isinstance(key, str)), "")


def built(build: Callable[[Any], nn.Module], config: Any) -> Shapes | None:
    """The shapes at that config; None where the library cannot build it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return shapes(build(config))
        except Exception:  # whatever a library raises where its sizes do not fit
            return None


def shallow(build: Callable[[Any], nn.Module], config: Any, deadline: float) -> tuple[Any, Shapes]:
    """Fewer layers where that leaves a model of the same tensors, only fewer: variants are built faster from it."""
    whole = built(build, config)
    assert whole is not None
    kept, found = config, whole
    for path, size in integers(config):
        if not DEPTH.search(word(path)) or size <= 2 or time.monotonic() > deadline:
            continue
        fewer = replaced(kept, path, 2)
        after = built(build, fewer)
        if after and len(after) < len(found) and all(whole.get(name) == shape for name, shape in after.items()):
            kept, found = fewer, after
    return kept, found


@dataclass(frozen=True)
class Variant:
    """`label` says what was changed: `hidden_size 48 -> 96`."""

    label: str
    config: Any
    shapes: Shapes


def variants(build: Callable[[Any], nn.Module], config: Any, base: Shapes, deadline: float) -> Iterator[Variant | None]:
    """Each integer alone, by the first factor with which the model can be built; None where time ran out."""
    for path, size in integers(config):
        if DEPTH.search(word(path)):
            continue
        if time.monotonic() > deadline:
            yield None
            return
        for value in dict.fromkeys((2 * size, 3 * size, size // 2)):
            changed = replaced(config, path, value)
            after = built(build, changed) if value > 0 else None
            if after is None:
                continue
            if after.keys() == base.keys() and after != base:  # other parameters: another structure
                yield Variant(f"{'.'.join(map(str, path))} {size} -> {value}", changed, after)
            break


def wider(build: Callable[[Any], nn.Module], config: Any, base: Shapes, deadline: float) -> Variant | None:
    """Every field doubled that by its name is a width; where that cannot be built, all but the head counts."""
    named = [
        (path, size) for path, size in integers(config) if WIDTH.search(word(path)) and not FIXED.search(word(path))
    ]
    heads = [(path, size) for path, size in named if "head" in word(path)]
    for chosen in (named, [pair for pair in named if pair not in heads]):
        if time.monotonic() > deadline:
            return None
        changed = config
        for path, size in chosen:
            changed = replaced(changed, path, 2 * size)
        after = built(build, changed)
        if after and after.keys() == base.keys() and after != base:
            said = dict.fromkeys(word(path) for path, _ in chosen)
            return Variant(f"twice {', '.join(said)}", changed, after)
    return None
