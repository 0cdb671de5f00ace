"""How much of the future a masked causal filter sees, on white noise: exact sums, no drawing but of filters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longwave.masked import effective_filter
from longwave.masks import FrequencyMask

# Directions of the filter that the mask damps below this share are left out: without them its taps stay moderate.
DAMPED = 1e-4


@dataclass(frozen=True)
class Leak:
    """Of a low-pass mask that keeps the fraction `keep`, on `length` samples of white noise v.

    - `best`: the correlation of y[t] with v[t+1] under the causal filter for which it is largest.
    - `random`, `decaying`, `single`: the share of the effective filter's energy at negative lags, for taps N(0,1), the same
      decaying to e^-32 over the length, and a single tap at lag 0.
    """

    length: int
    keep: float
    best: float
    random: float
    decaying: float
    single: float


def measure(length: int, keep: float, *, filters: int = 64, seed: int = 0) -> Leak:
    """The leak of `FrequencyMask.lowpass(keep)` on `length` samples, at least 2."""
    mask = FrequencyMask.lowpass(keep, leaks_future=True)
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(filters, length, dtype=torch.float64, generator=generator)
    decay = torch.exp(-32 * torch.arange(length, dtype=torch.float64) / length)
    effective = effective_filter(torch.eye(length, dtype=torch.float64), length, mask)  # of every single tap
    # The correlation of y = conv(v, P k) with v[t+1] is P k at lag -1 over its norm: a quotient of quadratic forms of k.
    share, direction = torch.linalg.eigh(effective @ effective.T)
    seen = direction.T @ effective[:, length - 2]
    best = (seen.square() / share)[share > DAMPED].sum().sqrt().item()
    energies = (
        negative_energy(effective_filter(k, length, mask)) for k in (random, random * decay, torch.eye(1, length).double())
    )
    return Leak(length, keep, best, *energies)


def negative_energy(k_eff: torch.Tensor) -> float:
    """The share of the energy of effective filters (…, 2·length - 1) that stands at negative lags, of all of them together."""
    return (k_eff[..., : k_eff.shape[-1] // 2].square().sum() / k_eff.square().sum()).item()
