"""One run of a model's forward under the recorder, with every parameter on meta."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher

from mupc.blame import describe, user_line
from mupc.errors import TraceError
from mupc.trace.blocks import Block, LeftOut, left_out, without
from mupc.trace.families import with_families
from mupc.trace.guesses import Guess, Sides
from mupc.trace.memory import meta_like
from mupc.trace.patches import quiet
from mupc.trace.recorder import Recorder
from mupc.trace.swap import State, Swap, keeps_values
from mupc.trace.templates import folded_blocks
from mupc.trace.tree import leaves, replaced

WORTH = 0.25  # the part of a graph that must go for a copy of the rest to pay


@dataclass(frozen=True, slots=True)
class Trace:
    """One graph of pre-dispatch ATen ops on meta; parameters, buffers and inputs are its placeholders.

    Keys are FQNs for parameters and buffers, argument names and paths for inputs, paths for outputs ("" for a bare
    tensor, "alternative3.logits" for one of another side of a guess). `tied` are one tensor's names, the first its key.
    """

    graph: fx.Graph
    parameters: dict[str, fx.Node]
    buffers: dict[str, fx.Node]
    inputs: dict[str, fx.Node]
    outputs: dict[str, fx.Node]
    tied: tuple[tuple[str, ...], ...]
    unused: tuple[str, ...]
    guesses: tuple[Guess, ...]
    blocks: tuple[Block, ...] = ()

    def thinned(self) -> tuple[Trace, tuple[LeftOut, ...]]:
        """The trace without the copies of repeated blocks, and what was left out: nothing, where that is little."""
        gone, instead = left_out(self.blocks, self.outputs.values())
        if sum(len(one.block.nodes) + len(one.block.own) for one in gone) < WORTH * len(self.graph.nodes):
            return self, ()
        made = without(self.graph, gone, instead)

        def kept(group: Mapping[str, fx.Node]) -> dict[str, fx.Node]:
            return {name: made[node] for name, node in group.items() if node in made}

        thin = replace(
            self,
            graph=next(iter(made.values())).graph,
            parameters=kept(self.parameters),
            buffers=kept(self.buffers),
            inputs=kept(self.inputs),
            outputs=kept(self.outputs),
            blocks=(),
        )
        return thin, tuple(gone)


@dataclass(frozen=True, slots=True)
class Forward:
    """What is traced: a model's forward on these arguments."""

    model: nn.Module
    swap: Swap
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    fold: bool

    def named(self) -> tuple[list[str], Mapping[str, Any]]:
        """Names for the positional arguments, and the others by their own."""
        try:
            bound = inspect.signature(self.model.forward).bind_partial(*self.args, **self.kwargs)
            parameters = list(inspect.signature(self.model.forward).parameters.values())
        except (TypeError, ValueError):
            return [f"args.{i}" for i in range(len(self.args))], self.kwargs
        plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        starred = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
        names = [n for n in bound.arguments if n in plain][: len(self.args)]
        return names + [f"{starred}.{i}" for i in range(len(self.args) - len(names))], self.kwargs

    def failed(self, error: Exception, guessed: bool = False) -> TraceError:
        """What the forward raised as one line: the user's own, or else one in the folder of the model's class."""
        if isinstance(error, TraceError):
            return error
        home = getattr(sys.modules.get(type(self.model).__module__), "__file__", None)
        place = user_line(error.__traceback__)
        if place is None and home:
            place = user_line(error.__traceback__, str(Path(home).resolve().parent))
        values = guessed or "meta" in str(error)
        hint = "; the forward branches on values: pass real inputs (--input, example_inputs)" if values else ""
        return TraceError(f"{f'{place}: ' if place else ''}{describe(error)}{hint}")


