"""From DNA records to training data: a contiguous split, random training windows, evaluation windows.

Records are joined in file order with one N between them. Of the joined bases the first 90 % train, the next 5 % validate
and the last 5 % test: three stretches without a base in common. The borders depend on the data alone, not on the context.
An N is seen by the model and never predicted.

A window may hold bases of several records; `documents` says where each begins, so that a model can keep them apart. A
record begins with the N before it, which is what its first base is predicted from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longwave.data.codes import UNKNOWN, Codes, Record, check_codes, unknown_runs
from longwave.data.examples import EVERY
from longwave.errors import ArgumentError, DataError

Starts = npt.NDArray[np.int64]

HELD_OUT_SHARE = 20
"""Validation and test take one part in this many, each."""

LEAST_HELD_OUT_BASES = 100
"""A score on fewer known bases than this is noise: one base varies by about half a bit, their mean by 0.05."""


@dataclass(frozen=True, eq=False)
class DnaSplit:
    """Three stretches of the joined records that follow each other and share no base.

    Attributes:
        train, validation, test: (n,) uint8, 0…4 = A C G T N.
        train_records, validation_records, test_records: (m,) int64, ascending: the indices in the stretch at which a record
            begins, those of the N between it and the one before.
    """

    train: Codes
    validation: Codes
    test: Codes
    train_records: Starts
    validation_records: Starts
    test_records: Starts


def split(records: Sequence[Record], context: int) -> DnaSplit:
    """Join records with one N between them and split the result 90 % : 5 % : 5 %, in that order.

    Args:
        records: at least one.
        context: the number of bases a model sees before it predicts one, ≥ 1; it moves no border and is checked only.

    Returns:
        The three stretches, views of one new array, and where records begin in them.

    Raises:
        ArgumentError: no record, or a context below 1.
        DataError: too few bases to train with this context, or to score.
    """
    _check_context(context)
    if not records:
        raise ArgumentError("a split needs at least one record and none was given")
    separator = np.array([UNKNOWN], dtype=np.uint8)
    parts = [part for record in records for part in (separator, check_codes(record.codes))]
    joined = np.concatenate(parts[1:])
    held_out = joined.size // HELD_OUT_SHARE
    borders = [joined.size - 2 * held_out, joined.size - held_out]
    train, validation, test = np.split(joined, borders)
    if train.size < context + 1:
        raise DataError(
            f"a context of {context:,} bases needs at least {context + 1:,} to train on and the data's {joined.size:,} "
            f"leave {train.size:,}; choose a context of at most {max(train.size - 1, 0):,} or give more DNA"
        )
    for name, codes in (("validation", validation), ("test", test)):
        if (known := int(np.count_nonzero(codes != UNKNOWN))) < LEAST_HELD_OUT_BASES:
            raise DataError(
                f"the {name} region (5 % of {joined.size:,} bases) holds {known:,} known bases and a score needs "
                f"{LEAST_HELD_OUT_BASES:,}; give more DNA"
            )
    separators = np.cumsum([record.codes.size + 1 for record in records], dtype=np.int64)[:-1] - 1
    inside = np.split(separators, np.searchsorted(separators, borders))
    return DnaSplit(train, validation, test, *(at - start for at, start in zip(inside, [0, *borders], strict=True)))


def documents(rows: Sequence[int], length: int, records: Starts) -> torch.Tensor | None:
    """The records in rows of inputs, for a model that takes them packed into one row, in which each stays by itself.

    Args:
        rows: at least one: for every row the index of its first input.
        length: inputs of a row.
        records: (m,) ascending: the indices at which a record begins.

    Returns:
        (S + 1,) int32 on the CPU: 0, where in the rows, one after the other, a row or a record begins, and their end; None
        where no row holds inputs of two records.
    """
    bounds: list[int] = []
    for number, first in enumerate(rows):
        inner = records[np.searchsorted(records, first + 1) : np.searchsorted(records, first + length)]
        bounds += [number * length, *(inner - first + number * length).tolist()]
    if len(bounds) == len(rows):
        return None
    return torch.tensor([*bounds, len(rows) * length], dtype=torch.int32)


class Windows:
    """Random windows of one stretch of DNA, with no state: the batch of a step follows from (seed, step, rank) alone.

    Every window with something to predict is equally likely; those whose targets are all N are never drawn, so that a
    loss has a denominator.
    """

    def __init__(
        self, codes: Codes, context: int, batch_size: int, seed: int = 0, rank: int = 0, records: Starts | None = None
    ) -> None:
        """
        Args:
            codes: (n,) uint8, 0…4 = A C G T N, n > context; kept, not copied.
            context: the number of inputs, and of targets, in a window, ≥ 1.
            batch_size: windows in a batch, ≥ 1.
            seed: ≥ 0; other seeds give other windows.
            rank: ≥ 0; the number of the process among those that train together, each of which draws its own windows.
            records: (m,) ascending indices of `codes` at which a record begins; none without it.

        Raises:
            ArgumentError: a number is out of range, or `codes` are not codes.
            DataError: no window fits, or all targets are N.
        """
        _check_context(context)
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("rank", rank, 0)):
            if value < least:
                raise ArgumentError(f"{name} must be at least {least} and {value} was given")
        if check_codes(codes).size < context + 1:
            raise DataError(
                f"a window of a context of {context:,} takes {context + 1:,} bases and there are {codes.size:,}; "
                f"choose a context of at most {max(codes.size - 1, 0):,} or give more DNA"
            )
        self.codes, self.context, self.batch_size = codes, context, batch_size
        self.seed, self.rank = seed, rank
        self.records = np.zeros(0, dtype=np.int64) if records is None else records
        # A window from `start` predicts start+1 … start+context: barren if those lie in one run of N.
        runs = unknown_runs(codes)
        runs = runs[runs[:, 1] - runs[:, 0] >= context]
        barren_first, barren_end = np.maximum(runs[:, 0] - 1, 0), runs[:, 1] - context
        # Fertile starts are the stretches between: numbered without gaps, stretch i begins with number _numbers[i].
        self._firsts = np.concatenate([[0], barren_end])
        sizes = np.concatenate([barren_first, [codes.size - context]]) - self._firsts
        self._numbers = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.count = int(sizes.sum())
        """How many different windows there are."""
        if not self.count:
            raise DataError(f"all {codes.size:,} bases to train on are N; give DNA with known bases")

    def batch(self, step: int, rows: slice = EVERY) -> torch.Tensor:
        """The windows of one step.

        Args:
            step: ≥ 0.
            rows: of the batch, those that are made.

        Returns:
            (batch_size, context + 1) uint8, 0…4, on the CPU: `[:, :-1]` are the inputs and `[:, 1:]` the targets.

        Raises:
            ArgumentError: a negative step.
        """
        return torch.from_numpy(np.stack([self.codes[start : start + self.context + 1] for start in self._starts(step)[rows]]))

    def documents(self, step: int, rows: slice = EVERY) -> torch.Tensor | None:
        """Where records begin in the inputs of a step's windows, as the function of this name returns it.

        Raises:
            ArgumentError: a negative step.
        """
        return documents(self._starts(step)[rows], self.context, self.records)

    def _starts(self, step: int) -> list[int]:
        if step < 0:
            raise ArgumentError(f"step must be at least 0 and {step} was given")
        # SeedSequence, unlike a Generator's methods, promises the same words in every NumPy version. Taking them modulo
        # a count below 2^33 favours no window by more than one part in 2^31.
        words = np.random.SeedSequence((self.seed, step, self.rank)).generate_state(self.batch_size, np.uint64)
        numbers = (words % np.uint64(self.count)).astype(np.int64)
        stretch = np.searchsorted(self._numbers, numbers, side="right") - 1
        starts: list[int] = (self._firsts[stretch] + numbers - self._numbers[stretch]).tolist()
        return starts


def evaluation_windows(codes: Codes, context: int, batch_size: int = 1) -> Iterator[torch.Tensor]:
    """Cut a stretch of DNA into consecutive windows in which every base is a target exactly once.

    The input before the first base is an N; every later window begins with the last target of the one before it, so a
    target sees between 1 and `context` inputs. Order is kept.

    Args:
        codes: (n,) uint8, 0…4 = A C G T N, n ≥ 1.
        context: the number of targets in a window, ≥ 1.
        batch_size: windows in a batch, ≥ 1.

    Returns:
        An iterator of (B, T + 1) uint8 on the CPU, `[:, :-1]` inputs and `[:, 1:]` targets: batches with T = context
        and B ≤ batch_size, then what is left as (1, T + 1) with T < context.

    Raises:
        ArgumentError: a number is out of range, or `codes` are not codes.
        DataError: no base.
    """
    _check_context(context)
    if batch_size < 1:
        raise ArgumentError(f"batch_size must be at least 1 and {batch_size} was given")
    if not check_codes(codes).size:
        raise DataError("there is no base to evaluate; give DNA with at least one")
    return _consecutive(codes, context, batch_size)


def _consecutive(codes: Codes, context: int, batch_size: int) -> Iterator[torch.Tensor]:
    with_start = np.concatenate([np.array([UNKNOWN], dtype=np.uint8), codes])
    whole = codes.size // context
    for first in range(0, whole, batch_size):
        count = min(batch_size, whole - first)
        begin = first * context
        stretch = with_start[begin : begin + count * context + 1]
        yield torch.from_numpy(np.lib.stride_tricks.sliding_window_view(stretch, context + 1)[::context].copy())
    if codes.size % context:
        yield torch.from_numpy(with_start[whole * context :].copy()[None])


def _check_context(context: int) -> None:
    if context < 1:
        raise ArgumentError(f"a context is at least 1 base and {context} was given")
