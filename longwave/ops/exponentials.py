"""Sums of exponentials without their table: filters, last states and responses of diagonal state spaces.

A state space with diagonal transitions z = exp(log_z) has the filter k[l] = Re Σ_n c[n] z[n]^l. With l = i·J + j, z^l is
z^(i·J) · z^j: two tables of about √taps powers for each state, and one product of real matrices over the states.
Powers are made in float64, where an angle after a million samples is exact to 1e-9, and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from longwave.errors import ArgumentError
from longwave.ops.long_conv import long_conv

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


def all_states(
    log_z: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
    conv: Callable[..., Tensor] = long_conv,
) -> Tensor:
    """Every x_t of the complex recurrence x_t = z x_{t-1} + v_t, by one convolution of real numbers.

    With z = r e^(iθ), e^(-iθt) x_t is the recurrence of e^(-iθt) v_t with the real step r: inputs are turned back, convolved
    with r^l, real and imaginary parts alike, and turned forth. A state before the first sample is one sample more.

    Args:
        log_z: (P,), complex128, real parts at most 0.
        v: (B, L, 2 P, S), float32 or float64: all real parts, then all imaginary ones; S recurrences share each z.
        state: (B, 2 P, S): x before the first sample, 0 without it.
        cu_seqlens: as in `longwave.long_conv`, for v of one row: documents, each of which begins with 0; `state` is then one
            document's, so that the two exclude each other.
        backend, conv: of the convolution.

    Returns:
        (B, L, 2 P, S), v's dtype.

    Raises:
        ArgumentError: no sample, both a state and documents, or what the convolution refuses.
    """
    if not v.shape[1]:
        raise ArgumentError(f"the input is empty, shape {tuple(v.shape)}; give at least one sample")
    if state is not None and cu_seqlens is not None:
        raise ArgumentError("a state and cu_seqlens were given; put the state into v, as the first sample of its document")
    x = v if state is None else torch.cat([state.unsqueeze(1).to(v.dtype), v], dim=1)
    L, P = x.shape[1], log_z.shape[0]
    fine, coarse = _tables(1j * log_z.imag, L)
    narrow = torch.complex128 if v.dtype == torch.float64 else torch.complex64
    turn_LP = (coarse.to(narrow).unsqueeze(-1) * fine.to(narrow).unsqueeze(-2)).flatten(1)[:, :L].T.unsqueeze(-1)
    cos, sin = turn_LP.real, turn_LP.imag
    re, im = x[:, :, :P], x[:, :, P:]
    x = torch.cat([re * cos + im * sin, im * cos - re * sin], dim=2)
    decay = torch.complex(log_z.real, torch.zeros_like(log_z.real)).unsqueeze(-1)
    k = exponential_sums(decay, torch.ones_like(decay), L, dtype=v.dtype)
    y = conv(
        x.flatten(2), k.repeat(2, 1), mode="causal", cu_seqlens=cu_seqlens, layout="BLH", backend=backend
    ).unflatten(2, x.shape[2:])  # fmt: skip
    re, im = y[:, :, :P], y[:, :, P:]
    y = torch.cat([re * cos - im * sin, re * sin + im * cos], dim=2)
    return y if state is None else y[:, 1:]


def _tables(log_z: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """z^j for j < J and z^(i·J) for i < I, (H, N, J) and (H, N, I), where I·J >= taps."""
    J, I = _sides(taps)  # noqa: E741
    return _powers(log_z, J), _powers(log_z * J, I)


def _powers(log_z: Tensor, count: int) -> Tensor:
    """z^j for j < count, (..., count), as products of two powers each: an exponential costs more than a product."""
    J, I = _sides(count)  # noqa: E741
    fine, coarse = (
        torch.exp(log_z.unsqueeze(-1) * step * torch.arange(n, device=log_z.device, dtype=torch.float64))
        for step, n in ((1, J), (J, I))
    )
    return (coarse.unsqueeze(-1) * fine.unsqueeze(-2)).flatten(-2)[..., :count]


def _sides(count: int) -> tuple[int, int]:
    """J and I, both near the root of `count`, with I·J >= count."""
    J = math.ceil(count**0.5)
    return J, -(-count // J)
