"""Lengths of transforms: products of small primes, and the grid that a frequency mask is defined on."""

from __future__ import annotations

import bisect
from functools import lru_cache

from longwave.errors import ArgumentError

# No transform is longer: 8 TiB a row.
LONGEST = 2**40
# From here on a grid is a multiple of 256, so that the long-row transforms of every engine can have its length.
LONG_GRID = 16_384
LONG_GRID_STEP = 256


@lru_cache(maxsize=1)
def _smooth_numbers() -> list[int]:
    numbers = []
    c = 1
    while c <= LONGEST:
        b = c
        while b <= LONGEST:
            a = b
            while a <= LONGEST:
                numbers.append(a)
                a *= 2
            b *= 3
        c *= 5
    return sorted(numbers)


@lru_cache(maxsize=4096)
def next_fast_len(n: int) -> int:
    """The smallest 2^a·3^b·5^c that is at least n. Raises ArgumentError above `LONGEST`."""
    if n > LONGEST:
        raise ArgumentError(f"a transform of {n:,} samples was asked for; the longest is {LONGEST:,}: split the sequence")
    numbers = _smooth_numbers()
    return numbers[bisect.bisect_left(numbers, n)]


def mask_grid(n: int) -> int:
    """How many frequencies a mask tells apart in a ring that must hold 2n - 1 lags or more: N >= n, the same for every
    backend."""
    if n < LONG_GRID:
        return next_fast_len(n)
    return LONG_GRID_STEP * next_fast_len(-(-n // LONG_GRID_STEP))
