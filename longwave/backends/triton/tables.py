"""DFT matrices and twiddles, made in float64, rounded once, and kept a device.

All are unitary, but that a filter's own transforms have a `gain` of √N. With `quarter` they carry the weights exp(-iπn/2N) of
the right-angle transform: its bins stand at k + 1/4.
"""

from __future__ import annotations

import math
from functools import lru_cache

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


def twiddles(rows: int, columns: int, quarter: int) -> Tensor:
    """(rows, columns) factors between the DFTs of `rows` and of `columns` points."""
    return _turns(_outer(4 * torch.arange(rows) + quarter, torch.arange(columns)), rows * columns)


def parts(z: Tensor, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part, rounded."""
    return z.real.to(dtype).contiguous().to(device), z.imag.to(dtype).contiguous().to(device)


@lru_cache(maxsize=256)
def tables(shape: Shape, weighted: bool, dtype: torch.dtype, device: torch.device, gain: float = 1.0) -> Tables:
    with torch.device("cpu"), torch.inference_mode(False):
        n1, n2, n3, quarter = shape.N1, shape.N2, shape.N3, int(weighted)
        f1 = dft(n1, quarter) * gain
        both: tuple[Tensor, ...] = (
            f1,
            f1.mT,
            twiddles(n1, n2 * n3, quarter),
            dft(n2, 0),
        )  # the inverse's conjugate is in how it is used
        if n3 > 1:
            both = (*both, twiddles(n2, n3, 0), dft(n3, 0))
        return Tables(*(part for z in both for part in parts(z, dtype, device)))


@lru_cache(maxsize=256)
def outer(
    length: int, columns: int, tile: int, weighted: bool, dtype: torch.dtype, device: torch.device, gain: float = 1.0
) -> Outer:
    """Of an outer DFT of matrices (length, columns), for tiles of so many columns."""
    with torch.device("cpu"), torch.inference_mode(False):
        quarter = int(weighted)
        f = dft(length, quarter) * gain
        bins = 4 * torch.arange(length) + quarter
        high = _turns(_outer(bins, torch.arange(0, columns, tile)), length * columns)
        low = _turns(_outer(bins, torch.arange(tile)), length * columns)
        products = (part for z in (f, f.mT) for part in parts(z, dtype, device))
        return Outer(*products, *(part for z in (high, low) for part in parts(z, torch.float32, device)))
