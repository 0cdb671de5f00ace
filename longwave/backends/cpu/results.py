"""What every algorithm of `long_conv` makes for a Problem: its arithmetic type, and fresh tensors for its results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longwave import dtypes, results
from longwave.backends.cpu import pages
from longwave.backends.cpu.simd import CACHE_LINE, vector_bytes
from longwave.problem import Problem

# Results of so many bytes are stored past the caches, which could not hold them until they are read. With a GELU and a sum
# behind the convolution that takes less time from 4 MiB on (12 % less with 16 and 32), where 32 MiB of cache are shared.
STREAMED_BYTES = 2**23


def arithmetic(p: Problem) -> torch.dtype:
    return dtypes.arithmetic(dtypes.named(p.dtype))


def width(p: Problem) -> int:
    """Lanes of a vector."""
    return vector_bytes() // arithmetic(p).itemsize


def like(p: Problem) -> Any:
    """A number of the arithmetic type, for the kernels."""
    return np.float64(1) if arithmetic(p) == torch.float64 else np.float32(1)


def streams(p: Problem) -> bool:
    """Whether results are stored past the caches: large ones, where a vector of samples is a cache line."""
    size = dtypes.named(p.dtype).itemsize
    return width(p) * size == CACHE_LINE and p.batch * p.channels * max(p.in_len, p.out_len) * size >= STREAMED_BYTES


def gradient_bytes(p: Problem) -> int:
    """Of the gradients of everything that a call has; the filters' are rounded at the end, from the arithmetic type."""
    item, wide, taps_item = dtypes.named(p.dtype).itemsize, arithmetic(p).itemsize, dtypes.named(p.filter_dtype).itemsize
    signals = (1 + p.pregate) * (p.in_len - p.history) + p.postgate * p.out_len + p.history
    taps = math.prod(p.filter_shape) * (wide + taps_item * (taps_item != wide))
    return p.batch * p.channels * signals * item + taps + p.skip * p.channels * wide


def empty(p: Problem, length: int, beside: Tensor) -> Tensor:
    """`results.empty` of large pages."""
    return pages.with_large_pages(results.empty(p, length, beside))
