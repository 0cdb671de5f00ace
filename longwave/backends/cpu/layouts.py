"""Where everything of a Problem stands in its transforms: one ring for each stretch of samples, or windows of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from longwave import ring
from longwave.backends.cpu import tables
from longwave.backends.cpu.costs import seconds
from longwave.backends.cpu.crossovers import chosen
from longwave.planner import Placement, mask_grid
from longwave.problem import Problem
from longwave.ring import Segment

# Windows are taken where they are expected to cost at most so much of one transform for everything, which costs LONG_COST as
# much where it goes by six steps. They are long enough for the work around them; from IN_CACHE points on, when they leave a
# second-level cache, every doubling makes them dearer. Measured with filters of 8,192 to 65,536 taps on 1,048,576 samples.
WINDOWS_GAIN, LONG_COST, SHORTEST_WINDOW, LONGEST_WINDOW = chosen().windows_gain, 1.5, 256, 2**15
IN_CACHE, DEARER = 2**13, 0.25
# Of windows of SMALL points and more the shortest is taken whose expected time is within SPARE of the best one's: scratch
# memory goes with its length. On 1,048,576 samples, 4 and 8 rows, 512 to 16,384 taps it was from 11 % faster to 8 % slower than
# the one expected to be best.
SMALL, SPARE = 1024, 1.1


@dataclass(frozen=True)
class Layout:
    """Where everything of a Problem stands in the ring; `first_tap` and `taps` count in order of rising lag."""

    at: Placement
    source: tuple[Segment, ...]  # from u, with indices of u
    past: tuple[Segment, ...]  # from history
    result: tuple[Segment, ...]  # with indices of y
    filter: tuple[Segment, ...]  # with indices from the first tap that is used
    filter_again: tuple[Segment, ...]  # circular: the same taps, one period earlier
    first_tap: int
    taps: int
    period: int = 0  # of a circular convolution whose taps must be folded to it, or 0
    # Of `windows`: how many there are, samples from one to the next, those that lie wholly inside, where lag 0 stands, and
    # where everything stands for the gradients.
    windows: int = 0
    hop: int = 0
    inside: tuple[int, int] = (0, 0)
    zero_row: int = 0
    backward: Layout | None = None

    @property
    def is_long(self) -> bool:
        return tables.is_long(self.at.N) and not self.windows

    @property
    def zero_lag(self) -> Segment:
        return Segment(0, 1, 0, self.zero_row, 1)


@lru_cache(maxsize=1024)
def layout(p: Problem) -> Layout:
    """Of a Problem that is no packing of documents."""
    lo, hi = p.lags
    again: list[Segment] = []
    period = first_tap = 0
    if p.circular:
        in_len = p.in_len
        at = ring.place(0, in_len, 0, in_len, 1 - in_len, in_len - 1, tables.transform_length)
        taps = p.taps
        if p.taps > in_len or lo % in_len:
            taps = period = in_len
        filter_, again = ring.segments(at.N, 0, taps), ring.segments(at.N, 1 - in_len, taps - 1, 1)
    else:
        wide = (min(lo, 0), max(hi, 0)) if p.skip else (lo, hi)
        # A masked filter has all lags there are, and its grid is that of the mask.
        N = mask_grid((p.in_len + p.out_len) // 2) if p.mask is not None else 0
        at = ring.place(p.in_start, p.in_len, p.out_start, p.out_len, *wide, tables.transform_length, N)
        first_lag, last_lag = max(lo, at.lag), min(hi, at.lag + at.tap_stop - at.tap_start - 1)
        first_tap, taps = first_lag - lo, max(0, last_lag - first_lag + 1)
        filter_ = ring.segments(at.N, first_lag, taps)
        if p.mask is None and (N := _window_length(at.N, max(p.in_len, p.out_len), wide[1] - wide[0] + 1)):
            return _windowed(p, N, wide)
    past = min(p.history, p.in_len)
    return Layout(
        at=at,
        source=tuple(ring.segments(at.N, at.in_at + past, p.in_len - past)),
        past=tuple(ring.segments(at.N, at.in_at, past)),
        result=tuple(ring.segments(at.N, at.out_at, p.out_len)),
        filter=tuple(filter_),
        filter_again=tuple(again),
        first_tap=first_tap,
        taps=taps,
        period=period,
    )


def writes_taps(p: Problem, found: Layout) -> bool:
    """Whether what a launch gives for the taps in use is their gradient as it stands, and not a term of it."""
    return p.groups == p.channels and not (p.reverse or found.period or found.filter_again)


def beside(p: Problem, found: Layout) -> tuple[list[Segment], list[Segment]]:
    """What D reaches at the same sample, in one ring: samples of u where results stand (with indices of u), and samples of the
    result's gradient where inputs do (with indices of y)."""
    u_start, at = p.in_start + p.history, found.at
    first, end = max(u_start, p.out_start), min(p.in_start + p.in_len, p.out_start + p.out_len)
    of_u, of_y, count = first - u_start, first - p.out_start, end - first
    return (
        ring.segments(at.N, at.out_at + of_y, count, of_u),
        ring.segments(at.N, at.in_at + first - p.in_start, count, of_y),
    )


