"""Writing nodes: what every one carries besides its op."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import fx

TORCH = str(Path(torch.__file__).parent) + os.sep
OURS = str(Path(__file__).resolve().parent.parent) + os.sep
INSTALLED = ("site-packages" + os.sep, "dist-packages" + os.sep, str(Path(os.__file__).parent) + os.sep)


class Writer:
    """Appends nodes to a graph, with the module that runs, the source line and the value on meta."""

    def __init__(self, graph: fx.Graph, until: CodeType | None = None) -> None:
        self.graph = graph
        self.path: list[str] = [""]
        self.log: list[fx.Node] = []  # every node, in order
        self.constants = 0
        self.until = until  # the frame that calls the model: what lies outside it is not the model's
        self.cwd = str(Path.cwd()) + os.sep
        self.files: dict[str, tuple[str, bool] | None] = {}

    def call(self, target: Any, args: Any, kwargs: Any, value: Any) -> fx.Node:
        """A call node."""
        node = self.graph.create_node("call_function", target, args, kwargs)
        meta = node.meta
        meta["val"], meta["module"] = value, self.path[-1]
        meta["source"], user = self.sources()
        if user is not None:
            meta["user_source"] = user
        self.log.append(node)
        return node

    def placeholder(self, kind: str, name: str, value: Any) -> fx.Node:
        """A lifted parameter, buffer, input or constant."""
        node = self.graph.placeholder(f"{kind}_{name}".replace(".", "_"))
        node.meta.update(kind=kind, name=name, val=value, module="", source=None)
        self.log.append(node)
        return node

    def constant(self) -> str:
        """A name for a constant that has none."""
        self.constants += 1
        return f"c{self.constants}"

    def source(self) -> str | None:
        """The innermost line outside torch and mupc."""
        return self.sources()[0]

    def sources(self) -> tuple[str | None, str | None]:
        """The innermost line outside torch and mupc and, where a library holds it, the innermost outside libraries."""
        inner: str | None = None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not self.until:
            name = frame.f_code.co_filename
            shown = self.files[name] if name in self.files else self._file(name)
            if shown is not None:
                if not shown[1]:
                    line = f"{shown[0]}:{frame.f_lineno}"
                    return (line, None) if inner is None else (inner, line)
                inner = inner or f"{shown[0]}:{frame.f_lineno}"
            frame = frame.f_back
        return inner, None

    def _file(self, name: str) -> tuple[str, bool] | None:
        """How a file is shown and whether a library holds it; None for torch's, ours and generated code."""
        hidden = name.startswith((TORCH, OURS, "<")) or name == contextlib.__file__
        found = None if hidden else (name.removeprefix(self.cwd), any(part in name for part in INSTALLED))
        self.files[name] = found
        return found
