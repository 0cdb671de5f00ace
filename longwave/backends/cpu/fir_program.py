"""What the kernels of the direct sums are told: a block of 64-bit integers, a header and then the tensors.

Times are those of `problem.py`: the input begins at `PAST_START` with the history and at `U_START` with u, the result at
`OUT_START`, and the windows (first, last) say which of their samples take part.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from longwave.backends.cpu.fir import TAPS_AT_ONCE
from longwave.backends.cpu.program import CODE

INT = 8  # bytes
# The header. A forward unit is a chunk of time, a strip of channels and a sample of the batch; a backward one has a span of
# chunks. `ROW` bytes
# a row of samples in scratch memory, `TABLE_ROW` one of taps, `PARTIAL_ROW` one of totals.
(
    CHANNELS, LOW, TAP_COUNT, FALLING, REPEATS, ACTIVATION, PAST_START, U_START, OUT_START, IN_FIRST, IN_LAST, OUT_FIRST,
    OUT_LAST, FIRST, LAST, CHUNK, SPAN, SPANS, STRIP, ROW, TABLE_ROW, PARTIALS, PARTIAL_ROW, BATCH, GROUPS,
    PER_SAMPLE,
) = range(26)  # fmt: skip
HEADER = 26
# The tensors. An address of 0 stands for none.
U, PREGATE, PAST, TAPS, SKIP, BIAS, Y, POSTGATE, DY, DU, DPREGATE, DPAST, DPOSTGATE, DTAPS, DSKIP, DBIAS = range(16)
ADDRESS, STRIDE_B, STRIDE_H, STRIDE_T, STORED = range(5)
VIEW_WORDS = 5
WORDS = HEADER + 16 * VIEW_WORDS

# Sums over time go by this many samples: whole lanes of either arithmetic type.
SUM_LANES = 16
# Samples of a row that are summed while a cache holds them, and those of which a backward unit sums a filter's gradient.
CHUNK_SAMPLES, SPAN_SAMPLES = 1024, 4096
# Channels of a strip where neighbours in memory are channels: two lines of a cache in float32.
STRIP_CHANNELS = 32
# The gradient of one tap, which is that of D, reads more than it computes: so many bytes that are neighbours, down to a line of
# a cache where threads would have fewer units than this, and short stretches of time. Of 4 x 16,384 samples of 512 channels on
# two threads it takes 17.0 ms, 20.1 with half the bytes and twice the time, and 13.4 where samples are neighbours.
ONE_TAP_BYTES, ONE_TAP_UNITS, ONE_TAP_CHUNK = 2048, 2, 256
# Nanoseconds a unit, and a sample with each of its taps (eight lanes) and its activation, on one thread of an AMD EPYC 7003.
NS_UNIT, NS_SAMPLE, NS_TAP, NS_ACTIVATION = 300.0, 0.6, 0.04, 1.5


class Sums(NamedTuple):
    """The direct sums of one call, or of one of its documents, in integers."""

    batch: int
    channels: int
    low: int  # the smallest lag
    taps: int
    falling: bool  # whether the filters are stored in order of falling lag
    groups: int
    per_sample: bool
    past_start: int
    u_start: int
    out_start: int
    in_first: int
    in_last: int
    out_first: int
    out_last: int
    itemsize: int  # of the arithmetic type
    side_by_side: bool  # whether neighbours in memory are channels
    activation: int = 0


class Header(NamedTuple):
    """The words of a program that no address is in, and what `threads` is told."""

    words: array[int]
    units: int
    seconds: float
    scratch_bytes: int
    partials_bytes: int


@lru_cache(maxsize=4096)
def header(s: Sums, gradient: bool, workers: int) -> Header:
    """What its sums and their order are depends on taps, lags and windows alone."""
    high = s.low + s.taps - 1
    first, last = (min(s.in_first, s.out_first), max(s.in_last, s.out_last)) if gradient else (s.out_first, s.out_last)
    length = last - first
    span = SPAN_SAMPLES if gradient else CHUNK_SAMPLES
    spans = -(-length // span)
    beside, chunk = STRIP_CHANNELS, CHUNK_SAMPLES
    if gradient and s.taps == 1:
        beside, chunk = ONE_TAP_BYTES // s.itemsize, ONE_TAP_CHUNK
        while beside > 64 // s.itemsize and s.batch * -(-s.channels // beside) * spans < ONE_TAP_UNITS * workers:
            beside //= 2
    strip = min(beside if s.side_by_side else max(1, 512 // length), s.channels)
    # A chunk, and what lies before and after it: for an activation's slope before that once more.
    reach = min(chunk, length) + SUM_LANES + s.taps + (max(high, 0) - min(s.low, 0) if gradient else 0)
    row, table, partial = _row_bytes(reach, s.itemsize), _row_bytes(s.taps, s.itemsize), _partial_row(s.taps)
    words = (
        s.channels, s.low, s.taps, s.falling, s.channels // s.groups, s.activation, s.past_start, s.u_start, s.out_start,
        s.in_first, s.in_last, s.out_first, s.out_last, first, last, chunk, span, spans, strip, row, table, 0,
        partial, s.batch, s.groups, s.per_sample,
    )  # fmt: skip
    units = s.batch * -(-s.channels // strip) * spans
    each = NS_SAMPLE + NS_TAP * s.taps * s.itemsize / 4 + NS_ACTIVATION * (s.activation != 0)
    seconds = 1e-9 * (units * NS_UNIT + s.batch * s.channels * length * each * (3 if gradient else 1))
    block = array("q", words + (0,) * (WORDS - len(words)))
    return Header(block, units, seconds, strip * (table + 3 * row), s.batch * spans * s.channels * partial)


def _row_bytes(length: int, E: int) -> int:
    """A row of `length` samples with room for whole vectors and taps beyond; neighbours do not share a set of a cache."""
    size = -(-(length + 2 * SUM_LANES) * E // 64) * 64
    return size + 64 if size % 128 == 0 else size


def _partial_row(K: int) -> int:
    """The bytes of a channel's totals: those of all taps that are summed at once, and the bias."""
    return (-(-K // TAPS_AT_ONCE) * TAPS_AT_ONCE + 1) * INT


class Program:
    """A block of integers that is filled in. The tensors must outlive its use."""

    __slots__ = ("words",)

    def __init__(self, words: array[int]) -> None:
        self.words = words[:]

    def view(self, which: int, x: Tensor, b: int, h: int, t: int) -> None:
        """A tensor, and its strides of the batch, the channels and time in elements."""
        size, at = x.element_size(), HEADER + which * VIEW_WORDS
        self.words[at : at + VIEW_WORDS] = array("q", (x.data_ptr(), b * size, h * size, t * size, CODE[x.dtype]))

    @property
    def address(self) -> int:
        return self.words.buffer_info()[0]
