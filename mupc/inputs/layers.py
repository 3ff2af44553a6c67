"""What a layer wants to be fed: the first layers of a model suggest its inputs, a failing one corrects them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from mupc.inputs.context import BATCH, Context
from mupc.inputs.guess import Guess, ids


def wanted(layer: nn.Module, context: Context) -> list[Guess]:
    """Inputs that this layer could take directly."""
    length = context.length
    match layer:
        case nn.Embedding() | nn.EmbeddingBag():
            return [ids(layer.num_embeddings, BATCH, length), ids(layer.num_embeddings, BATCH)]
        case nn.Conv1d() | nn.ConvTranspose1d():
            return [Guess((BATCH, layer.in_channels, 128)), Guess((BATCH, layer.in_channels, length))]
        case nn.Conv2d() | nn.ConvTranspose2d():
            _, height, width = context.image
            return [
                Guess((BATCH, layer.in_channels, height, width)),
                *(Guess((BATCH, layer.in_channels, s, s)) for s in (32, 28, 224)),
            ]
        case nn.Conv3d() | nn.ConvTranspose3d():
            sides = ((16, 16, 16), (16, 224, 224), (16, 112, 112), (32, 32, 32))  # volumes and clips
            return [Guess((BATCH, layer.in_channels, *side)) for side in sides]
        case nn.Linear():
            wide = layer.in_features
            side = _square(wide)
            flat = [Guess((BATCH, 1, side, side))] if side else []
            patch = _square(wide // 3) if wide % 3 == 0 else 0  # a patch of an image, cut out by the model or before it
            flat += [Guess((BATCH, 3, 4 * patch, 4 * patch)), Guess((BATCH, 16, wide))] if patch else []
            return [Guess((BATCH, wide)), Guess((BATCH, length, wide)), *flat]
        case nn.LSTM() | nn.GRU() | nn.RNN():
            return [Guess((BATCH, length, layer.input_size))]
        case nn.LSTMCell() | nn.GRUCell() | nn.RNNCell():
            return [Guess((BATCH, layer.input_size))]
        case nn.LayerNorm() | nn.RMSNorm():
            shape = tuple(int(size) for size in layer.normalized_shape)
            return [Guess((BATCH, length, *shape)), Guess((BATCH, *shape))]
        case nn.BatchNorm1d():
            return [Guess((BATCH, layer.num_features)), Guess((BATCH, layer.num_features, length))]
        case nn.BatchNorm2d():
            return [Guess((BATCH, layer.num_features, *context.image[1:]))]
        case nn.GroupNorm():
            return [Guess((BATCH, layer.num_channels, *context.image[1:])), Guess((BATCH, layer.num_channels, length))]
        case nn.MultiheadAttention():
            return [Guess((BATCH, length, layer.embed_dim))]
        case nn.Bilinear():
            return [Guess((BATCH, layer.in1_features)), Guess((BATCH, layer.in2_features))]
    return []


def first_wanted(context: Context) -> Iterator[Guess]:
    """What the first layers of each kind want, in order of registration; then what bare parameters suggest."""
    seen: set[type] = set()
    for layer in context.leaves:
        if type(layer) not in seen:
            seen.add(type(layer))
            yield from wanted(layer, context)
    for parameter in context.model.parameters(recurse=True):
        if parameter.dim() == 2:
            for size in dict.fromkeys(parameter.shape):
                yield from (Guess((BATCH, size)), Guess((BATCH, context.length, size)))
            break
    # An embedding's rows may be read from a bare parameter.
    first = next((p for p in context.model.parameters() if p.dim() == 2), None)
    if first is not None:
        yield ids(first.shape[0], BATCH, context.length)
    yield Guess((BATCH, context.length))


def _square(features: int) -> int:
    """The side of the square, one-channel image that flattens to so many features."""
    side = int(features**0.5)
    return side if side * side == features and side >= 8 else 0
