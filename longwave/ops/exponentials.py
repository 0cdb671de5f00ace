"""Sums of exponentials without their table: filters, last states and responses of diagonal state spaces.

A state space with diagonal transitions z = exp(log_z) has the filter k[l] = Re Σ_n c[n] z[n]^l. With l = i·J + j, z^l is
z^(i·J) · z^j: two tables of about √taps powers for each state, and one product of real matrices over the states.
Powers are made in float64, where an angle after a million samples is exact to 1e-9, and rounded once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Samples that are added to a state at a time: what is held beside them is 1/256 of a table of all powers.
PART = 2**16


def exponential_sums(log_z: Tensor, c: Tensor, taps: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Re Σ_n c[n] exp(log_z[n] · l) for l = 0 … taps - 1.

    Args:
        log_z: (H, N), complex128, real parts at most 0: the logarithm of a step.
        c: (H, N) or (B, H, N), complex128.
        taps: at least 1.
        dtype: of the result, and of the sum over n.

    Returns:
        (H, taps) or (B, H, taps). About 4·N·√taps float64 numbers a channel are held beside it, for a backward pass too.
    """
    fine, coarse = _tables(log_z, taps)
    left = c.unsqueeze(-1) * coarse
    # Re(a·b) over pairs of real numbers.
    left_MI = torch.cat([left.real, -left.imag], dim=-2).to(dtype)
    right_MJ = torch.cat([fine.real, fine.imag], dim=-2).to(dtype)
    with torch.autocast(log_z.device.type, enabled=False):
        k_IJ = left_MI.transpose(-1, -2) @ right_MJ
    return k_IJ.flatten(-2)[..., :taps]


def last_state(log_z: Tensor, u: Tensor, state: Tensor) -> Tensor:
    """x_T of the recurrence x_t = z x_{t-1} + u_t, without its steps.

    Args:
        log_z: (H, N), complex128.
        u: (B, H, T), any real floating dtype; T may be 0.
        state: (B, H, N), complex128: x before the first sample.

    Returns:
        (B, H, N), complex128.
    """
    for part in u.split(PART, dim=-1) if u.shape[-1] else ():
        T = part.shape[-1]
        fine, coarse = _tables(log_z, T)
        J, N = fine.shape[-1], fine.shape[-2]
        # Counted from the end, so that sample l is multiplied by z^l.
        v = torch.nn.functional.pad(part.to(torch.float64).flip(-1), (0, -T % J)).unflatten(-1, (-1, J))
        inner = v @ torch.cat([fine.real, fine.imag], dim=-2).transpose(-1, -2)
        sums_IN = torch.complex(inner[..., :N], inner[..., N:])
        state = torch.exp(log_z * T) * state + (coarse.transpose(-1, -2) * sums_IN).sum(-2)
    return state


def _tables(log_z: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """z^j for j < J and z^(i·J) for i < I, (H, N, J) and (H, N, I), where I·J >= taps."""
    J = math.ceil(taps**0.5)
    I = -(-taps // J)  # noqa: E741
    steps = torch.arange(J, device=log_z.device, dtype=torch.float64)
    fine = torch.exp(log_z.unsqueeze(-1) * steps)
    coarse = torch.exp(log_z.unsqueeze(-1) * (J * torch.arange(I, device=log_z.device, dtype=torch.float64)))
    return fine, coarse
