"""What an argument's name says it is: a vocabulary of names, never of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from mupc.inputs.context import BATCH, Context
from mupc.inputs.guess import Guess, ids, unique

OPTIONAL = ("past_key_values", "cache_params", "labels", "targets", "return_dict", "output_attentions", "use_cache")

_SOME = 4  # of what no config counts


def guesses(name: str, context: Context) -> list[Guess]:
    """Candidates for the argument, likeliest first; empty where nothing says what it is."""
    exact = [guess for names, make in _TABLE if name in names for guess in make(context)]
    endings = [make for suffix, make in _ENDINGS if name.endswith(suffix)]
    if (plain := _plain(name, context)) is not None:
        return [Guess((), plain=plain)]
    return unique([*exact, *context.documented.get(name, []), *(endings[0](context) if endings else [])])


def _plain(name: str, c: Context) -> Any:
    """A value that is no tensor, by its annotation: the config's number of that name, else a small one."""
    kinds = {part.strip() for part in c.parameters.annotations.get(name, "").split("|")} - {"None"}
    if kinds == {"int"}:
        return c.number(name, default=_SOME)
    return {"float": 1.0, "bool": False, "str": ""}.get(next(iter(kinds)) if len(kinds) == 1 else "")


def _text(c: Context) -> list[Guess]:
    below, books = _vocabulary(c, "text"), c.number("num_codebooks")
    return [ids(below, BATCH, c.length), *([ids(below, BATCH, c.length, books + 1)] if books else [])]


def _decoder_text(c: Context) -> list[Guess]:
    below = c.number("decoder_vocab_size", "vocab_size", under="decoder") or c.vocabulary
    codebooks = c.number("num_codebooks", "num_channels", under="decoder")
    return [ids(below, BATCH, c.other_length), *([ids(below, BATCH, codebooks, c.other_length)] if codebooks else [])]


def _vocabulary(c: Context, under: str) -> int:
    return c.number("vocab_size", "n_vocab", "num_embeddings", under=under) or c.vocabulary


def _image(c: Context) -> list[Guess]:
    channels, height, width = c.image
    frames = c.number("num_frames", "frames_per_clip", under="vision")
    still = Guess((BATCH, channels, height, width))
    video = [Guess((BATCH, frames, channels, height, width))] if frames else []
    flat = [Guess((grid_cells(c), patch_features(c)))] if patch_features(c) else []
    patch = c.number("patch_size", under="vision")
    cut = [Guess((grid_cells(c), channels, patch, patch))] if patch else []
    folded = [Guess((BATCH, 16, channels * patch * patch))] if patch else []
    many = c.number("max_num_tiles", "max_image_tiles", under="vision", default=1)
    tiles = [Guess((BATCH, 1, channels, height, width)), Guess((BATCH, 1, many, channels, height, width))]
    if "image_grid_thw" in c.parameters.names or "grid_thw" in c.parameters.names:
        return [*flat, *cut, still, *tiles]
    last = [Guess((BATCH, height, width, channels)), Guess((BATCH, 4, height, width, channels))]
    if patch:
        last.append(Guess((BATCH, c.number("temporal_patch_size", under="vision", default=1), patch, patch, channels)))
    return [*video, still, *tiles, *folded, *flat, *last]


GRID: tuple[int, int, int] = (1, 4, 4)


def grid_cells(c: Context) -> int:
    return GRID[0] * GRID[1] * GRID[2]


def patch_features(c: Context) -> int:
    """Channels x time x height x width of one patch, for models that take images cut up."""
    patch = c.number("patch_size", "spatial_patch_size", under="vision")
    channels = c.number("in_channels", "in_chans", "num_channels", under="vision", default=3)
    return channels * c.number("temporal_patch_size", under="vision", default=1) * patch * patch


def _grid(c: Context) -> list[Guess]:
    return [Guess((1, 3), "int64", content=(GRID,)), Guess((1, 2), "int64", content=(GRID[1:],))]


def _video(c: Context) -> list[Guess]:
    channels, height, width = c.image
    frames = c.number("num_frames", "frames_per_clip", under="vision", default=8)
    return [
        Guess((BATCH, frames, channels, height, width)),
        Guess((BATCH, channels, frames, height, width)),
        *([Guess((grid_cells(c), patch_features(c)))] if patch_features(c) else []),
    ]


