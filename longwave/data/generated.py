"""Tasks whose examples are drawn, not read: functions of (seed, step, rank) and the split, so that no two parts share draws.

A generator draws `CHUNK` examples at a time for what is held out, whatever the batch that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from longwave.data.examples import EVERY, Examples, Split, check_batch
from longwave.errors import ArgumentError

CHUNK = 16


class Draw(Protocol):
    """A generator of examples."""

    def __call__(self, size: int, seed: int, step: int, rank: int = 0, part: str = "train", rows: slice = EVERY) -> Examples:
        """`size` examples, or those `rows` of them: a function of the arguments alone."""


@dataclass(frozen=True)
class Drawn:
    """Examples without end: a `Source`."""

    draw: Draw

    def batch(self, step: int, size: int, seed: int = 0, rank: int = 0, rows: slice = EVERY) -> Examples:
        """`size` examples, or `rows` of them; Raises ArgumentError for a number out of range."""
        check_batch(step, size)
        return self.draw(size, seed, step, rank, rows=rows)


@dataclass(frozen=True)
class DrawnHeldOut:
    """A fixed number of examples, drawn anew whenever they are gone through: a `HeldOut`.

    Attributes:
        draw: the generator.
        count: how many, ≥ 1.
        part: "validation" or "test".
    """

    draw: Draw
    count: int
    part: str

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Examples]:
        """All examples in order, at most `size` at a time; Raises ArgumentError for a size below 1."""
        check_batch(0, size)
        inputs, labels = [], []
        ready = 0
        for chunk in range(-(-self.count // CHUNK)):
            drawn = self.draw(CHUNK, 0, chunk, 0, self.part)
            kept = min(CHUNK, self.count - chunk * CHUNK)
            inputs.append(drawn.inputs[:kept])
            labels.append(drawn.labels[:kept])
            ready += kept
            while ready >= size or (ready and chunk * CHUNK + kept == self.count):
                whole = Examples(torch.cat(inputs), torch.cat(labels))
                yield Examples(whole.inputs[:size], whole.labels[:size])
                inputs, labels = [whole.inputs[size:]], [whole.labels[size:]]
                ready = max(ready - size, 0)


def generated(draw: Draw, held_out: int, *, classes: int, vocabulary: int, source: str) -> Split:
    """A task of drawn examples.

    Args:
        draw: the generator.
        held_out: examples in validation and test, each, ≥ 1.
        classes, vocabulary, source: of the `Split`.

    Raises:
        ArgumentError: nothing is held out.
    """
    if held_out < 1:
        raise ArgumentError(f"at least 1 example is held out and {held_out} was given")
    validation, test = (DrawnHeldOut(draw, held_out, part) for part in ("validation", "test"))
    return Split(Drawn(draw), validation, test, classes, vocabulary, source)
