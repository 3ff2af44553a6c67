"""What only values could tell: which side was taken, recorded, and which sides are left to try."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

TRIES: Final = 24  # forwards run in search of a side that finishes, and of parameters that stay unread


@dataclass(frozen=True, slots=True)
class Guess:
    """A branch, a number or a size that depends on values, and what it was taken to be."""

    source: str | None
    what: str
    took: object


@dataclass(slots=True)
class Sides:
    """Which side each branch on values takes: a default, flipped at some lines or at some places in their order."""

    default: bool
    flipped: frozenset[int | str] = frozenset()
    training: bool = False
    grad: bool = False
    made: list[Guess] = field(default_factory=list)
    branches: list[str | None] = field(default_factory=list)

    @property
    def key(self) -> object:
        return self.default, self.flipped, self.training, self.grad

    def branch(self, source: str | None) -> bool:
        """The side that this branch takes."""
        took = self.default ^ (len(self.branches) in self.flipped) ^ (source in self.flipped)
        self.branches.append(source)
        self.made.append(Guess(source, "a branch on values", took))
        return took

    def note(self, source: str | None, what: str, took: object) -> None:
        """A number or size that was taken."""
        self.made.append(Guess(source, what, took))

    def changed(self, **fields: object) -> Sides:
        """The same sides but for `fields`, with nothing made yet."""
        kept = {"default": self.default, "flipped": self.flipped, "training": self.training, "grad": self.grad}
        return Sides(**{**kept, **fields})  # type: ignore[arg-type]

    def after_failure(self) -> Iterator[Sides]:
        """What to try when the forward failed on these sides: the last branches first."""
        last = len(self.branches) - 1
        for at in range(last, max(-1, last - 3), -1):
            yield self.changed(flipped=self.flipped ^ {at})
        for line in dict.fromkeys(reversed(self.branches)):
            if line is not None:
                yield self.changed(flipped=self.flipped ^ {line})

    def alternatives(self) -> Iterator[Sides]:
        """Where parameters may be read that these sides do not reach: every branch's other side, then training mode."""
        for training in (False, True):
            if training:
                yield self.changed(training=True)
            if self.branches:
                yield self.changed(default=not self.default, training=training)
            for line in dict.fromkeys(self.branches):
                if line is not None and len(set(self.branches)) > 1:
                    yield self.changed(flipped=self.flipped ^ {line}, training=training)
