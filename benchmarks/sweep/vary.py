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

# Words of config fields, as regular expressions. Depth is no width; what counts or measures something of the data or a
# kernel, and what the policy of DESIGN.md section 4 holds fixed (head_dim, ranks, experts, states, counts), stays.
DEPTH = re.compile(r"(^|_)(layers?|depths?|blocks?|repeats|stages?|cycles|loops)$|^n_layers?$|num_.*layers$")
_DATA = r"""
    vocab label classes bins buckets num_channels$ ^in_chan input_channels out_channels$ _channels_out num_res_types
    image img spec_size resolution patch(es)?(_size)?s?$ pixel frame mel_dim crop roi grid types$ mem_len position
    _pos_ pos_emb_ tubelet max_ _len$ length seq time period interval second chunk context ctx cache speaker num_spk
    num_lang hash ngram lags num_samples samples_per sampling_(rate|factor) feature_sizes feat_(dim|size)
    input_(size|dim|feat) visual_ bbox target_ output_(dim|size)s?$ anchor proposals detr$ columns rows ^[BIES]-
    MODEL\. state_dim act_dim coords atom theta temper cost coefficient
"""
_KERNEL = r"""
    kernel strides?$ dilation padding conv_l_cache d_conv window halo block_size ^[skdg]s?$ down_ops merge
    conv1d_width compress$ per_(tok|token|image|ngram|codebook|group|second|uid|axis) memory_?fuser_padding
    (drop|sampl|dilation|frame|up|down|path|token)[a-z_]*rates?$ n_groups?$ num_groups groups$ _groups group_size
"""
_POLICY = r"""
    head_dim dim_head d_head d_kv kv_channels key_dim head_size$ rank$ lora lowrank d_state state_size ssm_state
    rope rotary scalar expand ratio factor mult$ multiplier reduction n_div bn_size ch_div divi scale
    expert(s|_capacity) topk top_ _k$ quer(y|ies)$ num_query tokens? latents?$ num_latent codebook_size codebooks?$
    num_embeddings$ num_buckets num_point num_group_token freq_size verbalizers ^score$ ^choice$ codevectors quantiz
    codes points levels num_[a-z]*stack hc_ altup attractors num_(neg|pos|mask|denois)
    ^group$ mask_unit num_(embeds|prototypes|clusters|chroma|beams|targets|windows|landmarks|prompts|blocks)
"""
STAYS = re.compile("|".join((_DATA + _KERNEL + _POLICY).split()))
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
    """Every field doubled that may be a width; if that cannot be built, all but one, or but the head counts."""
    paths: dict[str, list[Path]] = {}
    for path, _ in integers(config):
        if not (DEPTH.search(word(path)) or STAYS.search(word(path).lower()) or STAYS.search(word(path))):
            paths.setdefault(word(path), []).append(path)
    heads = {name for name in paths if "head" in name}
    every = set(paths)
    choices = [every, *(every - {name} for name in paths), every - heads]
    for chosen in dict.fromkeys(map(frozenset, choices)):
        if time.monotonic() > deadline:
            return None
        changed = config
        for name in chosen:
            for path in paths[name]:
                changed = replaced(changed, path, 2 * at(config, path))
        after = built(build, changed)
        if after and after.keys() == base.keys() and after != base:
            return Variant(f"twice {', '.join(name for name in paths if name in chosen)}", changed, after)
    return None


def at(config: Any, path: Path) -> Any:
    """What stands at a path."""
    for key in path:
        config = dict(walk(config))[key]
    return config