def _spectrogram(c: Context) -> list[Guess]:
    bins = c.number(
        "num_mel_bins",
        "feature_size",
        "input_feat_per_channel",
        "n_mels",
        "input_dim",
        "num_mel_channels",
        under="audio",
        default=80,
    )
    positions = c.number("max_source_positions", under="audio")
    length = 2 * positions if 0 < positions <= 4096 else 128
    channels = c.number("input_channels", under="audio", default=1)
    if "feature_lens" in c.parameters.names:
        return [Guess((bins, BATCH * FRAMES)), Guess((BATCH, bins, FRAMES))]
    return [
        Guess((BATCH, bins, length)), Guess((BATCH, length, bins)),
        Guess((BATCH, channels, c.number("spec_size", under="audio", default=length), bins)),
        Guess((BATCH, 160)),
    ]  # fmt: skip


FRAMES = 200


def _frame_counts(c: Context) -> list[Guess]:
    """How many frames each of the sounds laid end to end has."""
    return [Guess((BATCH,), "int64", content=(n,) * BATCH) for n in (FRAMES, FRAMES // 2, FRAMES // 4)]


def _wave(c: Context) -> list[Guess]:
    bins = c.number("num_mel_bins", under="audio")
    length = c.number("max_length", under="audio", default=128)
    channels = c.number("audio_channels", under="audio", default=1)
    spectrum = [Guess((BATCH, length, bins))] if bins and c.number("patch_size") else []
    return [
        *spectrum,
        Guess((BATCH, 4096)),
        Guess((BATCH, channels, 4096)),
        Guess((BATCH, 32000)),
        Guess((BATCH, channels, 160000)),
        Guess((BATCH, c.length, bins or 80)),
    ]


def _box(c: Context) -> list[Guess]:
    """x0 <= x1 and y0 <= y1, as sorted corners."""
    return [
        Guess((BATCH, c.length, 4), "int64", content=[[[1, 2, 3, 4]] * c.length] * BATCH),
        Guess((BATCH, c.length, 4)),
    ]


def _mask(c: Context) -> list[Guess]:
    return [Guess((BATCH, c.length), "int64")]


def _flags(c: Context) -> list[Guess]:
    return [Guess((BATCH, c.length), "bool"), Guess((BATCH, c.length), "int64"), Guess((c.length, c.length), "bool")]


def _pixel_mask(c: Context) -> list[Guess]:
    return [Guess((BATCH, *c.image[1:]), "int64")]


def _segment(c: Context) -> list[Guess]:
    return [ids(1, BATCH, c.length)]


def _series(c: Context) -> list[Guess]:
    length = c.number("context_length", default=c.length)
    lags = c.field("lags_sequence")
    length += max(lags) if isinstance(lags, (list, tuple)) and lags else 0
    channels = c.number("num_input_channels", "input_size", default=1)
    flat, deep = Guess((BATCH, length)), Guess((BATCH, length, channels))
    return [deep, flat] if c.number("num_input_channels") or channels > 1 else [flat, deep]


def _hidden(c: Context) -> list[Guess]:
    width = c.number("hidden_size", "d_model", "embed_dim", "n_embd", default=64)
    cells = [Guess((grid_cells(c), patch_features(c)))] if "grid_thw" in c.parameters.names else []
    return [*cells, Guess((BATCH, c.length, width)), Guess((c.length, width))]


def _cross(c: Context) -> list[Guess]:
    width = c.number(
        "cross_attention_dim",
        "encoder_hidden_size",
        "cross_attention_hidden_size",
        "context_dim",
        "hidden_size",
        default=64,
    )
    return [Guess((BATCH, c.other_length, width))]


def _time(c: Context) -> list[Guess]:
    steps = next((m.num_embeddings for m in c.leaves if isinstance(m, nn.Embedding)), 1000)
    return [ids(min(steps, 1000), BATCH), Guess((BATCH,)), Guess((BATCH, 1)), Guess(())]


def _label(c: Context) -> list[Guess]:
    classes = min((m.num_embeddings for m in c.leaves if isinstance(m, nn.Embedding)), default=2)
    return [ids(classes, BATCH), ids(classes, BATCH, c.length)]


def _sizes(c: Context) -> list[Guess]:
    """Of images, in pixels."""
    return _pairs(c.image[1:], GRID[1:])


def _cells(c: Context) -> list[Guess]:
    """Of images, in patches."""
    height, width = c.image[1:]
    patch = c.number("patch_size", under="vision", default=16)
    return _pairs((max(1, height // patch), max(1, width // patch)), GRID[1:], (height, width))


def _pairs(*sizes: tuple[int, int]) -> list[Guess]:
    return [Guess((BATCH, 2), "int64", content=(size,) * BATCH) for size in sizes]


def _patch_rows(c: Context) -> list[Guess]:
    """Patches as rows, their place in the image first: row and column."""
    patch = c.number("patch_size", under="vision", default=16)
    channels = c.number("num_channels", "in_channels", under="vision", default=3)
    return [Guess((BATCH, grid_cells(c), 2 + channels * patch * patch))]


def _patch_mask(c: Context) -> list[Guess]:
    return [Guess((BATCH, grid_cells(c)), "int64"), *_pixel_mask(c)]


def _positions(c: Context) -> list[Guess]:
    return [Guess((BATCH, c.length), "int64", content=[list(range(c.length))] * BATCH)]


def _edges(c: Context) -> list[Guess]:
    return [ids(c.length, 2, 29)]


def _adjacency(c: Context) -> list[Guess]:
    return [Guess((c.length, c.length)), Guess((BATCH, c.length, c.length))]


_TABLE: tuple[tuple[tuple[str, ...], Callable[[Context], list[Guess]]], ...] = (
    (("input_ids", "idx", "ids", "tokens", "token_ids", "input_tokens", "src_tokens", "token_index"), _text),
    (("decoder_input_ids", "prev_output_tokens", "decoder_ids", "tgt_tokens"), _decoder_text),
    (("pixel_values", "image", "images", "img", "pixels"), _image),
    (("pixel_values_videos", "video", "videos", "pixel_values_local"), _video),
    (("image_grid_thw", "grid_thw", "video_grid_thw", "image_grid_hw"), _grid),
    (("input_features", "mel", "spectrogram", "mel_spec", "audio_mel"), _spectrogram),
    (("input_values", "audio", "waveform", "wav", "audio_values"), _wave),
    (("feature_lens", "audio_feature_lengths", "aftercnn_lens"), _frame_counts),
    (("bbox",), _box),
    (("mask", "padding_mask", "key_padding_mask"), _flags),
    (("pixel_mask",), _pixel_mask),
    (("pixel_attention_mask",), _patch_mask),
    (("flattened_patches",), _patch_rows),
    (("token_type_ids", "segment_ids", "mm_token_type_ids", "langs"), _segment),
    (("position_ids", "positions"), _positions),
    (("past_values", "past_observed_mask", "context_values"), _series),
    (("encoder_hidden_states", "context", "cond", "conditioning"), _cross),
    (("hidden_states", "inputs_embeds", "embeds"), _hidden),
    (("t", "timestep", "timesteps", "time", "sigma", "noise_level", "noise_labels"), _time),
    (("y", "label", "class_labels", "class_label", "classes"), _label),
    (("image_sizes",), _sizes),
    (("target_sizes", "spatial_shapes"), _cells),
    (("edge_index", "edges"), _edges),
    (("adj", "adjacency", "adj_matrix"), _adjacency),
)  # fmt: skip

_ENDINGS: tuple[tuple[str, Callable[[Context], list[Guess]]], ...] = (
    ("decoder_input_ids", _decoder_text),
    ("_embeds", _hidden),
    ("_ids", _text),
    ("_tokens", _text),
    ("attention_mask", _mask),
    ("input_features", _spectrogram),
    ("input_values", _wave),
    ("pixel_values", _image),
    ("_mask", _mask),
)  # fmt: skip


def planted_token(c: Context, *words: str) -> int | None:
    """The id that stands for an image (audio, video) in the text."""
    names = [f"{word}_{end}" for word in words for end in ("token_id", "token_index", "soft_token_id")]
    value: Any = c.field(*names)
    return value if isinstance(value, int) else None
