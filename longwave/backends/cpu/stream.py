"""The working memory of a stream on the engine: tiles of W rows (b, h), one call of a kernel a step."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import pages, threads
from longwave.backends.cpu import stream_kernels as kernels
from longwave.backends.cpu.launches import base
from longwave.backends.cpu.program import CODE, Program, address
from longwave.backends.cpu.simd import vector_bytes
from longwave.backends.cpu.stream_steps import GROUP, QUAD
from longwave.backends.cpu.tables import tables
from longwave.planner import Level, Schedule

# Samples, and slots of a delay line, that memory is made for at first, where it grows.
FIRST_SAMPLES, FIRST_SLOTS = 1024, 4
# The words that change with every call: those before the ring's.
HEAD = struct.Struct(f"={kernels.RING}q")
# Products of spectra that are added up at a time read so many bytes: about 0.1 ms.
PIECE_BYTES = 2**20
# Guesses that decide whether a call is worth waking threads: bytes a second of one of them, seconds a transform's number.
BYTES_A_SECOND, SECONDS_A_POINT, SECONDS_A_ROW = 10e9, 0.5e-9, 0.3e-6


def _made(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory whose pages are there: the step that first touched one would wait for it, a large one for milliseconds."""
    return pages.with_large_pages(torch.empty(shape, dtype=dtype)).zero_()


