"""How: from a Problem to a Plan, in integers only.

A `Placement` says how one stretch of samples becomes a cyclic convolution of length N; a `Plan` adds the backend's choice
of algorithm and how much it holds in memory at a time. Plans are frozen, cached, and print themselves.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

from longwave.lengths import mask_grid as mask_grid
from longwave.lengths import next_fast_len as next_fast_len
from longwave.problem import Problem


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """One stretch of samples as a cyclic convolution of length N.

    Input sample j of the stretch stands at `in_at + j`, output sample j at `out_at + j`. The taps
    [tap_start, tap_stop) stand at their lag modulo N, the first of them, in order of rising lag, at `lag`; taps outside
    reach no output from any input and are left out. A circular placement (`period` > 0) first folds all taps to the period.
    """

    N: int
    in_at: int
    out_at: int
    tap_start: int
    tap_stop: int
    lag: int
    period: int = 0

    @property
    def empty(self) -> bool:
        """No tap connects any input to any output: the convolution is zero."""
        return self.tap_stop <= self.tap_start


NOTHING = Placement(1, 0, 0, 0, 0, 0)


@lru_cache(maxsize=65536)
def place(in_start: int, in_len: int, out_start: int, out_len: int, lag_lo: int, lag_hi: int, circular: bool) -> Placement:
    """The smallest fast cyclic convolution that is exact for these windows of input, output and lags.

    A cyclic result is exact where no lag that occurs equals, modulo N, another difference between an output and an input.
    With those differences in [a, b] and the lags in [lo, hi], that is N > b - lo and N > hi - a.
    """
    if circular:
        L = in_len
        fast = next_fast_len(L) == L
        # An awkward period becomes the linear convolution with the lags -(L-1) … L-1, which N >= 2L - 1 holds.
        return Placement(L if fast else next_fast_len(2 * L - 1), 0, 0, 0, lag_hi - lag_lo + 1, lag_lo % L, period=L)
    in_end, out_end = in_start + in_len, out_start + out_len
    a, b = out_start - in_end + 1, out_end - 1 - in_start
    lo, hi = max(lag_lo, a), min(lag_hi, b)
    if lo > hi:
        return NOTHING
    origin = min(in_start, out_start)
    N = next_fast_len(max(b - lo + 1, hi - a + 1, max(in_end, out_end) - origin))
    return Placement(N, in_start - origin, out_start - origin, lo - lag_lo, hi - lag_lo + 1, lo)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the packed input and output that is convolved apart, and how it is placed."""

    in_slice: slice
    out_slice: slice
    at: Placement


