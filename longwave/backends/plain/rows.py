"""Which rows are in flight together, and what of the tensors they have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.operands import Operands
from longwave.planner import Piece, Plan
from longwave.problem import Problem

# What the rows in flight may hold: on a CPU so little that the allocator hands out the same warm pages again (2 to 4 times
# as fast as all rows at once), on a GPU enough to fill it.
SCRATCH_BYTES = {"cpu": 2**26}
SCRATCH_BYTES_ELSEWHERE = 2**30


class Block(NamedTuple):
    """Rows that are in flight together: some samples, some channels, and the filter rows of these channels."""

    samples: slice
    channels: slice
    groups: slice

    @property
    def rows(self) -> tuple[slice, slice]:
        return self.samples, self.channels

    def of(self, given: Operands) -> Operands:
        """What they have of the signals."""
        around = (given.pregate, given.postgate, given.history)
        pregate, postgate, history = (None if x is None else x[self.rows] for x in around)
        return Operands(given.u[self.rows], given.k, given.D, pregate, postgate, history)

    def filter_rows(self, p: Problem) -> tuple[slice, ...]:
        return (self.samples, self.groups) if p.per_sample else (self.groups,)

    def filters(self, p: Problem, k: Tensor) -> Tensor:
        return k[self.filter_rows(p)].to(dtypes.filter_arithmetic(dtypes.named(p.dtype), k.dtype))


def channel_blocks(p: Problem, chosen: Plan) -> Iterator[list[Block]]:
    """For some channels at a time, their blocks of samples: what is made of a filter serves all of them."""
    repeats = p.channels // p.groups
    for h in range(0, p.channels, chosen.channels_in_flight):
        channels = slice(h, min(h + chosen.channels_in_flight, p.channels))
        groups = slice(channels.start // repeats, (channels.stop - 1) // repeats + 1)
        starts = range(0, p.batch, chosen.samples_in_flight)
        yield [Block(slice(b, min(b + chosen.samples_in_flight, p.batch)), channels, groups) for b in starts]


# Documents of one placement are rows of one batch, the shorter of them behind with zeros, which change nothing.
Run = Sequence[Piece]


def runs(p: Problem, found: Sequence[Piece], channels: int) -> list[Run]:
    """What is transformed together: what has the same placement, as long as the rows of so many channels stay small."""
    runs: list[Run] = []
    for at, pieces in itertools.groupby((piece for piece in found if not piece.at.empty), key=lambda piece: piece.at):
        same = tuple(pieces)
        together = max(1, scratch_bytes(p) // (channels * document_bytes(p, at.N)))
        runs += [same[i : i + together] for i in range(0, len(same), together)]
    return runs


def longest(run: Run) -> Piece:
    in_len = max(piece.in_slice.stop - piece.in_slice.start for piece in run)
    out_len = max(piece.out_slice.stop - piece.out_slice.start for piece in run)
    return Piece(slice(0, in_len), slice(0, out_len), run[0].at)


def inputs(run: Run, x: Tensor) -> Tensor:
    return _gathered(x, [piece.in_slice for piece in run])


def outputs(run: Run, y: Tensor) -> Tensor:
    return _gathered(y, [piece.out_slice for piece in run])


def _gathered(x: Tensor, places: Sequence[slice]) -> Tensor:
    """(B, C, ·) at one place, or (documents, C, ·) from the one packed row."""
    if len(places) == 1:
        return x[..., places[0]]
    rows = x.new_zeros(len(places), x.shape[1], max(place.stop - place.start for place in places))
    for row, place in zip(rows, places, strict=True):
        row[:, : place.stop - place.start] = x[0, :, place]
    return rows


def scatter(rows: Tensor, x: Tensor, places: Sequence[slice]) -> None:
    if len(places) == 1:
        x[..., places[0]] = rows
        return
    for row, place in zip(rows, places, strict=True):
        x[0, :, place] = row[:, : place.stop - place.start]


def document_bytes(p: Problem, N: int) -> int:
    """Of a row of a document in flight: its samples in and out of the transform, its spectrum, the product, and a copy."""
    itemsize = arithmetic(p).itemsize
    return 2 * N * itemsize + 3 * (itemsize * N if p.complex else 2 * itemsize * (N // 2 + 1))


def scratch_bytes(p: Problem) -> int:
    return SCRATCH_BYTES.get(p.device, SCRATCH_BYTES_ELSEWHERE)


def input_of(p: Problem, given: Operands) -> Tensor:
    """history | pregate · u, in arithmetic precision."""
    v = given.u.to(arithmetic(p))
    v = v if given.pregate is None else v * given.pregate
    return v if given.history is None else torch.cat([given.history.to(v.dtype), v], dim=-1)


def overlap(p: Problem) -> tuple[int, int]:
    """Where samples of v and of the result coincide: there D · v is added."""
    first = max(0, p.out_start)
    return first, max(first, min(p.in_len - p.history, p.out_start + p.out_len))


def arithmetic(p: Problem) -> torch.dtype:
    return dtypes.arithmetic(dtypes.named(p.dtype))