@lru_cache(maxsize=65536)
def _window_length(N: int, samples: int, lags: int) -> int:
    """The best transform for `samples` results in windows, or 0 where one transform of N points is better for all of them."""
    length, gain = _best_window(N, samples, lags)
    return length if gain < WINDOWS_GAIN else 0


def expected_gain(L: int, K: int) -> float:
    """The expected time of windows over that of one transform, for a causal convolution; for `longwave tune`."""
    N = tables.transform_length((L + min(K, L)) // 2)
    return _best_window(N, L, K)[1]


def _best_window(N: int, samples: int, lags: int) -> tuple[int, float]:
    """The transform for windows, and their expected time over that of one transform of N points."""
    expected = {}
    for parts in range(2, 33):
        length = tables.transform_length(-(-lags * parts // 4))
        hop = 2 * length - lags + 1
        if SHORTEST_WINDOW <= length <= LONGEST_WINDOW and lags <= hop < samples / 2:
            dearer = 1 + DEARER * max(0.0, math.log2(length / IN_CACHE))
            expected[length] = -(-samples // hop) * seconds(length, 1) * dearer
    if not expected:
        return 0, math.inf
    best = min(expected, key=lambda length: expected[length])
    length = min(length for length in expected if length >= min(best, SMALL) and expected[length] <= SPARE * expected[best])
    return length, expected[length] / (seconds(N, 1) * (LONG_COST if tables.is_long(N) else 1))


def _windowed(p: Problem, N: int, lags: tuple[int, int]) -> Layout:
    """The Problem in windows of 2N samples: each begins `hop` after the one before, and the first hi - lo of its results are
    not exact. The gradients' windows have 2N samples of that of the result and give `hop` of that of the input."""
    lo, hi = lags
    hop = 2 * N - (hi - lo)
    P, in_start, out_start = p.history, p.in_start, p.out_start
    u_high, y_high = p.in_len - P, p.out_len
    filter_ = tuple(ring.segments(N, p.lags[0] - lo, p.taps))

    def placed(start: int, length: int, y: int, y_position: int, y_length: int, windows: int) -> Layout:
        """With `length` samples of the input from `start` on at 0 …, and those of the result from `y` on at `y_position` …"""
        i = start - p.in_start - P
        inside_from = max(-(i // hop), -(y // hop), 0)
        inside_to = min((u_high - i - length) // hop, (y_high - y - y_length) // hop) + 1
        return Layout(
            at=Placement(N, 0, y_position, 0, p.taps, p.lags[0]),
            source=tuple(ring.segments(N, 0, length, i, 0, u_high)),
            past=tuple(ring.segments(N, 0, length, i + P, 0, P)) if P else (),
            result=tuple(ring.segments(N, y_position, y_length, y, 0, y_high)),
            filter=filter_,
            filter_again=(),
            first_tap=0,
            taps=p.taps,
            windows=windows,
            hop=hop,
            inside=(inside_from, max(inside_from, inside_to)),
            zero_row=-lo,
        )

    back = placed(in_start, hop, in_start + lo - out_start, 0, 2 * N, -(-p.in_len // hop))
    ahead = placed(out_start - hi, 2 * N, 0, hi - lo, hop, -(-p.out_len // hop))
    return replace(ahead, backward=back)