def pieces(problem: Problem) -> tuple[Piece, ...]:
    """The whole problem as one piece, or one piece a document that is not empty; documents of one placement follow each
    other, so that they can share the filters' spectrum."""
    p = problem
    lo, hi = p.lags
    if p.segments is None:
        at = place(p.in_start, p.in_len, p.out_start, p.out_len, lo, hi, p.circular)
        return (Piece(slice(0, p.in_len), slice(0, p.out_len), at),)
    found = []
    for i, (a, b) in enumerate(itertools.pairwise(p.segments)):
        first = i == 0  # what lies before the packed row belongs to the first document
        in_a, out_a = (p.in_start, p.out_start) if first else (a, a)
        if b == out_a:
            continue
        at = place(in_a - a, b - in_a, out_a - a, b - out_a, lo, hi, p.circular) if b > in_a else NOTHING
        found.append(Piece(slice(in_a - p.in_start, b - p.in_start), slice(out_a - p.out_start, b - p.out_start), at))
    return tuple(sorted(found, key=lambda piece: piece.at))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a backend will run a Problem. `print(plan)` explains it. `backward_bytes`: what a backward for the gradients of
    every argument allocates, those gradients included."""

    backend: str
    algorithm: str
    N: int
    samples_in_flight: int
    channels_in_flight: int
    scratch_bytes: int
    result_bytes: int
    backward_bytes: int
    flop: float
    predicted_ms: float | None
    predicted_for: str
    problem: Problem
    why: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What the call allocates: the result and the scratch memory beside it."""
        return self.result_bytes + self.scratch_bytes

    def __str__(self) -> str:
        p = self.problem
        lo, hi = p.lags
        filters = f"{p.groups:,} filter{'s' * (p.groups > 1)}" + (" a sample" if p.per_sample else "")
        parts = [name for name in ("skip", "pregate", "postgate") if getattr(p, name)]
        if p.history:
            parts.append(f"history of {p.history:,}")
        if p.segments is not None:
            parts.append(f"{len(p.segments) - 1:,} documents")
        if p.mask is not None:
            parts.append(repr(p.mask))
        lines = [
            f"long convolution of B={p.batch} H={p.channels} L={p.in_len - p.history:,} ({p.dtype}, {p.device}) "
            f"with {filters} of {p.taps:,} lags ({p.filter_dtype})",
            f"  asked      lags {lo:,} … {hi:,}{' (circular)' if p.circular else ''}, output {p.out_start:,} … "
            f"{p.out_start + p.out_len - 1:,}{', with ' + ', '.join(parts) if parts else ''}",
            f"  backend    {self.backend}",
            *(f"             {reason}" for reason in self.why),
            f"  algorithm  {self.algorithm}" + (f", N = {self.N:,}" if self.N else ""),
            f"  in flight  {self.samples_in_flight} of {p.batch} samples × {self.channels_in_flight} of {p.channels} channels",
            f"  memory     {size(self.result_bytes)} result + {size(self.scratch_bytes)} scratch; "
            f"{size(self.backward_bytes)} for a backward of everything",
            f"  work       {self.flop / 1e9:.3g} Gflop",
        ]
        if self.predicted_ms is not None:
            lines.append(f"  predicted  {self.predicted_ms:.3g} ms forward ({self.predicted_for})")
        return "\n".join(lines)


def size(count: int) -> str:
    """A number of bytes, to be read."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


# Streams: samples that come one by one, or some at a time, under a filter that is longer than they are.

# The block of the first level, and how many times larger each level's is than the one before. Powers of two.
FIRST_BLOCK, RATIO = 64, 4
# The largest block: what is done for one tile of channels at a time must be short beside a step.
LARGEST_BLOCK = 16_384
# Parts of the filter that the last level may have before there is another: reading their spectra costs memory traffic.
MOST_PARTS = 16


@dataclass(frozen=True, slots=True)
class Level:
    """Blocks of `n` samples, and `parts` of n taps each, from lag 0 on, whose spectra are kept.

    Step by step it serves the lags from 2n on, since n steps pass between the end of a block and the first output that
    needs it; a whole block of inputs at a time may use all of its parts.
    """

    n: int
    parts: int

    @property
    def slots(self) -> int:
        """Spectra of blocks that are kept: those that some part reaches, and one for a step back over a boundary."""
        return self.parts + 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which lags of a filter of `taps` are served how: those below `direct` by a sum at each step, level i those from 2n of
    its own to 2n of the next one, the last one all that remain."""

    taps: int
    direct: int
    levels: tuple[Level, ...]

    @property
    def grain(self) -> int:
        """Every block boundary of every level is also one at multiples of this."""
        return self.levels[-1].n if self.levels else 1

    def kept(self, max_rollback: int) -> int:
        """Past inputs on which later outputs depend."""
        return self.taps - 1 + max_rollback

    def ring(self, max_rollback: int) -> int:
        """Inputs that are held: what is kept, to whole blocks, and the blocks that are being worked on."""
        samples = self.kept(max_rollback) + max(3 * self.grain, FIRST_BLOCK)
        return -(-samples // self.grain) * self.grain


@lru_cache(maxsize=1024)
def schedule(taps: int) -> Schedule:
    """Of a causal filter. Source: Gardner 1995, "Efficient convolution without input-output delay", in blocks that grow."""
    direct = min(taps, 2 * FIRST_BLOCK)
    if taps <= direct:
        return Schedule(taps, direct, ())
    levels, n = [], FIRST_BLOCK
    while taps > MOST_PARTS * n and n < LARGEST_BLOCK:
        levels.append(Level(n, 2 * RATIO))
        n *= RATIO
    return Schedule(taps, direct, (*levels, Level(n, -(-taps // n))))
