"""The next base in rows of packed records: DNA of any size, of which only what a step reads is ever in memory."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from longwave.data import dna, markov
from longwave.data.codes import UNKNOWN, Codes
from longwave.data.examples import EVERY
from longwave.data.indexed import IndexedFasta
from longwave.data.packed import PackedRecords, PackedRow
from longwave.errors import DataError
from longwave.train.score import POSITIONS_AT_A_TIME
from longwave.train.task import IGNORE, Batch, Reads, Reference, Setting, Task

# What is read of a file to see that it is the same, to fit what models are compared with, and to test them, spread over it.
PROBES, PROBE_BASES = 256, 1_024
FITTED_BASES, TESTED_BASES = 1 << 23, 1 << 20


def packed_task(path: str, setting: Setting) -> Task:
    """The rows of a plain FASTA file: of all of them the first 90 % train, the next 5 % validate, the last 5 % test, with one
    between that is never read.

    Raises:
        DataError: the file cannot be read in the middle, or has too few rows.
    """
    fasta, context = IndexedFasta(path), setting.context
    bases = sum(record.bases for record in fasta.records)
    count = -(-bases // context)
    held_out = count // dna.HELD_OUT_SHARE
    if held_out < 2:
        raise DataError(
            f"{path} has {count:,} rows of {context:,} bases, and a twentieth of them must be at least 2; give more DNA, "
            "a smaller --context, or leave --packed out"
        )
    borders = count - 2 * held_out, count - held_out
    train = PackedRecords(fasta, context, seed=setting.seed, rows=range(borders[0]))
    validation = _spread(range(borders[0] + 1, borders[1]), setting.own["eval_bases"] // context)
    test = _spread(range(borders[1] + 1, count), TESTED_BASES // context)
    shown = {"source": path, "records": len(fasta.records), "bases": bases, "rows": count, "probed": _probed(fasta, path)}

    def batches(step: int, rows: slice = EVERY) -> Batch:
        first = step * setting.batch
        return _batch([_asking(train, place) for place in range(first, first + setting.batch)[rows]])

    def held_out_batches(rows: Sequence[int]) -> Iterator[Batch]:
        numbers = iter(rows)
        while some := list(itertools.islice(numbers, max(POSITIONS_AT_A_TIME // context, 1))):
            yield _batch([train.row(number) for number in some])

    def references() -> list[Reference]:
        known = _codes(train, _spread(train.rows, FITTED_BASES // context))
        tried, asked = (_codes(train, rows) for rows in (validation, test))
        best = markov.fit_best(known, tried)
        found = Reference("markov", f"Markov, order {best.order}", best.bits_per_base(asked), best.bits_per_base(tried))
        return [Reference("uniform", "uniform", 2.0, 2.0), found]

    return Task(
        reads=Reads(vocabulary=5, predicted=4, causal=True),
        classes=None,
        about=shown,
        batches=batches,
        validation=lambda: held_out_batches(validation),
        test=lambda: held_out_batches(test),
        references=references,
    )


def _spread(rows: range, most: int) -> range:
    """At most so many of the rows, and at least one, evenly spread."""
    return rows[:: -(-len(rows) // max(most, 1))]


def _asking(records: PackedRecords, place: int) -> PackedRow:
    """The row at this place of the random order; where that asks for nothing, the next one of that order that does.

    What follows in the file would be read again for every row of a long run of N.
    """
    for step in range(place, place + 2 * records.count):  # a whole epoch of them, wherever it begins
        row = records.batch(step)
        if (row.targets != UNKNOWN).any():
            return row
    raise DataError(f"all bases of {records.fasta.path} to train on are N; give DNA with known bases")


def _batch(rows: Sequence[PackedRow]) -> Batch:
    """Rows below each other, and where records begin in them, one row after the other."""
    inputs = torch.cat([row.tokens for row in rows])
    targets = torch.cat([row.targets for row in rows]).long()
    targets.masked_fill_(targets == UNKNOWN, IGNORE)
    length = inputs.shape[1]
    bounds = torch.cat([row.cu_seqlens[:-1] + number * length for number, row in enumerate(rows)])
    if len(bounds) == len(rows):
        return Batch(inputs, targets)
    return Batch(inputs, targets, torch.cat([bounds, torch.tensor([len(rows) * length])]).to(torch.int32))


def _codes(records: PackedRecords, rows: Sequence[int]) -> Codes:
    """The documents of rows with an N before each, as Markov models read them."""
    parts: list[Codes] = []
    for number in rows:
        row = records.row(number)
        for start, stop in itertools.pairwise(row.cu_seqlens.tolist()):
            parts += [np.array([UNKNOWN], dtype=np.uint8), row.tokens[0, start:stop].numpy()]
    return np.concatenate(parts)


def _probed(fasta: IndexedFasta, path: str) -> str:
    """A digest of the index and of bases here and there: to read a whole genome at every start would take minutes."""
    digest = hashlib.sha256(repr([record.bases for record in fasta.records]).encode())
    for number in _spread(range(len(fasta.records)), PROBES):
        bases = fasta.records[number].bases
        for start in _spread(range(0, bases, PROBE_BASES), max(PROBES // len(fasta.records), 1)):
            digest.update(fasta.read(number, start, min(start + PROBE_BASES, bases)).tobytes())
    return digest.hexdigest()
