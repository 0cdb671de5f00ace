"""When a filter much shorter than the signal goes in windows, and of which length: integers, functions of lengths alone."""

from __future__ import annotations

from functools import lru_cache

from longwave.backends.triton.shapes import WINDOWS, factored, split_flop

# Windows are taken where their products are expected to cost at most so much of one transform for everything.
GAIN = 0.8


@lru_cache(maxsize=65536)
def length(N: int, samples: int, taps: int, wide: bool, planes: int = 1) -> int:
    """The transform of the windows, or 0 where one transform of N points is better for all samples."""
    outer, shape = factored(N, wide, planes)
    whole = N * (split_flop(outer, shape) if outer else shape.flop(planes))
    best, least = 0, GAIN * whole
    for window in WINDOWS[wide]:
        hop = 2 * window.N - taps + 1
        if taps <= hop < samples / 2:
            work = -(-samples // hop) * window.N * window.flop(planes=2)
            if work < least:
                best, least = window.N, work
    return best
