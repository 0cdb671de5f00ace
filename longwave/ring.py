"""Where samples and taps stand in the ring of the right-angle transform: integers only.

2N real samples modulo x^2N + 1 are N complex numbers: position p < N is the real part of row p, position N + p the negated
imaginary part of row p, and a position p + 2N is p with the other sign.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from longwave.planner import Placement


@lru_cache(maxsize=65536)
def place(
    in_start: int, in_len: int, out_start: int, out_len: int, lo: int, hi: int, length: Callable[[int], int], N: int = 0
) -> Placement:
    """The ring that is exact for these windows of input and output and these lags, or that of `N`, if given.

    `length(n)`: the backend's shortest transform of at least n points.

    A result is exact where no lag that occurs equals, modulo 2N, another difference between an output and an input.
    With those differences in [a, b] and the lags in [lo, hi], that is 2N > b - lo and 2N > hi - a.
    """
    in_end, out_end = in_start + in_len, out_start + out_len
    a, b = out_start - in_end + 1, out_end - 1 - in_start
    first, final = max(lo, a), min(hi, b)
    origin = min(in_start, out_start)
    extent = max(in_end, out_end) - origin
    if first > final:
        return Placement(1, 0, 0, 0, 0, 0)
    N = N or length((max(b - first + 1, final - a + 1, extent) + 1) // 2)
    return Placement(N, in_start - origin, out_start - origin, first - lo, final - lo + 1, first)


class Segment(NamedTuple):
    """A run of samples: `length` of them from index `i`, in rows n … of plane 0 (real) or 1 (imaginary), times `sign`.

    With `high` > 0, `i` is that of the first window and moves with the windows, and only samples from `low` to `high` - 1 are
    there.
    """

    i: int
    length: int
    plane: int
    row: int
    sign: int
    low: int = 0
    high: int = 0


def segments(N: int, position: int, count: int, i: int = 0, low: int = 0, high: int = 0) -> list[Segment]:
    """`count` samples that stand at `position` … in the ring, cut where the plane or the sign changes."""
    found = []
    while count > 0:
        turn, p = divmod(position, 2 * N)
        plane, row = divmod(p, N)
        run = min(count, N - row)
        sign = (-1) ** (turn % 2) * (-1 if plane else 1)
        found.append(Segment(i, run, plane, row, sign, low, high))
        position, count, i = position + run, count - run, i + run
    return found
