"""`Timeline`: which part of a stream's memory is up to date, what is made again when, and how a chunk is cut into blocks."""

from __future__ import annotations

from torch import Tensor

from longwave.backends import StreamMemory
from longwave.planner import Schedule


class Timeline:
    """Where a stream's memory stands, on a clock that shows multiples of the largest block where a prompt ends.

    Attributes:
        clock: of the memory; its next sample's.
        ready: until when a step needs nothing but the memory's own.
    """

    def __init__(self, schedule: Schedule, memory: StreamMemory) -> None:
        self.schedule, self.memory = schedule, memory
        # What the clock shows at position 0, the furthest it has shown, and until when memory lasts.
        self.clock = self.ready = self._zero = self._high = self._lasts = 0
        # Of each level: whether its delay line, and its pending outputs, are those of `clock`; the block it was made for.
        self._has_spectra: list[bool] = []
        self._has_outputs: list[bool] = []
        self._since: list[int] = []
        self.begin(0, 0)

    @property
    def position(self) -> int:
        """Samples taken so far."""
        return self.clock - self._zero

    def begin(self, position: int, kept: int) -> None:
        """An empty stream; the clock then stands at a boundary of all blocks."""
        grain = self.schedule.grain
        self.clock = -(-kept // grain) * grain
        self._zero = self.clock - position
        self._high = self.clock
        fresh = self.clock == 0
        count = len(self.schedule.levels)
        self._has_spectra, self._has_outputs = [fresh] * count, [fresh] * count
        self._since = [0] * count
        self.memory.forget()
        self.ready = -1

    def fill(self, inputs: Tensor, position: int) -> None:
        """Stand at `position` after these last inputs, (B, H, ·)."""
        self.begin(position, inputs.shape[-1])
        self.reserve(self.clock)
        self.memory.load(self.clock, inputs)

    def reserve(self, clock: int) -> None:
        """Have memory for inputs before `clock`."""
        if clock > self._lasts:
            self._lasts = self.memory.reserve(clock)

    def last(self, count: int) -> Tensor:
        """The last inputs, (B, H, count) in arithmetic precision."""
        return self.memory.read(self.clock - count, self.clock)

    def take(self, u: Tensor, y: Tensor) -> None:
        """A chunk (B, H, T), to y."""
        for begin, end, level in self._pieces(u.shape[-1]):
            self._piece(u[..., begin:end], y[..., begin:end], level)

    def prepare_step(self, max_length: int | None) -> None:
        """Whatever a step needs beside its own work, and until when nothing more is needed."""
        self.reserve(self.clock + 1)
        self.ready = self._lasts if max_length is None else min(self._lasts, self._zero + max_length)
        self._refresh(0, True)

    def go_back(self, n: int) -> None:
        """By n samples, whose inputs are still there."""
        self._high = max(self._high, self.clock)
        self.clock -= n
        for i, level in enumerate(self.schedule.levels):
            here, there = self.clock // level.n, self._high // level.n
            if here == there:
                continue
            # Outputs of the block before are still there, and its delay line; the work of the later block is to be done again.
            self._has_spectra[i] = self._has_spectra[i] and here == there - 1
            self._has_outputs[i] = self._has_outputs[i] and here == there - 1 and here >= self._since[i]
            self.memory.again(i, there)
        self.ready = -1

    def _pieces(self, T: int) -> list[tuple[int, int, int]]:
        """(begin, end, level) of a chunk's pieces: whole blocks of the largest level that fit where they begin, or, with level
        -1, some samples inside a block of the first one."""
        found, a = [], 0
        first = self.schedule.levels[0].n if self.schedule.levels else T
        while a < T:
            clock = self.clock + a
            number = -1
            for i, level in enumerate(self.schedule.levels):
                if clock % level.n == 0 and level.n <= T - a:
                    number = i
            end = a + (self.schedule.levels[number].n if number >= 0 else min(T - a, first - clock % first))
            found.append((a, end, number))
            a = end
        return found

    def _piece(self, u: Tensor, y: Tensor, level: int) -> None:
        self.ready = -1
        d = u.shape[-1]
        self.reserve(self.clock + d)
        self._refresh(max(level, 0), level < 0)
        if level < 0:
            self.memory.advance(self.clock, u, y)
        else:
            self.memory.block(level, self.clock, u, y)
            for i in range(level):
                self._has_spectra[i] = self._has_outputs[i] = False
            self._has_outputs[level] = False
        self.clock += d

    def _refresh(self, first: int, outputs: bool) -> None:
        """Make what levels from `first` on lack: the delay line of each, pending outputs of all but, without `outputs`, the
        first of them."""
        for i in range(first, len(self.schedule.levels)):
            wants_outputs = outputs or i > first
            if self._has_spectra[i] and (self._has_outputs[i] or not wants_outputs):
                continue
            self.memory.rebuild(i, self.clock, not self._has_spectra[i])
            self._has_spectra[i] = self._has_outputs[i] = True
            self._since[i] = self.clock // self.schedule.levels[i].n
