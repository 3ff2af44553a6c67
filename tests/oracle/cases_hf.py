"""transformers models for the oracles, from cases_hf.txt: small configs, sizes as distinct as the library allows."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mupc.target.torchvision_ops import with_torchvision_ops
from tests.oracle.rows import Row, read
from tests.oracle.two_widths import Case

with_torchvision_ops(lambda: import_module("torchvision"))  # transformers reads it wherever it is installed
transformers = import_module("transformers")
transformers.logging.set_verbosity_error()

B, T = 2, 12


def ramp(*shape: int) -> Tensor:
    """Numbers that are all different, between 0 and 1."""
    return torch.linspace(0, 1, torch.Size(shape).numel()).view(shape)


def ids(length: int = T) -> Tensor:
    """Token ids that are no special tokens, below 48."""
    return torch.arange(B * length).remainder(40).add(5).view(B, length)


def image(size: int = 32) -> dict[str, Tensor]:
    return {"pixel_values": ramp(B, 3, size, size)}


def text() -> dict[str, Tensor]:
    return {"input_ids": ids()}


def pair() -> dict[str, Tensor]:
    return {**text(), **image(), "attention_mask": torch.ones(B, T, dtype=torch.long)}


def placed() -> dict[str, Tensor]:
    """An image's 16 patches stand where the text has token 96."""
    return {"input_ids": torch.cat([torch.full((B, 16), 96), ids()], 1), **image()}


def history(past: int = 11, future: int = 4) -> dict[str, Tensor]:
    return {
        "past_values": ramp(B, past),
        "past_time_features": ramp(B, past, 2),
        "past_observed_mask": torch.ones(B, past),
        "static_categorical_features": torch.zeros(B, 1, dtype=torch.long),
        "future_values": ramp(B, future),
        "future_time_features": ramp(B, future, 2),
    }


def trajectory(steps: int = 5) -> dict[str, Tensor]:
    return {
        "states": ramp(B, steps, 11),
        "actions": ramp(B, steps, 3),
        "rewards": torch.zeros(B, steps, 1),
        "returns_to_go": torch.ones(B, steps, 1),
        "timesteps": torch.arange(steps).repeat(B, 1),
        "attention_mask": torch.ones(B, steps, dtype=torch.long),
    }


INPUTS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "text": text,
    "both": lambda: {"input_ids": ids(), "decoder_input_ids": ids(9)},
    "image": image,
    "photo": lambda: image(64),
    "sound": lambda: {"input_values": ramp(B, 400)},
    "spectrogram": lambda: {"input_values": ramp(B, 24, 16)},
    "features": lambda: {"input_features": ramp(B, 14, 30), "decoder_input_ids": ids(9)},
    "frames": lambda: {"input_features": ramp(B, 40, 14), "decoder_input_ids": ids(9)},
    "pair": pair,
    "typed": lambda: {**pair(), "token_type_ids": torch.zeros(B, T, dtype=torch.long)},
    "placed": placed,
    "history": history,
    "channels": lambda: {"past_values": ramp(B, 32, 3)},
    "trajectory": trajectory,
}


def case(row: Row) -> Case:
    """A row as a case; `head` is what follows AutoModelFor, or a class's own name."""

    def config(factor: int) -> Any:
        made = transformers.CONFIG_MAPPING[row.kind](**row.config(factor))
        for part in (made, getattr(made, "text_config", None)):
            if hasattr(part, "use_cache"):
                part.use_cache = False
        return made

    def build(made: Any) -> nn.Module:
        auto = "AutoModel" + (f"For{row.head}" if row.head else "")
        if hasattr(transformers, auto):
            return getattr(transformers, auto).from_config(made)
        return getattr(transformers, row.head)(made)

    return Case(row.name, lambda: config(1), lambda: config(2), build, lambda _: INPUTS[row.inputs](), row.hard)


CASES = {row.name: case(row) for row in read(Path(__file__).with_name("cases_hf.txt"))}
