"""Where a Problem stands in its transforms: integers, and functions of lengths and lags alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from longwave import ring
from longwave.backends.triton import windows
from longwave.backends.triton.configurations import PASSED
from longwave.backends.triton.shapes import TRANSFORM_LENGTH, Shape, factored
from longwave.backends.triton.words import Place
from longwave.planner import Placement
from longwave.problem import Problem

LONGEST_IN_L2 = 2**16


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The transform and the places of everything in its ring; `first_tap` and `taps` count in order of rising lag.

    `dz` and `dx`: the places of the result's and the input's gradients, and of result and input where they make the filter's;
    without windows they are `target` and `source`. `…_upper`: which use the ring's second plane.
    """

    N: int
    outer: tuple[int, ...]
    shape: Shape
    source: Place
    target: Place
    filter: Place
    dz: Place
    dx: Place
    source_upper: bool
    target_upper: bool
    filter_upper: bool
    dz_upper: bool
    dx_upper: bool
    first_tap: int
    taps: int
    shift: int  # from a sample of the result to that of u at the same time
    empty: bool = False  # nothing connects any input with any output
    period: int = 0  # of a circular convolution whose taps must be folded to it, or 0
    windows: int = 0
    windows_back: int = 0

    @property
    def parts(self) -> int:
        """Rows in registers that a split row is."""
        return self.N // self.shape.N

    @property
    def regime(self) -> str:
        if self.windows or not self.outer:
            return "windows" if self.windows else "fused"
        # What a missing barrier does no interpreter shows: a GPU has to have passed it.
        in_l2 = len(self.outer) == 1 and self.shape.rows == 1 and self.N <= LONGEST_IN_L2
        return "fused_l2" if in_l2 and "fused_l2" in PASSED else "split"


def is_wide(p: Problem) -> bool:
    """Whether tensor cores multiply float32."""
    return p.dtype == "float32" or p.precision == "high"


@lru_cache(maxsize=1024)
def layout(p: Problem) -> Layout:
    """Of a Problem that is no packing of documents and has no mask."""
    if p.circular:
        return _circular(p)
    (lo, hi), wide = p.lags, is_wide(p)
    at, planes = _placed(p, lo, hi)
    first_lag, first_tap, taps = at.lag, at.tap_start, at.tap_stop - at.tap_start
    empty = at.empty
    if empty and p.skip:  # D alone connects inputs with outputs
        at, planes = _placed(p, 0, 0)
        first_lag = first_tap = taps = 0
        empty = at.empty
    if not empty and taps and (N := windows.length(at.N, max(p.in_len, p.out_len), taps, wide, planes)):
        return _windowed(p, N, first_lag, first_tap, taps)
    P = p.history
    outer, shape = factored(at.N, wide, planes)
    source = Place(-at.in_at - P, p.in_len - P, 0, 2 * at.N, before=P)
    target = Place(-at.out_at, p.out_len, 0, 2 * at.N)
    negative = {"again": -first_lag - 2 * at.N, "least": 0} if first_lag < 0 else {}
    source_upper, target_upper = _upper(p, at)
    return Layout(
        N=at.N, outer=outer, shape=shape, source=source, target=target, filter=Place(-first_lag, taps, 0, 2 * at.N, **negative),
        dz=target, dx=source, source_upper=source_upper, target_upper=target_upper,
        filter_upper=first_lag < 0 or first_lag + taps > at.N, dz_upper=target_upper, dx_upper=source_upper,
        first_tap=first_tap, taps=taps, shift=p.out_start - p.in_start - P, empty=empty,
    )  # fmt: skip


def _placed(p: Problem, lo: int, hi: int) -> tuple[Placement, int]:
    """In the ring, with the planes that its transform is made for: where one does not do, in a ring for both, which may be
    shorter or longer."""
    where = p.in_start, p.in_len, p.out_start, p.out_len, lo, hi
    one = ring.place(*where, TRANSFORM_LENGTH[is_wide(p), 1])
    return (ring.place(*where, TRANSFORM_LENGTH[is_wide(p), 2]), 2) if any(_upper(p, one)) else (one, 1)


def _upper(p: Problem, at: Placement) -> tuple[bool, bool]:
    """Whether input and output use the ring's second plane."""
    return at.in_at + p.in_len > at.N, at.out_at + p.out_len > at.N


def _circular(p: Problem) -> Layout:
    """All lags of the taps folded to the period L, and once more one period earlier."""
    L = p.in_len
    N = ring.place(0, L, 0, L, 1 - L, L - 1, TRANSFORM_LENGTH[is_wide(p), 1]).N
    outer, shape = factored(N, is_wide(p))
    folds = p.taps > L or p.lags[0] % L != 0
    taps = L if folds else p.taps
    again = {"again": L - 2 * N, "least": 1} if taps > 1 else {}
    place, upper = Place(0, L, 0, 2 * N), L > N
    return Layout(
        N=N, outer=outer, shape=shape, source=place, target=place, filter=Place(0, taps, 0, 2 * N, **again), dz=place, dx=place,
        source_upper=upper, target_upper=upper, filter_upper=taps > 1, dz_upper=upper, dx_upper=upper, first_tap=0, taps=taps,
        shift=0, period=L if folds else 0,
    )  # fmt: skip


def _windowed(p: Problem, N: int, first_lag: int, first_tap: int, taps: int) -> Layout:
    """In windows of 2N samples: each begins `hop` after the one before, and the first taps - 1 of its results are not exact.
    The gradients' windows have 2N samples of that of the result and give `hop` of that of the input."""
    outer, shape = factored(N, is_wide(p), 2)
    wrong, P = taps - 1, p.history
    hop = 2 * N - wrong
    begin = p.out_start - (first_lag + wrong) - p.in_start - P
    return Layout(
        N=N,
        outer=outer,
        shape=shape,
        source=Place(begin, p.in_len - P, 0, 2 * N, hop, before=P),
        target=Place(-wrong, p.out_len, wrong, 2 * N, hop),
        filter=Place(0, taps, 0, 2 * N),
        dz=Place(p.in_start + first_lag - p.out_start, p.out_len, 0, 2 * N, hop),
        dx=Place(-P, p.in_len - P, 0, hop, hop, before=P),
        source_upper=True,
        target_upper=True,
        filter_upper=taps > N,
        dz_upper=True,
        dx_upper=hop > N,
        first_tap=first_tap,
        taps=taps,
        shift=p.out_start - p.in_start - P,
        windows=-(-p.out_len // hop),
        windows_back=-(-p.in_len // hop),
    )
