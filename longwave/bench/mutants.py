"""Broken operators, one defect each: what every bound must refuse. Causal, K = L, float64, `(…, L)` in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64


@dataclass(frozen=True)
class Mutant:
    """`result(x, k)` is what the broken operator gives; `x` is `v` for the quantity `y`, and `dy` for `du`."""

    name: str
    quantity: str
    result: Callable[[Tensor, Tensor], Tensor]


def convolve(v: Tensor, k: Tensor, *, n: int | None = None, conjugate: bool = False) -> Tensor:
    """The causal convolution (with `conjugate` the correlation, its gradient for v), by a transform of n >= 2L samples.

    - `v`, `k`: `(…, L)` float64. `n`: samples of the transform; 2L when not given.

    Returns `(…, L)` float64.
    """
    L = v.shape[-1]
    n = 2 * L if n is None else n
    k_f = torch.fft.rfft(k, n)
    return torch.fft.irfft(torch.fft.rfft(v, n) * (k_f.conj() if conjugate else k_f), n)[..., :L]


def truth(quantity: str, x: Tensor, k: Tensor) -> Tensor:
    """What a right operator gives for `y` or `du`; shapes as in `Mutant`. Returns `(…, L)` float64."""
    return convolve(x, k, conjugate=quantity == "du")


def _shifted(v: Tensor, k: Tensor) -> Tensor:
    y = convolve(v, k)
    return torch.cat([torch.zeros_like(y[..., :1]), y[..., :-1]], dim=-1)


def _without_tap(k: Tensor, tap: int) -> Tensor:
    k = k.clone()
    k[..., tap] = 0
    return k


def _first_block_zeroed(v: Tensor, k: Tensor) -> Tensor:
    y = convolve(v, k)
    y[..., :BLOCK] = 0
    return y


MUTANTS = (
    Mutant("zeros", "y", lambda v, k: torch.zeros_like(v)),
    Mutant("one sample late", "y", _shifted),
    Mutant("last tap dropped", "y", lambda v, k: convolve(v, _without_tap(k, -1))),
    Mutant("middle tap dropped", "y", lambda v, k: convolve(v, _without_tap(k, k.shape[-1] // 2))),
    Mutant("wrap-around left in", "y", lambda v, k: convolve(v, k, n=v.shape[-1])),
    Mutant(f"first {BLOCK} samples zeroed", "y", _first_block_zeroed),
    Mutant("conjugate forgotten", "du", lambda dy, k: convolve(dy, k)),
)