class _Lines:
    """What one level holds, a tile each: spectra of the filters and of the inputs, blocks of QUAD frequencies with their parts
    (or slots) side by side, pending outputs of three blocks, the sums in progress where a tile's work is in pieces, and
    those of the later blocks of a group."""

    def __init__(self, level: Level, filters: int, arithmetic: torch.dtype, like: Any) -> None:
        self.n, self.parts, self.slots = level.n, level.parts, level.slots
        self.W = vector_bytes() // arithmetic.itemsize
        self.S = _made((filters, self.n // QUAD, self.parts, QUAD, 2, self.W), arithmetic)
        self.X = self.S.new_empty(0)
        self.outputs, self.sums, self.later = (self.S.new_empty(0) for _ in range(3))
        # The block that would follow on the last whole one, if nothing has come in between.
        self.next_whole = -1
        read = 2 * self.parts * self.n * 2 * vector_bytes()
        pieces = -(-read // PIECE_BYTES)
        self.jobs = 1 if pieces == 1 else pieces + 2
        self.block = Program(tables(self.n, dtypes.name(arithmetic), self.n), base(self.n), like).block()
        self.program = self.block.filled(())
        self.seconds = read / BYTES_A_SECOND + self.n * 2 * self.W * SECONDS_A_POINT * 4

    @property
    def held(self) -> list[Tensor]:
        return [self.X, self.outputs, self.sums, self.later]

    def reserve(self, clock: int, tiles: int) -> bool:
        """Memory for blocks that begin before `clock`; whether something has moved."""
        if clock < self.n:
            return False
        wanted = FIRST_SLOTS if self.X.numel() == 0 else self.X.shape[2]
        while wanted * self.n < clock and wanted < self.slots:
            wanted *= 2
        wanted = min(wanted, self.slots)
        if self.X.numel() and wanted == self.X.shape[2]:
            return False
        if self.X.numel() == 0:
            self.outputs = _made((tiles, 3, self.n, self.W), self.S.dtype)
            self.later = _made((tiles, GROUP - 1, self.n, 2, self.W), self.S.dtype)
            if self.jobs > 1:
                self.sums = _made((tiles, self.n, 2, self.W), self.S.dtype)
        X = _made((tiles, self.n // QUAD, wanted, QUAD, 2, self.W), self.S.dtype)
        if self.X.numel():
            X[:, :, : self.X.shape[2]] = self.X
        self.X = X
        return True

    @property
    def lasts(self) -> int | None:
        """Until when the memory lasts, or None for good."""
        if self.X.numel() == 0:
            return self.n - 1
        return None if self.X.shape[2] == self.slots else self.X.shape[2] * self.n


class Memory:
    """The inputs of a stream in a ring (tiles, samples, W), what its levels hold, and the words of their kernel."""

    def __init__(
        self, k: Tensor, D: Tensor | None, batch: int, channels: int, schedule: Schedule, ring: int, dtype: torch.dtype
    ) -> None:
        self.arithmetic, self.dtype = k.dtype, dtype
        self.like: Any = np.float64(1) if k.dtype == torch.float64 else np.float32(1)
        self.W = W = vector_bytes() // k.dtype.itemsize
        self.batch, self.channels, self.schedule, self.most = batch, channels, schedule, ring
        # Few channels leave lanes idle: there a tile has rows of all samples.
        self.mixed = batch > 1 and channels < W
        self.per_sample = -(-(batch * channels if self.mixed else channels) // W)
        self.tiles = self.per_sample if self.mixed else batch * self.per_sample
        h, b = self._rows()
        rows = b * channels + h if k.dim() == 3 else h // (channels // k.shape[0])
        filter_rows, filters = np.unique(rows, axis=0, return_inverse=True)
        self.k = k.contiguous().view(-1, k.shape[-1])
        self.filter_rows, self.filters = np.ascontiguousarray(filter_rows), np.ascontiguousarray(filters.reshape(-1))
        taps = self.k[torch.from_numpy(self.filter_rows), : schedule.direct]
        self.taps = taps.transpose(1, 2).contiguous()
        self.D = None if D is None else D[torch.from_numpy(h)].contiguous()
        self.zeros = torch.zeros(W, dtype=k.dtype)
        self.x = self.taps.new_empty(self.tiles, 0, W)
        self.levels = [_Lines(level, len(filter_rows), k.dtype, self.like) for level in schedule.levels]
        self.scratch_bytes = kernels.scratch_bytes(schedule.grain)
        self.words = np.zeros(kernels.HEADER + len(self.levels) * kernels.LEVEL_WORDS, dtype=np.int64)
        self.bytes, self.code = self.words.data.cast("B"), CODE[dtype]
        self.step_seconds = self.tiles * (SECONDS_A_ROW + schedule.direct * 2 * vector_bytes() / BYTES_A_SECOND)
        self._write()
        self._make_spectra()
        self.forget()

    def _rows(self) -> tuple[Any, Any]:
        """The channel and the sample of every lane of every tile."""
        tile, lane = np.meshgrid(np.arange(self.tiles), np.arange(self.W), indexing="ij")
        row = tile % self.per_sample * self.W + lane
        if self.mixed:
            row = np.minimum(row, self.batch * self.channels - 1)
            return row % self.channels, row // self.channels
        return np.minimum(row, self.channels - 1), tile // self.per_sample

    def _write(self) -> None:
        """All addresses, after something has moved."""
        w = self.words
        self.address = w.ctypes.data
        w[kernels.RING], w[kernels.RING_ROWS] = self.x.data_ptr(), max(1, self.x.shape[1])
        w[kernels.TAPS], w[kernels.DIRECT] = self.taps.data_ptr(), self.schedule.direct
        w[kernels.D], w[kernels.ZEROS] = 0 if self.D is None else self.D.data_ptr(), self.zeros.data_ptr()
        w[kernels.TILES], w[kernels.PER_SAMPLE] = self.tiles, self.per_sample
        w[kernels.ROWS] = self.batch * self.channels if self.mixed else self.channels
        w[kernels.CHANNELS] = self.channels if self.mixed else 0
        w[kernels.FILTERS], w[kernels.FILTER_ROWS] = self.filters.ctypes.data, self.filter_rows.ctypes.data
        w[kernels.ALL_TAPS], w[kernels.LEVEL_COUNT] = self.k.shape[1], len(self.levels)
        for number, level in enumerate(self.levels):
            at = kernels.HEADER + number * kernels.LEVEL_WORDS
            held = (level.S, level.X, level.outputs, level.sums, level.later)
            pointers = [0 if t.numel() == 0 else t.data_ptr() for t in held]
            slots = level.X.shape[2] if level.X.numel() else level.slots
            w[at : at + kernels.DUE] = [level.n.bit_length() - 1, level.parts, slots, *pointers, level.jobs]
            w[at + kernels.PROGRAM] = address(level.program)

    def _make_spectra(self) -> None:
        k = self.k.view(1, *self.k.shape)
        for number, level in enumerate(self.levels):
            count = len(self.filter_rows)
            self._run(kernels.SPECTRA, level.seconds * count, level=number, x=k, units=count)

    @property
    def nbytes(self) -> int:
        held = [self.x, self.k, self.taps, *(t for level in self.levels for t in (level.S, *level.held))]
        return sum(t.numel() * t.element_size() for t in held)

    def _tell(self, number: int, **words: int) -> None:
        """Write words of a level, by their names in stream_kernels.py."""
        for name, value in words.items():
            self.words[kernels.HEADER + number * kernels.LEVEL_WORDS + getattr(kernels, name)] = value

    def forget(self) -> None:
        for number, level in enumerate(self.levels):
            self._tell(number, DUE=0, GROUPED=2, GROUPED_WHOLE=0)
            level.next_whole = -1

    def again(self, number: int, block: int) -> None:
        self._tell(number, DUE=block)

    def reserve(self, clock: int) -> int:
        held, moved = self.x.shape[1], False
        if held < self.most and clock > held:
            samples = max(held, FIRST_SAMPLES)
            while samples < clock:
                samples *= 2
            x = _made((self.tiles, min(samples, self.most), self.W), self.arithmetic)
            x[:, :held] = self.x
            self.x, moved = x, True
        for level in self.levels:
            moved = level.reserve(clock, self.tiles) or moved
        if moved:
            self._write()
        lasts = [None if self.x.shape[1] == self.most else self.x.shape[1], *(level.lasts for level in self.levels)]
        return min((end for end in lasts if end is not None), default=2**62)

    def load(self, clock: int, u: Tensor) -> None:
        begin = clock - u.shape[-1]
        self.x[:, :begin] = 0
        self._run(kernels.LOAD, self.tiles * u.shape[-1] * 1e-9 * self.W, clock=begin, count=u.shape[-1], x=u)

    def read(self, begin: int, end: int) -> Tensor:
        y = torch.empty(self.batch, self.channels, end - begin, dtype=self.arithmetic)
        y[..., : max(0, -begin)] = 0
        first = max(begin, 0)
        while first < end:
            count = min(end - first, self.x.shape[1] - first % self.x.shape[1])
            part = y[..., first - begin : first - begin + count]
            self._run(kernels.READ, self.tiles * count * 1e-9 * self.W, clock=first, count=count, y=part)
            first += count
        return y

    def step(self, clock: int, u: Tensor, y: Tensor) -> None:
        size = self.dtype.itemsize
        (sb, sh), (yb, yh) = u.stride(), y.stride()
        HEAD.pack_into(
            self.bytes, 0, kernels.ADVANCE, 0, clock, clock % self.x.shape[1], 1, 0,
            u.data_ptr(), sb * size, sh * size, size, self.code,
            y.data_ptr(), yb * size, yh * size, size, self.code,
        )  # fmt: skip
        threads.run(kernels.stream, self.address, self.like, self.tiles, self.step_seconds, self.scratch_bytes)

    def advance(self, clock: int, u: Tensor, y: Tensor) -> None:
        count = u.shape[-1]
        self._run(kernels.ADVANCE, count * self.step_seconds, clock=clock, count=count, x=u, y=y)

    def block(self, number: int, clock: int, u: Tensor, y: Tensor) -> None:
        level = self.levels[number]
        c = clock // level.n
        if c != level.next_whole:  # a group that began earlier is another's
            self._tell(number, GROUPED_WHOLE=c)
        level.next_whole = c + 1
        seconds = level.seconds + sum(above.seconds * level.n / above.n for above in self.levels[number + 1 :])
        self._run(kernels.BLOCK, self.tiles * seconds, level=number, clock=clock, x=u, y=y)
        self._tell(number, DUE=c + 2)

    def rebuild(self, number: int, clock: int, transform: bool) -> None:
        level = self.levels[number]
        b = clock // level.n
        level.next_whole = -1
        if b:
            self._run(kernels.REBUILD, 3 * level.seconds * self.tiles, level=number, clock=clock, anew=int(transform))
        self._tell(number, DUE=b + 1, GROUPED=b + 2)

    def reorder(self, clock: int, rows: Tensor) -> None:
        # What falls due in the present blocks is done for some tiles and not for others: a row must not change from one of
        # them to another in between.
        for number, level in enumerate(self.levels):
            due = self.words[kernels.HEADER + number * kernels.LEVEL_WORDS + kernels.DUE]
            if clock >= level.n and due <= clock // level.n:
                begin = clock // level.n * level.n
                self._run(kernels.FINISH, level.seconds * self.tiles, level=number, clock=begin)
                self._tell(number, DUE=clock // level.n + 1)
        self.x = self._reordered(self.x, rows)
        for level in self.levels:
            held = (self._reordered(t, rows) if t.numel() else t for t in level.held)
            level.X, level.outputs, level.sums, level.later = held
        self._write()

    def _reordered(self, x: Tensor, rows: Tensor) -> Tensor:
        if not self.mixed:
            return x.unflatten(0, (self.batch, self.per_sample)).index_select(0, rows).flatten(0, 1)
        h, b = (torch.from_numpy(index) for index in self._rows())
        place = (rows[b] * self.channels + h).flatten()
        lanes = x.movedim(-1, 1).flatten(0, 1).index_select(0, place)
        return lanes.unflatten(0, (self.tiles, self.W)).movedim(1, -1).contiguous()

    def _run(
        self, op: int, seconds: float, *, level: int = 0, clock: int = 0, count: int = 0, anew: int = 0,
        x: Tensor | None = None, y: Tensor | None = None, units: int | None = None,
    ) -> None:  # fmt: skip
        # All words at once: by one each they would take as long as a small kernel.
        HEAD.pack_into(self.bytes, 0, op, level, clock, clock % max(1, self.x.shape[1]), count, anew, *_place(x), *_place(y))
        threads.run(kernels.stream, self.address, self.like, units or self.tiles, seconds, self.scratch_bytes)


def _place(x: Tensor | None) -> tuple[int, ...]:
    """Where a tensor (B, H, ·) is."""
    if x is None:
        return (0,) * 5
    size, (b, h, t) = x.element_size(), x.stride()
    return x.data_ptr(), size * b, size * h, size * t, CODE[x.dtype]
