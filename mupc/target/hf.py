"""`hf:TYPE` and `hf:path/config.json`: any transformers model type, in the default size or as overridden."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mupc.blame import describe
from mupc.errors import TargetError
from mupc.target.build import build
from mupc.target.call import Size, whole
from mupc.target.load import Built
from mupc.target.settings import near_names, nested, unknown_setting
from mupc.target.torchvision_ops import import_transformers

# Whole models first, with the head that people train; a bare backbone after them; classes that insist on a loss last.
_HEADS = (
    "IMAGE_TEXT_TO_TEXT", "SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM", "MASKED_LM", "CAUSAL_LM", "MULTIMODAL_LM",
    "CTC", "ZERO_SHOT_IMAGE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "VIDEO_CLASSIFICATION",
    "OBJECT_DETECTION", "UNIVERSAL_SEGMENTATION", "SEMANTIC_SEGMENTATION", "DEPTH_ESTIMATION", "MASK_GENERATION",
    "TIME_SERIES_PREDICTION", "TEXT_TO_WAVEFORM", "SEQUENCE_CLASSIFICATION",
)  # fmt: skip


def build_target(name: str, settings: Mapping[str, Any]) -> Built:
    """The model class that fits the config best, built on meta."""
    try:
        import transformers
    except ImportError as error:
        raise TargetError(f"hf:{name} needs transformers (pip install 'mupc[hf]'): {error}") from error
    transformers.logging.set_verbosity_error()

    def make(changes: Mapping[str, Any]) -> nn.Module:
        config = _config(name, {**settings, **changes})
        return build(lambda: _from_config(config))

    try:
        return Built(make({}), make, where=f"hf:{name}", fields=_numbers(_config(name, settings).to_dict()))
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(f"hf:{name}: {describe(error)}") from error


def _config(name: str, settings: Mapping[str, Any]) -> Any:
    """The type's default config, or the file's, with `settings` put in; an unknown key is an error."""
    from transformers import CONFIG_MAPPING

    given = _read(Path(name)) if name.endswith(".json") or Path(name).is_file() else {}
    kind = given.pop("model_type", None) if given else name
    if kind not in CONFIG_MAPPING:
        raise TargetError(f"transformers has no model type {kind!r}{near_names(str(kind), sorted(CONFIG_MAPPING))}")
    import_transformers()
    config_class = CONFIG_MAPPING[kind]
    try:
        base = config_class.from_dict(copy.deepcopy(given)) if given else config_class()
    except Exception as error:
        raise TargetError(f"hf:{name}: this config cannot be made: {describe(error)}") from error
    for key in settings:
        _check_key(base, key, f"hf:{name}")
    if not settings:
        return base
    whole = _merge(given, nested(settings))
    try:
        return config_class.from_dict(whole) if given else config_class(**whole)
    except Exception as error:
        raise TargetError(
            f"hf:{name} {' '.join(f'{k}={v}' for k, v in settings.items())}: {describe(error)}"
        ) from error


def _numbers(config: Mapping[str, Any], above: str = "") -> dict[str, Size]:
    """The config's whole numbers and lists of them, by dotted name."""
    found: dict[str, Size] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{above}{key}.")
        elif (size := whole(value)) is not None:
            found[above + key] = size
    return found


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        path = path / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{path}: {describe(error)}") from error
    except json.JSONDecodeError as error:
        raise TargetError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise TargetError(f"{path}: no model_type; is this a transformers config.json?")
    return config


def _check_key(config: Any, key: str, where: str) -> None:
    """`a.b.c` must exist on the config: transformers itself takes any key in silence."""
    for part in key.split("."):
        known = set(config) if isinstance(config, dict) else {*config.to_dict(), *getattr(config, "attribute_map", {})}
        present = part in known or (not isinstance(config, dict) and hasattr(config, part))
        if not present:
            raise unknown_setting(part, known, where)
        config = config.get(part) if isinstance(config, dict) else getattr(config, part)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _from_config(config: Any) -> nn.Module:
    """Try the classes that fit; some types list a class that their own default config does not suit."""
    failed: list[Exception] = []
    for model_class in _classes(config):
        try:
            # A private copy: a model may write into its config.
            model: nn.Module = model_class._from_config(copy.deepcopy(config))
            return model
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]
    raise TargetError(f"transformers builds no model from {type(config).__name__} alone")


def _classes(config: Any) -> Iterator[Any]:
    import transformers
    from transformers.models.auto import modeling_auto as auto

    names = dict.fromkeys(getattr(config, "architectures", None) or ())
    for head in _HEADS:
        names |= dict.fromkeys(_listed(getattr(auto, f"MODEL_FOR_{head}_MAPPING_NAMES", {}), config))
    for mapping in (auto.MODEL_MAPPING_NAMES, auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES):
        names |= dict.fromkeys(_listed(mapping, config))
    for name in names:
        if (found := getattr(transformers, name, None)) is not None and _callable(found):
            yield found
    yield from filter(_callable, _models_of(type(config)))


def _callable(model_class: Any) -> bool:
    """Some classes only generate, by calling their parts: they have no forward of their own."""
    return getattr(model_class, "forward", None) is not nn.Module.forward


def _models_of(config_class: type) -> Iterator[Any]:
    """Parts of larger models, `clip_vision_model` and the like, are in no mapping: look beside the config."""
    beside = config_class.__module__.replace(".configuration_", ".modeling_")
    try:
        module = importlib.import_module(beside)
    except ImportError:
        return
    found = [
        value
        for name, value in vars(module).items()
        if getattr(value, "config_class", None) is config_class
        and value.__module__ == beside
        and not name.endswith("PreTrainedModel")
    ]
    yield from sorted(found, key=lambda model: not model.__name__.endswith("Model"))


def _listed(mapping: Mapping[str, Any], config: Any) -> tuple[str, ...]:
    names = mapping.get(config.model_type, ())
    return (names,) if isinstance(names, str) else tuple(names)
