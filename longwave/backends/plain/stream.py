"""The working memory of a stream by `torch.fft`, on any device: overlap-save with delay lines of spectra, a level at a time.

A window is a block with the one before it, 2n samples; its product with the spectrum of n taps is right in the second half.
Work falls due at the end of a block and is not spread: this is the reference of a schedule, and what a device without an
engine runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave.planner import Level, Schedule

# Samples that memory is made for at first, where it grows.
FIRST_SAMPLES = 1024


class _Lines:
    """What one level holds: spectra of the filter's parts (·, ·, parts, F) and of the inputs' blocks (B, H, slots, F), and
    the outputs of three blocks (B, H, 3, n): the one before, the present and the next one."""

    def __init__(self, level: Level, k: Tensor) -> None:
        self.n, self.parts, self.slots = level.n, level.parts, level.slots
        taps = k[..., : self.parts * self.n]
        taps = F.pad(taps, (0, self.parts * self.n - taps.shape[-1])).unflatten(-1, (self.parts, self.n))
        self.S = self.transform(taps)
        self.X = self.S.new_empty(0)
        self.outputs = self.S.new_empty(0)

    def transform(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x, n=2 * self.n) if x.is_complex() else torch.fft.rfft(x, n=2 * self.n)

    def inverse(self, X: Tensor, is_complex: bool) -> Tensor:
        return (torch.fft.ifft(X) if is_complex else torch.fft.irfft(X, n=2 * self.n))[..., self.n :]


class Memory:
    """The inputs of a stream in a ring (B, H, samples), and what its levels hold."""

    def __init__(
        self, k: Tensor, D: Tensor | None, batch: int, channels: int, schedule: Schedule, ring: int, dtype: torch.dtype
    ) -> None:
        """`k` (G, K) or (B, H, K) in arithmetic precision, `D` (H,); `dtype` is that of inputs and results."""
        self.arithmetic = torch.promote_types(k.dtype, dtype) if dtype.is_complex else k.dtype
        k = k.to(self.arithmetic)
        k = k if k.dim() == 3 else k.unsqueeze(0)
        self.k = k if k.shape[1] in (1, channels) else k.repeat_interleave(channels // k.shape[1], dim=1)
        self.D = None if D is None else D.to(self.arithmetic).unsqueeze(-1)
        self.schedule, self.most = schedule, ring
        self.x = k.new_zeros(batch, channels, 0)
        self.levels = [_Lines(level, self.k) for level in schedule.levels]
        self.due_from = [0] * len(self.levels)

    @property
    def nbytes(self) -> int:
        held = [self.x, self.k, *(t for level in self.levels for t in (level.S, level.X, level.outputs))]
        return sum(t.numel() * t.element_size() for t in held)

    def reserve(self, clock: int) -> int:
        """Make memory for inputs before `clock`; until when it lasts."""
        B, H, held = self.x.shape
        if held < self.most and clock > held:
            samples = max(held, FIRST_SAMPLES)
            while samples < clock:
                samples *= 2
            self.x = F.pad(self.x, (0, min(samples, self.most) - held))
        last = self.x.shape[-1] if self.x.shape[-1] < self.most else None
        for level in self.levels:
            if clock >= level.n and level.X.numel() == 0:
                level.X = level.S.new_empty(B, H, level.slots, level.S.shape[-1])
                level.outputs = self.x.new_zeros(B, H, 3, level.n)
            if level.X.numel() == 0:
                last = level.n - 1 if last is None else min(last, level.n - 1)
        return 2**62 if last is None else last

    def forget(self) -> None:
        self.due_from = [0] * len(self.levels)

    def again(self, number: int, block: int) -> None:
        self.due_from[number] = block

    def load(self, clock: int, u: Tensor) -> None:
        """Inputs that end at `clock`, after zeros."""
        begin = clock - u.shape[-1]
        self.x[..., :begin] = 0
        self.x[..., begin:clock] = u

    def read(self, begin: int, end: int) -> Tensor:
        """Inputs; zeros before clock 0."""
        first, held = max(begin, 0), self.x.shape[-1]
        index = torch.arange(first, end, device=self.x.device) % max(held, 1)
        return F.pad(self.x[..., index], (first - begin, 0))

    def advance(self, clock: int, u: Tensor, y: Tensor) -> None:
        """Samples (B, H, d), not over a boundary of the first level, step by step."""
        d, direct = u.shape[-1], self.schedule.direct
        self._store(clock, u)
        windows = self.read(clock - direct + 1, clock + d).unfold(-1, direct, 1)
        out = (windows * self.k[..., :direct].flip(-1).unsqueeze(-2)).sum(-1)
        self._finish(clock, u, out, y, self.levels)

    def step(self, clock: int, u: Tensor, y: Tensor) -> None:
        self.advance(clock, u.unsqueeze(-1), y.unsqueeze(-1))

    def block(self, number: int, clock: int, u: Tensor, y: Tensor) -> None:
        """A whole block (B, H, n) of a level."""
        level = self.levels[number]
        self._store(clock, u)
        c = clock // level.n
        if c and self.due_from[number] <= c:
            self._transform(level, c - 1)
        self._transform(level, c)
        self.due_from[number] = c + 2
        self._finish(clock, u, self._outputs(level, c, 0), y, self.levels[number + 1 :])

    def rebuild(self, number: int, clock: int, transform: bool) -> None:
        """A level's outputs for a stream that stands at `clock`, and its delay line if `transform`."""
        level = self.levels[number]
        b = clock // level.n
        for c in range(max(0, b - level.parts), b if transform else 0):
            self._transform(level, c)
        for out in range(max(2, b), b + 2):
            level.outputs[..., out % 3, :] = self._outputs(level, out, 2)
        self.due_from[number] = b + 1

    def reorder(self, clock: int, rows: Tensor) -> None:
        self.x = self.x.index_select(0, rows)
        for level in self.levels:
            if level.X.numel():
                level.X, level.outputs = level.X.index_select(0, rows), level.outputs.index_select(0, rows)

    def _store(self, clock: int, u: Tensor) -> None:
        held = self.x.shape[-1]
        at = clock % held
        before_end = min(u.shape[-1], held - at)
        self.x[..., at : at + before_end] = u[..., :before_end]
        self.x[..., : u.shape[-1] - before_end] = u[..., before_end:]

    def _finish(self, clock: int, u: Tensor, out: Tensor, y: Tensor, levels: list[_Lines]) -> None:
        """Add what the levels have ready, and do what falls due."""
        for level in levels:
            b, q = divmod(clock, level.n)
            if b >= 2:
                out = out + level.outputs[..., b % 3, q : q + u.shape[-1]]
            if q == 0 and b >= max(1, self.due_from[self.levels.index(level)]):
                self._transform(level, b - 1)
                level.outputs[..., (b + 1) % 3, :] = self._outputs(level, b + 1, 2)
        y.copy_(out if self.D is None else out + self.D * u.to(self.arithmetic))

    def _transform(self, level: _Lines, c: int) -> None:
        level.X[..., c % level.slots, :] = level.transform(self.read((c - 1) * level.n, (c + 1) * level.n))

    def _outputs(self, level: _Lines, out: int, first: int) -> Tensor:
        """Of block `out`, under the parts from `first` on."""
        total = level.X.new_zeros(*level.X.shape[:2], level.X.shape[-1])
        for part in range(first, min(level.parts, out + 1)):
            total = total.addcmul(level.S[..., part, :], level.X[..., (out - part) % level.slots, :])
        return level.inverse(total, self.arithmetic.is_complex)
