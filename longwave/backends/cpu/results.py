"""What every algorithm of `long_conv` makes for a Problem: its arithmetic type, and fresh tensors for its results."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import pages
from longwave.backends.cpu.simd import vector_bytes
from longwave.problem import Problem

# Where the predicted times were measured.
MACHINE = "AMD EPYC 7003, AVX2"


def arithmetic(p: Problem) -> torch.dtype:
    return dtypes.arithmetic(dtypes.named(p.dtype))


def width(p: Problem) -> int:
    """Lanes of a vector."""
    return vector_bytes() // arithmetic(p).itemsize


def like(p: Problem) -> Any:
    """A number of the arithmetic type, for the kernels."""
    return np.float64(1) if arithmetic(p) == torch.float64 else np.float32(1)


def filter_shape(p: Problem) -> tuple[int, ...]:
    return (p.batch, p.groups, p.taps) if p.per_sample else (p.groups, p.taps)


def empty(p: Problem, length: int, beside: Tensor) -> Tensor:
    """Uninitialised (B, H, length) in the result's layout, of the dtype of `beside`."""
    if p.channels_last:
        return pages.with_large_pages(beside.new_empty(p.batch, length, p.channels)).transpose(1, 2)
    return pages.with_large_pages(beside.new_empty(p.batch, p.channels, length))
