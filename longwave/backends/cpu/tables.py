"""The constants of a transform: its factors, twiddles and weights, made in float64 and rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longwave.backends.cpu.crossovers import chosen
from longwave.planner import next_fast_len


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
    """Arrays in the arithmetic type, complex numbers as pairs: weights exp(-iπn/2N), the same scaled, twiddles a level."""

    N: int
    radices: tuple[int, ...]
    weights: Any
    scaled_weights: Any
    twiddles: tuple[Any, ...]


def _pairs(z: Any, dtype: str) -> Any:
    return np.stack([z.real, z.imag], axis=-1).astype(dtype).ravel()


@lru_cache(maxsize=64)
def tables(N: int, dtype: str, scale: int) -> Tables:
    """The tables of a transform of N complex points in arithmetic `dtype`; the scaled weights are those over `scale`."""
    weights = np.exp(-0.5j * np.pi * np.arange(N) / N)
    twiddles, n = [], N
    radices = factors(N)
    for r in radices[:-1]:
        m = n // r
        # Reduce j·q modulo n in integers: the angle stays exact for long transforms.
        turns = np.outer(np.arange(m), np.arange(1, r)) % n
        twiddles.append(_pairs(np.exp(-2j * np.pi * turns / n), dtype))
        n = m
    return Tables(N, radices, _pairs(weights, dtype), _pairs(weights / scale, dtype), tuple(twiddles))


# Transforms from this length on go by six steps. Rows and columns of their matrix are multiples of GRAIN, so that every width
# of vectors divides them.
SIX_STEP_FROM, GRAIN = chosen().six_step_from, 16


def is_long(N: int) -> bool:
    return N >= SIX_STEP_FROM


@lru_cache(maxsize=65536)
def transform_length(n: int) -> int:
    """The smallest length of a transform that is at least n."""
    N = next_fast_len(n)
    return N if not is_long(N) else GRAIN**2 * next_fast_len(-(-n // GRAIN**2))


@lru_cache(maxsize=4096)
def matrix_shape(N: int) -> tuple[int, int]:
    """(rows, columns) of the matrix of a long row: the most even multiples of GRAIN whose product is N."""
    columns = min((c for c in range(GRAIN, N // GRAIN + 1, GRAIN) if N % (c * GRAIN) == 0 and c * c >= N), default=0)
    return N // columns, columns


def frequencies(N: int) -> Any:
    """The frequency that a transform of N points leaves at each place."""
    places, step, block = np.zeros(1, dtype=np.int64), 1, N
    for r in factors(N):
        places = (places[:, None] + step * np.arange(r)).ravel()
        step, block = step * r, block // r
    return places


@lru_cache(maxsize=16)
def turns(N: int, dtype: str, width: int) -> tuple[Tensor, int, int]:
    """The factors exp(-2πi·n2·(k1 + 1/4)/N) between columns and rows of `six_step`, as products of two: for every tile of
    `width` columns, `high` and then `low` rows of that many real and as many imaginary parts. A column's places are
    low·i + j, and their frequencies the sum of one for i and one for j."""
    rows, columns = matrix_shape(N)
    radices, low = factors(rows), 1
    while radices and low * low < rows:
        low, radices = low * radices[-1], radices[:-1]
    k1 = frequencies(rows).reshape(rows // low, low)
    n2 = np.arange(columns).reshape(-1, 1, width)
    quarters = np.concatenate([4 * k1[:, 0] + 1, 4 * (k1[0] - k1[0, 0])]).reshape(1, -1, 1)
    z = np.exp(-0.5j * np.pi * ((n2 * quarters) % (4 * N)) / N)
    # A tensor of PyTorch's, because its memory is aligned to any vector.
    return torch.from_numpy(np.stack([z.real, z.imag], axis=2).astype(dtype)).clone(), rows // low, low
