"""What transforms are expected to cost: for the choice of windows, the waking of threads, and `longwave plan`."""

from __future__ import annotations

import math

# Nanoseconds a vector row and transform: a constant part (load, store) and one a factor of two.
NS_ROW, NS_ROW_LEVEL = 3.0, 0.5
MACHINE = "AMD EPYC 7003, AVX2"


def seconds(N: int, transforms: float) -> float:
    """Of so many transforms of N points, of W rows each, on one thread."""
    return 1e-9 * transforms * N * (NS_ROW + NS_ROW_LEVEL * math.log2(max(2, N)))
