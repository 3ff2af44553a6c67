"""Names for dims: the constructor argument, config field or attribute that holds the size, else `d768`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn

NO_SIZE = re.compile(
    r"layers?$|depth|top_?k|_id$|_idx$|^n_layer|seed|version|steps?$|eps$|stride|padding|dilation|kernel"
)
TORCH_NAMES = (
    "training",
    "call_super_init",
    "dump_patches",
    "padding_idx",
    "dim",
    "stride",
    "padding",
    "dilation",
    "layer_idx",
    "layer_id",
)


class Held:
    """Per module path (`""` is the root), the names of ints: those given first, config fields, then attributes."""

    def __init__(self, model: nn.Module, given: Mapping[str, int]) -> None:
        self.model, self.given = model, given
        self.at, self.module = cache(self._at), cache(self._module)

    def _at(self, path: str) -> Mapping[int, Sequence[str]]:
        """The names that one module gives to sizes."""
        sizes: dict[int, list[str]] = defaultdict(list)
        for name, value in (*(self.given.items() if not path else ()), *_ints(self.module(path))):
            if name not in sizes[value] and not NO_SIZE.search(name):
                sizes[value].append(name)
        return dict(sizes)

    def _module(self, path: str) -> nn.Module | None:
        """The module there, if any: a parameter's name need not be a path of modules."""
        if not path:
            return self.model
        above, _, name = path.rpartition(".")
        found = getattr(self.module(above), name, None)
        return found if isinstance(found, nn.Module) else None


def _ints(module: nn.Module | None) -> Iterator[tuple[str, int]]:
    if module is None or type(module).__module__.startswith("torch."):
        return  # `in_features` says nothing that the axis does not
    config = getattr(module, "config", None)
    yield from _fields(config)
    for name, value in vars(module).items():
        if name.startswith("_") or name in TORCH_NAMES or name == "config":
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            yield name, value
        elif not isinstance(value, (nn.Module, str, float, bool, list, tuple, type(None))):
            yield from _fields(value)


def _fields(config: Any) -> Iterator[tuple[str, int]]:
    fields = config if isinstance(config, Mapping) else getattr(config, "__dict__", None)
    for name, value in (fields or {}).items():
        if (
            isinstance(name, str)
            and not name.startswith("_")
            and isinstance(value, int)
            and not isinstance(value, bool)
            and value > 1
        ):
            yield name, value
        elif hasattr(value, "to_dict") and hasattr(value, "__dict__"):
            yield from _fields(value)


# What a field's name says of the dim it holds: words that suggest a kind, and words that speak against it.
SUGGEST = {
    "lookup": re.compile(r"vocab|num_embeddings|max_position|block_size|n_positions|buckets"),
    "heads": re.compile(r"head"),
    "inner": re.compile(r"head_?dim|d_head|head_size|state|d_kv"),
    "experts": re.compile(r"expert|group"),
    "rank": re.compile(r"rank|embedding_size|latent"),
    "kernel": re.compile(r"kernel|patch"),
    "data": re.compile(r"channels|in_chans|classes|labels|vocab|image|mel|bins"),
}
AGAINST = {
    "width": re.compile(
        r"heads?$|vocab|position|experts|(?:n|num)_expert|labels|classes|image|patch|block_size|groups?$|mel|bins"
    ),
    "inner": re.compile(r"heads$|n_head$|hidden_size|n_embd|d_model|experts"),
    "heads": re.compile(r"dim|size|embd|hidden|width|channels|experts|positions?"),
    "lookup": re.compile(r"hidden|embd|dim|heads?$"),
    "data": re.compile(r"hidden|embd|heads?$|dim$"),
    "experts": re.compile(r"hidden|embd|dim|heads?$|kernel|^d_"),
}


def name_for(
    size: int,
    places: Sequence[str],
    held: Held,
    taken: set[str],
    kind: str,
    fallback: str,
) -> str:
    """The best free name for a dim of that size and kind that is met at these module paths.

    Names found nearest to where the dim is used come first; a name that a sibling dim already bears is passed over.
    Without a free one nearly as good as the best, the best is numbered; without any, `fallback` is.
    """
    scores: dict[str, float] = defaultdict(float)
    for place in places:
        path, weight = place, 1.0
        while True:
            for rank, name in enumerate(held.at(path).get(size, ())):
                scores[name] += weight / (1 + 0.1 * rank)
            if not path:
                break
            path, weight = path.rpartition(".")[0], weight * 0.9
    for name in scores:
        scores[name] *= 3 if kind in SUGGEST and SUGGEST[kind].search(name) else 1
    fit = sorted(
        (n for n in scores if not (kind in AGAINST and AGAINST[kind].search(n))), key=lambda n: (-scores[n], n)
    )
    free = [n for n in fit if n not in taken]
    if free and scores[free[0]] * 2 > scores[fit[0]]:
        return free[0]
    best = fit[0] if fit else fallback  # a second dim of one field is numbered after it
    n, name = 1, best
    while name in taken:
        n += 1
        name = f"{best}_{n}"
    return name
