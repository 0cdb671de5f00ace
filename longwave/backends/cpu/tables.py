"""The constants of a transform: its factors, twiddles and weights, made in float64 and rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=4096)
def factors(N: int) -> tuple[int, ...]:
    """The radices whose product is N, from the outermost pass to the innermost; at least two."""
    powers = {}
    for p in (2, 3, 5):
        powers[p] = 0
        while N % p == 0:
            N, powers[p] = N // p, powers[p] + 1
    # Radix 4 keeps its butterfly in 16 registers: 2 and 4 together take less time than 8.
    found = [2] * (powers[2] % 2) + [5] * powers[5] + [3] * powers[3] + [4] * (powers[2] // 2)
    if len(found) < 2:
        found = (found or [1]) + [1]  # a transform by one butterfly: its product stands alone
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Tables:
    """Arrays in the arithmetic type, complex numbers as pairs: weights exp(-iπn/2N), the same over N, twiddles a level."""

    N: int
    radices: tuple[int, ...]
    weights: Any
    scaled_weights: Any
    twiddles: tuple[Any, ...]


def _pairs(z: Any, dtype: str) -> Any:
    return np.stack([z.real, z.imag], axis=-1).astype(dtype).ravel()


@lru_cache(maxsize=64)
def tables(N: int, dtype: str) -> Tables:
    """The tables of a transform of N complex points in arithmetic `dtype`."""
    weights = np.exp(-0.5j * np.pi * np.arange(N) / N)
    twiddles, n = [], N
    radices = factors(N)
    for r in radices[:-1]:
        m = n // r
        # Reduce j·q modulo n in integers: the angle stays exact for long transforms.
        turns = np.outer(np.arange(m), np.arange(1, r)) % n
        twiddles.append(_pairs(np.exp(-2j * np.pi * turns / n), dtype))
        n = m
    return Tables(N, radices, _pairs(weights, dtype), _pairs(weights / N, dtype), tuple(twiddles))
