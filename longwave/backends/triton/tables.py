"""DFT matrices and twiddles, made in float64, rounded once, and kept a device.

All are unitary but for a factor. A filter's own transforms have a `gain` of √N. A DFT matrix of 16 bits has the factor
(`rounding_gain`) under which its few different numbers are rounded best: its error, else about that of rounding a signal, is
then 0.1 to 0.9 of it. With `quarter` they carry the weights exp(-iπn/2N) of the right-angle transform, whose bins stand at
k + 1/4.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import torch
from torch import Tensor

from longwave.backends.triton.shapes import Shape
from longwave.backends.triton.words import Outer, Tables


def _turns(quarters: Tensor, period: int) -> Tensor:
    """exp(-2πi · quarters / (4 · period)), exact for large integers."""
    angle = (quarters % (4 * period)).to(torch.float64) * (-math.pi / (2 * period))
    return torch.polar(torch.ones_like(angle), angle)


def _outer(bins: Tensor, points: Tensor) -> Tensor:
    return bins.unsqueeze(-1) * points


def dft(length: int, quarter: int) -> Tensor:
    """(bins, points), unitary; with `quarter` 1 at the bins k + 1/4."""
    n = torch.arange(length)
    return _turns(_outer(4 * n + quarter, n), length) / math.sqrt(length)


@lru_cache(maxsize=256)
def rounding_gain(length: int, quarter: int, dtype: torch.dtype) -> float:
    """The factor in (1/√2, 1] that leaves `dft(length, quarter)` with the least error when it is rounded. No more than 1, so
    that nothing grows beyond what a unitary product makes of it."""
    if dtype.itemsize > 2:
        return 1.0
    with torch.device("cpu"), torch.inference_mode(False):
        z = torch.view_as_real(dft(length, quarter)).abs().flatten()
        numbers, counts = torch.unique(z.mul(2**40).round().div(2**40), return_counts=True)
        factors = torch.linspace(1.0, 0.5**0.5, 4096, dtype=torch.float64)
        scaled = factors[:, None] * numbers
        wrong = (scaled.float().to(dtype).double() - scaled) / factors[:, None]
        return float(factors[(wrong.square() * counts).sum(-1).argmin()])


def twiddles(rows: int, columns: int, quarter: int) -> Tensor:
    """(rows, columns) factors between the DFTs of `rows` and of `columns` points."""
    return _turns(_outer(4 * torch.arange(rows) + quarter, torch.arange(columns)), rows * columns)


def parts(z: Tensor, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part, rounded."""
    return z.real.to(dtype).contiguous().to(device), z.imag.to(dtype).contiguous().to(device)


def _rounded_best(length: int, quarter: int, dtype: torch.dtype) -> Tensor:
    return dft(length, quarter) * rounding_gain(length, quarter, dtype)


def gain_of(outers: tuple[int, ...], shape: Shape, dtype: torch.dtype) -> float:
    """Of a transform, there or back, by its matrices' factors."""
    sides = [*outers, *(n for n in (shape.N1, shape.N2, shape.N3) if n > 1)]
    return math.prod(rounding_gain(n, int(i == 0), dtype) for i, n in enumerate(sides))


# Kept for good: a graph that was captured reads them for as long as it lives.
@cache
def tables(shape: Shape, weighted: bool, dtype: torch.dtype, device: torch.device, gain: float = 1.0) -> Tables:
    with torch.device("cpu"), torch.inference_mode(False):
        n1, n2, n3, quarter = shape.N1, shape.N2, shape.N3, int(weighted)
        f1 = _rounded_best(n1, quarter, dtype) * gain
        # The inverse's conjugate is in how it is used.
        both: tuple[Tensor, ...] = (f1, f1.mT, twiddles(n1, n2 * n3, quarter), _rounded_best(n2, 0, dtype))
        if n3 > 1:
            both = (*both, twiddles(n2, n3, 0), _rounded_best(n3, 0, dtype))
        return Tables(*(part for z in both for part in parts(z, dtype, device)))


@cache
def outer(
    length: int, columns: int, tile: int, weighted: bool, dtype: torch.dtype, device: torch.device, gain: float = 1.0
) -> Outer:
    """Of an outer DFT of matrices (length, columns), for tiles of so many columns."""
    with torch.device("cpu"), torch.inference_mode(False):
        quarter = int(weighted)
        f = _rounded_best(length, quarter, dtype) * gain
        bins = 4 * torch.arange(length) + quarter
        high = _turns(_outer(bins, torch.arange(0, columns, tile)), length * columns)
        low = _turns(_outer(bins, torch.arange(tile)), length * columns)
        products = (part for z in (f, f.mT) for part in parts(z, dtype, device))
        return Outer(*products, *(part for z in (high, low) for part in parts(z, torch.float32, device)))
