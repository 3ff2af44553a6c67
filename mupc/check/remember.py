"""Measurements that are kept, so that an interrupted check goes on: under everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import astuple
from importlib import metadata
from pathlib import Path
from typing import Any

from mupc.check.measure import Measured, Sample, Weighed
from mupc.trace.writer import INSTALLED, OURS, TORCH

LIBRARIES = ("torch", "transformers", "timm")


def fingerprint() -> list[str | None]:
    """Of all code that a measurement depends on: the user's, as imported, ours, and the libraries' versions."""
    return [*(hashlib.sha256(path.read_bytes()).hexdigest() for path in _sources()), *map(_version, LIBRARIES)]


def place(code: list[str | None], what: Any) -> Path:
    """Where a measurement is kept: under the fingerprint of its code and what was asked."""
    text = json.dumps([code, what], default=str)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "mupc" / "check" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _sources() -> Iterator[Path]:
    """The files of imported modules that are nobody's library, and mupc's own: a change of any makes another result."""
    files = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    for name in sorted(files):
        library = name.startswith(TORCH) or any(part in name for part in INSTALLED)
        if name.endswith(".py") and (name.startswith(OURS) or not library):
            path = Path(name)
            if path.is_file():
                yield path


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def remembered(path: Path) -> Measured | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Measured(
            {n: Sample(*v) for n, v in kept["values"].items()},
            {n: Weighed(*v) for n, v in kept["weights"].items()},
            kept["loss"],
            kept["effects"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(path: Path, found: Measured) -> None:
    kept = {
        "values": {n: list(astuple(s)) for n, s in found.values.items()},
        "weights": {n: list(astuple(w)) for n, w in found.weights.items()},
        "loss": found.loss,
        "effects": dict(found.effects),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(kept), encoding="utf-8")
        draft.replace(path)
    except OSError:
        return  # what is not remembered is measured again
