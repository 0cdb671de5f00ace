"""The projection of filters onto the frequencies that a mask keeps, as a convolution by the engine: a filter has the same
bits in any company, which torch.fft does not promise.

A mask's values are the transform of a real polynomial μ modulo x^2N + 1 (or of one period), and the transform takes products to
products: P(k) = μ·k, with a μ that is made once in float64 and kept.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from longwave.backends.triton import engine
from longwave.backends.triton.plans import projection_problem
from longwave.masked import Projection
from longwave.operands import Operands


def project(projection: Projection, k: Tensor) -> Tensor:
    """(…, G, n): polynomials of 2N coefficients, or one period."""
    rows = k.reshape(-1, *k.shape[-2:])
    p = projection_problem(projection, rows.shape[0], rows.shape[1], k.device.type)
    return engine.forward(p, Operands(rows, _polynomial(projection, k.device))).view(k.shape)


@cache  # for good: a captured graph goes on reading it
def _polynomial(projection: Projection, device: torch.device) -> Tensor:
    """μ as a filter (1, taps) in order of rising lag; at a negative lag a polynomial's has the other sign."""
    with torch.device("cpu"), torch.inference_mode(False):
        kept = projection.kept().to(torch.float64)
        if projection.period:
            return torch.fft.irfft(kept[: kept.numel() // 2 + 1], n=kept.numel())[None].float().to(device)
        angle = torch.arange(kept.numel(), dtype=torch.float64) * (math.pi / (2 * kept.numel()))
        z = torch.fft.ifft(kept) * torch.polar(torch.ones_like(angle), angle)
        coefficients = torch.cat([z.real, -z.imag])
        return torch.cat([-coefficients[1:], coefficients])[None].float().to(device)
