"""Records of an indexed FASTA file, packed into rows of one length: shards without overlap, any step at once.

All records stand behind each other, and every `length` bases of them are a row, whatever begins or ends in it; `cu_seqlens`
says where. The rows of an epoch are dealt out in a random order that is a function of (seed, epoch): what a rank reads at a
step follows from (seed, step, rank, ranks) alone, and no row comes twice in an epoch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from longwave.data.codes import UNKNOWN
from longwave.data.indexed import IndexedFasta
from longwave.errors import ArgumentError

_ROUNDS = 6


class PackedRow(NamedTuple):
    """A row of bases.

    Attributes:
        tokens: (1, length) uint8, 0…4 = A C G T N.
        targets: (1, length) uint8: the base that follows each; N, which is never predicted, where a record ends.
        cu_seqlens: (S + 1,) int32: where records begin in the row, and its end.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    cu_seqlens: torch.Tensor


class PackedRecords:
    """The rows of a file, as rank `rank` of `ranks` reads them.

    Args:
        fasta: where the bases are.
        length: bases in a row, at least 1; the last row of the file is filled up with N.
        seed: at least 0; other seeds give other orders.
        rank, ranks: those that train on different rows. Ranks that share a sequence are one here.
        rows: of the file, those that are read; all of them when not given.

    Attributes:
        rows: as above.
        count: rows of an epoch.

    Raises:
        ArgumentError: a number is out of range.
    """

    def __init__(
        self,
        fasta: IndexedFasta,
        length: int,
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        rows: range | None = None,
    ) -> None:
        if length < 1 or seed < 0 or not 0 <= rank < ranks:
            raise ArgumentError(
                f"packed rows need length >= 1, seed >= 0 and 0 <= rank < ranks, but got {length}, {seed}, {rank} and {ranks}"
            )
        self.fasta, self.length, self.seed, self.rank, self.ranks = fasta, length, seed, rank, ranks
        bases = np.array([record.bases for record in fasta.records], dtype=np.int64)
        self._ends = np.cumsum(bases)
        whole = range(int(-(-self._ends[-1] // length)))
        self.rows = whole if rows is None else rows
        self.count = len(self.rows)
        if not self.count or self.rows[0] not in whole or self.rows[-1] not in whole:
            raise ArgumentError(f"packed rows {self.rows} were asked for and the file has {len(whole):,}; the first is 0")

    def row_number(self, step: int) -> int:
        """Which row of the file this rank reads at a step. Raises ArgumentError for a negative step."""
        if step < 0:
            raise ArgumentError(f"step must be at least 0 and {step} was given")
        epoch, place = divmod(step * self.ranks + self.rank, self.count)
        return self.rows[_permuted(place, self.count, self.seed, epoch)]

    def batch(self, step: int) -> PackedRow:
        """The row of a step.

        Raises:
            ArgumentError: a negative step.
            DataError: the file holds something else than DNA there.
        """
        return self.row(self.row_number(step))

    def row(self, number: int) -> PackedRow:
        """The row of the file with this number. Raises DataError where the file holds something else than DNA there."""
        first = number * self.length
        tokens = np.full(self.length, UNKNOWN, dtype=np.uint8)
        targets = tokens.copy()
        bounds, at = [0], 0
        while at < self.length and first + at < self._ends[-1]:
            record = int(np.searchsorted(self._ends, first + at, side="right"))
            bases = self.fasta.records[record].bases
            start = first + at - (int(self._ends[record]) - bases)
            count = min(bases - start, self.length - at)
            codes = self.fasta.read(record, start, min(start + count + 1, bases))
            tokens[at : at + count] = codes[:count]
            targets[at : at + len(codes) - 1] = codes[1:]
            at += count
            bounds.append(at)
        if bounds[-1] < self.length:
            bounds.append(self.length)
        row = torch.from_numpy(np.stack([tokens, targets])).unsqueeze(1)
        return PackedRow(row[0], row[1], torch.tensor(bounds, dtype=torch.int32))


def _permuted(place: int, count: int, seed: int, epoch: int) -> int:
    """A permutation of 0 … count - 1 without a table: a Feistel network over the next power of four, walked until it is inside
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains")."""
    half = max(1, -(-(count - 1).bit_length() // 2))
    keys = np.random.SeedSequence((seed, epoch)).generate_state(_ROUNDS, np.uint64).tolist()
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            mixed = (right * 0x9E3779B97F4A7C15 + key) % 2**64
            mixed = ((mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9) % 2**64
            left, right = right, left ^ ((mixed >> 33) & mask)
        place = left << half | right
        if place < count:
            return place
