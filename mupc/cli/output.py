"""Where results go: stdout, or a file that is whole or not there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mupc.errors import MupcError


def write(text: str, path: Path | None) -> None:
    """To stdout, or to a file by rename. Raises `MupcError` where the file cannot be written."""
    text = text if text.endswith("\n") else text + "\n"
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(draft).chmod(0o666 & ~_umask())
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise MupcError(f"{path}: cannot write: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def colored(path: Path | None) -> bool:
    """Colour on a terminal, never in a file, never against NO_COLOR."""
    return path is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


@contextmanager
def progress(message: str) -> Iterator[None]:
    """A spinner on stderr while a person watches."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(message):
        yield
