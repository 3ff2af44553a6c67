"""Specs as people write them, and inputs found for models of every shape."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mupc.errors import TargetError
from mupc.inputs import Guess, find_inputs, parse_input
from mupc.inputs.probe import Probe
from mupc.target import build_target, import_transformers
from mupc.target.build import build


@pytest.mark.parametrize(
    ("text", "name", "guess"),
    [
        ("idx:int64[2,128]<50257", "idx", Guess((2, 128), "int64", 50257)),
        ("float32[2, 64]", None, Guess((2, 64), "float32")),
        (" x : long [ 2 , 3 ] < 7 ", "x", Guess((2, 3), "int64", 7)),
        ("mask:bool[2,8]", "mask", Guess((2, 8), "bool")),
        ("t:float[]", "t", Guess((), "float32")),
    ],
)
def test_specs(text, name, guess):
    assert parse_input(text) == (name, guess)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idx:int64[2,128", "column 16: expected ',' or ']'; found the end"),
        ("idx:int64(2)", "column 10: expected '[' and a shape such as [2,128]; found '('"),
        ("idx:in64[2]", "column 5: expected a dtype; found 'in64'; did you mean int64"),
        ("x:float32[2]<3", "column 13: expected the end, for only integers have a bound; found '<'"),
        ("idx:int64[2]<", "column 14: expected a whole number above 0; found the end"),
        ("x:int64[2]<3 z", "column 14: expected the end; found 'z'"),
        ("x:int64[2,-1]", "column 11: expected a size, or ']'; found '-'"),
        ("", "column 1: expected a dtype such as int64 or float32; found the end"),
    ],
)
def test_a_bad_spec_points_at_the_column(text, message):
    with pytest.raises(TargetError) as caught:
        parse_input(text)
    assert message in str(caught.value)


def test_integers_are_real_and_below_their_bound_and_floats_hold_nothing():
    ids = Guess((2, 50), "int64", 7).tensor()
    assert ids.device.type == "cpu"
    assert ids.min() >= 0
    assert ids.max() < 7
    assert Guess((10**6, 10**6)).tensor().is_meta
    planted = Guess((2, 12), "int64", 9, ((5, 4),)).tensor()
    assert (planted == 5).sum(1).tolist() == [4, 4]


def test_given_inputs_are_taken_as_given():
    model = nn.Bilinear(4, 5, 6)
    found = find_inputs(model, ["float32[2,4]", "input2:float32[2,5]"])
    assert [arg.shape for arg in found.args] == [(2, 4)]
    assert found.kwargs["input2"].shape == (2, 5)
    with pytest.raises(TargetError, match=r"Bilinear\.forward takes input1, input2"):
        find_inputs(model, ["input3:float32[2,4]"])


class Flattened(nn.Module):
    """Its image size is written nowhere but in the first linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 5)
        self.head = nn.Linear(16 * 12 * 12, 10)

    def forward(self, x):
        return self.head(F.max_pool2d(self.conv(x), 2).flatten(1))


class Sequences(nn.Module):
    """Swaps the axes before its first layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(7, 32, 3)

    def forward(self, x):
        return self.conv(x.transpose(1, 2))


class Positions(nn.Module):
    """Holds eight positions, and says so in an assert."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(65, 32), nn.Embedding(8, 32)

    def forward(self, idx, targets=None):
        assert idx.shape[1] <= 8
        return self.token(idx) + self.position(torch.arange(idx.shape[1], device=idx.device))


class Parts(nn.Module):
    """Its second input's width is what is left of a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(60, 256), nn.Linear(256 + 24, 3)

    def forward(self, position, direction):
        return self.last(torch.cat([self.first(position), direction], -1))


class Bare(nn.Module):
    """No layers, one matrix."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(20, 50))

    def forward(self, x):
        return torch.tanh(x @ self.weight)


