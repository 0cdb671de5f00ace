"""What every task but next-base DNA hands to training: examples with labels, in three parts that share nothing.

`Examples` are tensors. A `Source` gives the batch of any step, as a function of (seed, step, rank) alone; a `HeldOut` is
gone through in order, each example once. `Split` is one of the first and two of the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from longwave.data import draws
from longwave.errors import ArgumentError, DataError

IGNORE = -100
"""The label of what is not asked: it enters no loss and no score."""

EVERY = slice(None)
"""All rows of a batch: what is made of it where nobody else makes the rest."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples in memory, on the CPU; both a `Source` and a `HeldOut`.

    Attributes:
        inputs: (n, L) uint8 tokens, or (n, L, V) float32 numbers.
        labels: int64, (n,) for one class an example, (n, L) for one a position, (n, L, places) for several, as of a frame's
            pixels; `IGNORE` where nothing is asked.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ArgumentError(
                f"every example has a label, but {len(self.inputs):,} examples came with {len(self.labels):,} labels"
            )
        if not len(self.inputs):
            raise DataError("there is no example; give data with at least one")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: draws.Indices) -> Examples:
        """The examples at `indices`, (m,) int64, copied."""
        at = torch.from_numpy(np.ascontiguousarray(indices))
        return Examples(self.inputs[at], self.labels[at])

    def batch(self, step: int, size: int, seed: int = 0, rank: int = 0, rows: slice = EVERY) -> Examples:
        """The examples of one step: all in one random order, then all in another, …

        Where an example has one class, an order has the classes in turns, as often as they occur: what all examples of a batch
        have in common then says nothing of the batch's labels, and small differences are learnt from the first steps on.

        Args:
            step: ≥ 0.
            size: examples in a batch, ≥ 1; a batch may go over the end of an order into the next.
            seed, rank: ≥ 0.
            rows: those of the batch that are made.

        Raises:
            ArgumentError: a number is out of range.
        """
        check_batch(step, size)
        places = np.arange(step * size, (step + 1) * size)[rows]
        epochs = places // len(self)
        orders = {int(epoch): self._in_turns(draws.order(len(self), seed, int(epoch), rank)) for epoch in np.unique(epochs)}
        at = [orders[epoch][place] for epoch, place in zip(epochs.tolist(), (places % len(self)).tolist(), strict=True)]
        return self.take(np.array(at, dtype=np.int64))

    def _in_turns(self, order: draws.Indices) -> draws.Indices:
        """The order with its classes spread evenly, each class in the order that it had."""
        if self.labels.ndim > 1:
            return order
        labels = self.labels.numpy()[order]
        places = np.empty(len(order))
        for label in np.unique(labels):
            (mine,) = np.nonzero(labels == label)
            places[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        return order[np.argsort(places, kind="stable")]

    def batches(self, size: int) -> Iterator[Examples]:
        """All examples in order, `size` at a time, the last batch with what is left.

        Raises:
            ArgumentError: a size below 1.
        """
        check_batch(0, size)
        for first in range(0, len(self), size):
            yield Examples(self.inputs[first : first + size], self.labels[first : first + size])


class Source(Protocol):
    """What is trained on."""

    def batch(self, step: int, size: int, seed: int = 0, rank: int = 0, rows: slice = EVERY) -> Examples:
        """`size` examples, or those `rows` of them: a function of its arguments alone. Raises ArgumentError for a number out of
        range."""


class HeldOut(Protocol):
    """What is scored."""

    def __len__(self) -> int:
        """How many examples there are."""

    def batches(self, size: int) -> Iterator[Examples]:
        """All examples in order, at most `size` at a time; Raises ArgumentError for a size below 1."""


@dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test, which share no example.

    Attributes:
        train, validation, test: the three parts.
        classes: labels are 0 … classes - 1, or `IGNORE`.
        vocabulary: tokens are 0 … vocabulary - 1; 0 where inputs are numbers.
        source: what the data are and where they came from, in a few words, for records of runs.
    """

    train: Source
    validation: HeldOut
    test: HeldOut
    classes: int
    vocabulary: int
    source: str


def check_batch(step: int, size: int) -> None:
    """Refuse what is no step or no size of a batch.

    Raises:
        ArgumentError: a negative step, or a size below 1.
    """
    for name, value, least in (("step", step, 0), ("size", size, 1)):
        if value < least:
            raise ArgumentError(f"{name} must be at least {least} and {value} was given")
