"""What a kernel is told: one block of 64-bit integers, with the places of everything in it.

header      sizes and addresses of tables
levels      (rows n of a block, radix, address of its twiddles) a pass, outermost first
lists       (first segment, number of segments, planes in use) for each kind of move
views       tensors as addresses and strides in bytes, all of the shape (B, H, ·)
segments    runs of samples that a move is made of
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longwave.backends.cpu.ring import Segment
from longwave.backends.cpu.simd import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from longwave.backends.cpu.tables import Tables

INT = 8  # bytes
# The longest row that is asked for before its turn: W of them fill half of a second-level cache of 512 KiB.
AHEAD_BYTES = 2**15
CODE = {torch.float64: FLOAT64, torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}

# The header, in integers from the start.
N, DEPTH, BASE, CHANNELS, ROWS, BATCH, CHUNKS, WEIGHTS, SCALED, VIEW_COUNT, AHEAD, AHEAD_LINES = range(12)
LEVEL_WORDS, LIST_WORDS, VIEW_WORDS, SEGMENT_WORDS = 3, 3, 6, 8
LEVELS = 16
LISTS = LEVELS + 48 * LEVEL_WORDS
# The lists.
TAPS, INPUT, OUTPUT, DZ, DX, DPOSTGATE, DK = range(7)
VIEWS = LISTS + 8 * LIST_WORDS
MAX_VIEWS, MAX_SEGMENTS = 16, 16  # of a list
SEGMENTS = VIEWS + MAX_VIEWS * VIEW_WORDS
# Words of a view: address, strides in bytes, stored type, neighbouring channels that share a row.
ADDRESS, STRIDE_B, STRIDE_H, STRIDE_T, STORED, REPEATS = range(VIEW_WORDS)
# Words of a segment.
VIEW, GATE, FIRST, COUNT, PLANE, ROW, SIGN, ADD = range(SEGMENT_WORDS)


class Move(NamedTuple):
    """Samples of a tensor (times those of a gate) that enter or leave the ring in segments; `add` onto what is there."""

    x: Tensor
    gate: Tensor | None
    segments: Sequence[Segment]
    repeats: int = 1
    add: bool = False


class Program:
    """The block of integers for a kernel; keeps what it points to alive."""

    def __init__(self, tables: Tables, base: int, channels: int, rows: int, batch: int, chunks: int) -> None:
        self.tables = tables
        self.keep: list[Any] = [tables]
        self.views: dict[tuple[int, ...], int] = {}
        self.segments: list[int] = []
        self.words = [0] * SEGMENTS
        self.words[:VIEW_COUNT] = [
            tables.N, len(tables.radices), base, channels, rows, batch, chunks, tables.weights.ctypes.data,
            tables.scaled_weights.ctypes.data,
        ]  # fmt: skip
        n = tables.N
        for level, r in enumerate(tables.radices):
            twiddles = tables.twiddles[level].ctypes.data if level < len(tables.twiddles) else 0
            at = LEVELS + level * LEVEL_WORDS
            self.words[at : at + LEVEL_WORDS] = [n, r, twiddles]
            n //= r

    def move(self, which: int, moves: Iterable[Move]) -> None:
        """Fill one of the lists."""
        first = len(self.segments) // SEGMENT_WORDS
        planes = 1
        for move in moves:
            x = self._view(move.x, move.repeats)
            gate = -1 if move.gate is None else self._view(move.gate, 1)
            for s in move.segments:
                planes = max(planes, s.plane + 1)
                self.segments += [x, gate, s.i, s.length, s.plane, s.row, s.sign, int(move.add)]
        count = len(self.segments) // SEGMENT_WORDS - first
        at = LISTS + which * LIST_WORDS
        self.words[at : at + LIST_WORDS] = [first, count, planes]

    def stream(self, x: Tensor, samples: int) -> None:
        """Say that x is read by the sample, `samples` of every row, so that the next rows can be brought before their turn."""
        base, view = self.words[BASE], self._view(x, 1)
        row_bytes, row_stride = samples * x.element_size(), self.words[VIEWS + view * VIEW_WORDS + STRIDE_T]
        # Bursts of requests stand between the passes inside a block of the walk; what a cache cannot hold is not asked for.
        passes = (
            sum(n <= base for n in itertools.accumulate(self.tables.radices[:-2], operator.floordiv, initial=self.tables.N)) - 1
        )
        bursts = 2 * passes * (self.tables.N // base)
        if row_stride == x.element_size() and bursts > 0 and row_bytes <= AHEAD_BYTES:
            self.words[AHEAD], self.words[AHEAD_LINES] = view, -(-row_bytes // (64 * bursts))

    def block(self) -> Any:
        """The finished block, as an array that must live while the kernel runs."""
        self.words[VIEW_COUNT] = len(self.views)
        return np.array(self.words + self.segments, dtype=np.int64)

    def _view(self, x: Tensor, repeats: int) -> int:
        """The number of a (B, H, ·) tensor's view; one of two dimensions, or with B = 1, is the same for the whole batch."""
        size = x.element_size()
        *batch, h, t = (0 if length == 1 else size * stride for length, stride in zip(x.shape, x.stride(), strict=True))
        view = (x.data_ptr(), batch[0] if batch else 0, h, t, CODE[x.dtype], repeats)
        if view not in self.views:
            at = VIEWS + len(self.views) * VIEW_WORDS
            self.words[at : at + VIEW_WORDS] = view
            self.views[view] = len(self.views)
            self.keep.append(x)
        return self.views[view]