class Denoiser(nn.Module):
    """An image and a time."""

    def __init__(self):
        super().__init__()
        self.time, self.conv = nn.Linear(32, 8), nn.Conv2d(3, 8, 3)

    def forward(self, x, t):
        angle = t[:, None] * torch.arange(16, device=x.device)
        return self.conv(x) + self.time(torch.cat([angle.sin(), angle.cos()], 1))[:, :, None, None]


class Keyword(nn.Module):
    """Takes keyword arguments alone, and a mask."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(99, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, batch_first=True)

    def forward(self, *, tokens, mask):
        return self.layer(self.embed(tokens), src_key_padding_mask=~mask)


class Conditional(nn.Module):
    """A vector and a class."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(10, 64), nn.Linear(32, 64)

    def forward(self, x, label):
        return self.layer(x) + self.embed(label)


class Halved(nn.Module):
    """Two images at once, as siamese networks take."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 8, 3)

    def forward(self, left, right):
        return self.conv(torch.cat([left, right], 1))


class Nothing(nn.Module):
    """A generator without inputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self):
        return self.weight * 2


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (Flattened, [(2, 1, 28, 28)]),
        (Sequences, [(2, 128, 7)]),
        (Positions, [(2, 8)]),
        (Parts, [(2, 60), (2, 24)]),
        (Bare, [(2, 20)]),
        (Denoiser, [(2, 3, 64, 64), (2,)]),
        (Keyword, [(2, 13), (2, 13)]),
        (Conditional, [(2, 32), (2,)]),
        (Nothing, []),
        (lambda: nn.LSTM(40, 64, batch_first=True), [(2, 13, 40)]),
        (lambda: nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)), [(2, 784)]),
        (lambda: nn.Conv3d(1, 8, 3), [(2, 1, 16, 16, 16)]),
        (lambda: nn.Embedding(1000, 8), [(2, 13)]),
    ],
)
def test_inputs_are_found(make, shapes):
    model = build(make)
    found = find_inputs(model)
    assert [tuple(value.shape) for value in found.kwargs.values()] == shapes
    assert found.how.startswith("inferred: ")


def test_two_images_share_their_channels():
    found = find_inputs(build(Halved))
    assert sum(value.shape[1] for value in found.kwargs.values()) == 6


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    model[1].eval()
    find_inputs(model)
    assert [module.training for module in model.modules()] == [True, True, False]


def test_a_failed_search_says_what_the_model_said():
    class Stubborn(nn.Module):
        def forward(self, x):
            raise ValueError("wants a Batch")

    with pytest.raises(
        TargetError, match=r"test_inputs.py:\d+: ValueError: wants a Batch \(from Stubborn.forward\(x\)"
    ):
        find_inputs(Stubborn())


def test_masks_and_lengths_have_true_values():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(30, 8)

        def forward(self, idx):
            lengths = (idx >= 0).sum(1)
            assert lengths.tolist() == [idx.shape[1]] * 2
            return self.embed(idx)[:, : int(lengths.max())]

    assert Probe(build(Packed)).attempt({"idx": Guess((2, 5), "int64", 30)}).error is None


# One of each kind of input: tokens, pairs, pictures, films, sounds, spectra, series, and mixtures of them.
TYPES = (
    "gpt2", "llama", "mixtral", "mamba", "bert", "xlnet", "t5", "bart", "vit", "swin", "convnext", "beit", "videomae",
    "clip", "clap", "wav2vec2", "whisper", "audio-spectrogram-transformer", "speech_to_text", "vilt", "blip",
    "paligemma", "llava", "llava_next", "idefics3", "perceiver", "patchtst", "layoutlm", "canine", "detr",
)  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_inputs_of_transformers_types(kind):
    pytest.importorskip("transformers")
    import_transformers()
    found = find_inputs(build_target(f"hf:{kind}").model)
    assert found.kwargs


def test_multimodal_tokens_are_planted():
    pytest.importorskip("transformers")
    model = build_target("hf:llava").model
    found = find_inputs(model)
    images = (found.kwargs["input_ids"] == model.config.image_token_id).sum(1)
    assert images.tolist() == [576, 576]
    assert found.kwargs["pixel_values"].shape == (2, 3, 336, 336)