class Capture:
    """One run. A later run on other sides (of `base`) writes into the same graph and placeholders."""

    def __init__(self, forward: Forward, sides: Sides, base: Capture | None = None) -> None:
        self.forward, self.sides, self.base = forward, sides, base
        self.graph: fx.Graph = base.graph if base else fx.Graph()
        self.recorder = Recorder(self.graph, sides, Capture.run.__code__)
        self.places: dict[int, fx.Node] = {} if base is None else base.places  # id of a state -> its placeholder
        self.inputs: dict[str, fx.Node] = {} if base is None else base.inputs
        self.outputs: dict[str, fx.Node] = {} if base is None else base.outputs

    def run(self) -> None:
        """The forward, recorded; raises what it raises."""
        forward, recorder = self.forward, self.recorder
        forward.swap.fresh()
        with forward.swap.applied(self.sides.training):
            self._enter_state()
            args, kwargs = self._enter_inputs()
            with ExitStack() as stack:
                stack.enter_context(_paths(forward.model, recorder))
                if forward.fold:
                    stack.enter_context(folded_blocks(forward.model, recorder))
                stack.enter_context(quiet())
                stack.enter_context(torch.set_grad_enabled(self.sides.grad))
                stack.enter_context(enable_python_dispatcher())
                stack.enter_context(recorder)
                out = forward.model(*args, **kwargs)
            prefix = "" if self.base is None else f"alternative{len(self.outputs)}."
            found = {f"{prefix}{name}": recorder.memory.node(tensor) for name, tensor in leaves(out)}
            self.outputs.update(found)

    def _enter_state(self) -> None:
        for state in self.forward.swap.states:
            known = self.places.get(id(state))
            if known is None:
                self.places[id(state)] = self.recorder.enter(state.twin, state.kind, state.names[0])
            else:
                self.recorder.memory.bind(state.twin, known)
        self.forward.swap.introduce(self.recorder.memory)

    def _enter_inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def enter(value: torch.Tensor, path: str) -> torch.Tensor:
            keep = keeps_values(value) and not value.is_floating_point() and not value.is_complex()
            tensor = value.detach().clone() if keep else meta_like(value)
            if path in self.inputs:
                self.recorder.memory.bind(tensor, self.inputs[path])
            else:
                self.inputs[path] = self.recorder.enter(tensor, "input", path)
            return tensor.requires_grad_() if value.requires_grad and self.sides.grad else tensor

        names, named = self.forward.named()
        args = tuple(replaced(v, name, enter) for v, name in zip(self.forward.args, names, strict=True))
        return args, {k: replaced(v, k, enter) for k, v in named.items()}

    def unread(self) -> list[str]:
        """Parameters that no node reads."""
        return [s.names[0] for s in self._parameters() if not self.places[id(s)].users]

    def forget(self, extra: Capture) -> None:
        """Take a failed alternative's nodes out again."""
        for node in reversed(extra.recorder.writer.log):
            if not node.users:
                self.graph.erase_node(node)
                for path in [p for p, n in self.inputs.items() if n is node]:
                    del self.inputs[path]

    def _parameters(self) -> Iterator[State]:
        return (s for s in self.forward.swap.states if s.kind == "parameter")

    def result(self, guesses: tuple[Guess, ...]) -> Trace:
        """Everything recorded, so far."""
        states = self.forward.swap.states
        held = {s.names[0]: self.places[id(s)] for s in states}
        return Trace(
            self.graph,
            {s.names[0]: self.places[id(s)] for s in self._parameters()},
            {s.names[0]: self.places[id(s)] for s in states if s.kind == "buffer"},
            self.inputs,
            self.outputs,
            tuple(tuple(s.names) for s in self._parameters() if len(s.names) > 1),
            tuple(self.unread()),
            guesses,
            with_families(self.graph, held, self.recorder.blocks),
        )


@contextmanager
def _paths(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Keep the recorder's module path while submodules run."""
    names = {id(module): name for name, module in model.named_modules()}
    path = recorder.writer.path

    def enter(module: nn.Module, _args: Any) -> None:
        path.append(names.get(id(module), path[-1]))

    def leave(module: nn.Module, _args: Any, _out: Any) -> None:
        if len(path) > 1:
            path.pop()

    handles = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
