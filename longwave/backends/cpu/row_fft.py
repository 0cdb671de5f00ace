"""FFTs of rows whose bits depend on nothing but the row: NumPy's, one after the other on one thread, by the names of torch.fft.

Those of torch.fft are another library's on every number of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from longwave.dtypes import resolved


def fft(x: Tensor) -> Tensor:
    return _like(np.fft.fft(resolved(x).numpy()), x)


def ifft(x: Tensor) -> Tensor:
    return _like(np.fft.ifft(resolved(x).numpy()), x)


def rfft(x: Tensor) -> Tensor:
    return _like(np.fft.rfft(x.numpy()), x)


def irfft(x: Tensor, n: int) -> Tensor:
    return _like(np.fft.irfft(resolved(x).numpy(), n=n), x)


def _like(found: np.ndarray, x: Tensor) -> Tensor:
    """In x's precision: older versions of NumPy have one."""
    wide = x.dtype in (torch.float64, torch.complex128)
    real, complex_ = (torch.float64, torch.complex128) if wide else (torch.float32, torch.complex64)
    return torch.from_numpy(found).to(complex_ if np.iscomplexobj(found) else real)
