"""What is true: each operator as a direct sum in float64 (complex128 for complex input). No FFT, no cleverness.

The functions take what the public ones take, except `backend` and `precision`, and return the exact result unrounded, in
float64, so that an error is measured against the truth and not against its rounding. They are differentiable.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor


def long_conv_ref(
    u: Tensor,
    k: Tensor,
    D: Tensor | None = None,
    *,
    mode: str = "causal",
    k_rev: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    history: Tensor | None = None,
    frequency_mask: Any = None,
    cu_seqlens: Tensor | None = None,
    layout: str = "BHL",
) -> Tensor:
    """`longwave.long_conv` as the sum over taps that its docstring writes down: O(L·K) work."""
    if u.dim() == 2 or layout == "BLH":
        batched = u.dim() == 3

        def as_bhl(x: Tensor | None) -> Tensor | None:
            x = x if x is None or batched else x.unsqueeze(0)
            return x if x is None or layout == "BHL" else x.transpose(1, 2)

        u3 = u if batched else u.unsqueeze(0)
        y = long_conv_ref(
            u3 if layout == "BHL" else u3.transpose(1, 2), k, D, mode=mode, k_rev=k_rev, pregate=as_bhl(pregate),
            postgate=as_bhl(postgate), history=as_bhl(history),
            frequency_mask=frequency_mask, cu_seqlens=cu_seqlens,
        )  # fmt: skip
        y = y if layout == "BHL" else y.transpose(1, 2)
        return y if batched else y.squeeze(0)

    v = _exact(u) if pregate is None else _exact(pregate) * _exact(u)
    L = v.shape[-1]
    bounds = [0, L] if cu_seqlens is None else cu_seqlens.tolist()
    documents = []
    for i, (a, b) in enumerate(itertools.pairwise(bounds)):
        before = _exact(history) if history is not None and i == 0 else v[..., :0]
        documents.append(_one_document(v[..., a:b], before, k, D, mode, k_rev, frequency_mask))
    y = torch.cat(documents, dim=-1)
    return y if postgate is None else _exact(postgate) * y


def _one_document(v: Tensor, before: Tensor, k: Tensor, D: Tensor | None, mode: str, k_rev: Tensor | None, mask: Any) -> Tensor:
    H, L, K = v.shape[1], v.shape[2], k.shape[-1]
    out_len = L + K - 1 if mode == "full" else L
    t = torch.arange(out_len, device=v.device)
    first_lag = -((K - 1) // 2) if mode == "same" else 0
    taps = [(first_lag + s, _rows(k, H)[..., s]) for s in range(K)]
    if k_rev is not None:
        taps += [(-s, _rows(k_rev, H)[..., s]) for s in range(k_rev.shape[-1])]

    if mask is not None and L:
        taps = _masked_taps(taps, mask, before.shape[-1] + L, L, out_len, mode == "circular")

    y = v.new_zeros(v.shape[0], H, out_len)
    for lag, tap in taps:
        y = y + tap.unsqueeze(-1) * _at(v, before, t - lag, periodic=mode == "circular")
    if D is not None:
        y = y + _exact(D).unsqueeze(-1) * _at(v, before[..., :0], t, periodic=False)
    return y


def _masked_taps(
    taps: list[tuple[int, Tensor]], mask: Any, in_len: int, L: int, out_len: int, circular: bool
) -> list[tuple[int, Tensor]]:
    """The effective filter by its definition: the spectrum A(f) = Σ k[ℓ] e^(-2πifℓ) of the taps at each frequency of the grid,
    where the mask keeps |f|, and back: k[ℓ] = 1/N Σ Re(A(f) e^(2πifℓ)), real and imaginary parts of k apart. Both sums over
    frequencies are one matrix of cosines."""
    first, last = (0, L - 1) if circular else (1 - L, out_len - 1 + in_len - L)  # the lags that connect inputs and outputs
    N = L if circular else _grid(-(-(last - first + 1) // 2))
    turns = 4 * torch.arange(N) + (0 if circular else 1)  # frequencies in units of 1/4N, so that phases are exact
    folded = (torch.minimum(turns, 4 * N - turns) / (4 * N)).tolist()
    kept = [j for j in range(N) if j % mask.count in mask.blocks and any(a <= folded[j] <= b for a, b in mask.bands)]
    lags = torch.arange(first, last + 1)
    taps = [(lag, tap) for lag, tap in taps if circular or first <= lag <= last]
    difference = lags.unsqueeze(1) - torch.tensor([lag for lag, _ in taps], dtype=torch.int64)
    apart, place = difference.unique(return_inverse=True)  # as large sums as these are exact only in pairs of pairs
    sums = [_cosine(turns[kept] * d, N).sum() / N for d in apart.tolist()]
    P = torch.stack(sums)[place] if sums else torch.zeros(difference.shape, dtype=torch.float64)
    rows = torch.broadcast_tensors(*(tap for _, tap in taps)) if taps else ()
    k = torch.stack(rows, dim=-1) if rows else torch.zeros(1, 0, dtype=torch.float64)
    return list(zip(lags.tolist(), (k @ P.T.to(k.dtype)).unbind(-1), strict=True))


def _cosine(quarters: Tensor, N: int) -> Tensor:
    """cos(2π·quarters/4N), from angles of an eighth of a turn at most."""
    m = quarters % (4 * N)
    m = torch.minimum(m, 4 * N - m)
    sign = torch.where(m > N, -1.0, 1.0).double()
    m = torch.minimum(m, 2 * N - m)
    angle = torch.minimum(m, N - m).double() * (math.pi / (2 * N))
    return sign * torch.where(2 * m <= N, torch.cos(angle), torch.sin(angle))


def _grid(n: int) -> int:
    """The smallest 2^a·3^b·5^c from n on; from 16,384 on 256 times one."""
    step = 1 if n < 16_384 else 256
    multiple = -(-n // step)
    while not _is_smooth(multiple):
        multiple += 1
    return step * multiple


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def _at(v: Tensor, before: Tensor, index: Tensor, periodic: bool) -> Tensor:
    """v at any index: `before` holds what precedes index 0; zero outside, unless v is periodic."""
    L, P = v.shape[-1], before.shape[-1]
    if L == 0:
        return v
    if periodic:
        return v[..., index % L]
    x = torch.cat([before, v], dim=-1)
    inside = (index >= -P) & (index < L)
    return torch.where(inside, x[..., (index + P).clamp(0, P + L - 1)], x.new_zeros(()))


def _rows(k: Tensor, H: int) -> Tensor:
    """(H, K) or (B, H, K) from any filter shape."""
    return _exact(k).repeat_interleave(H // k.shape[-2], dim=-2)


def short_conv_ref(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    layout: str = "BHL",
    state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """`longwave.short_conv` as the sum over taps that its docstring writes down; `w[:, -1]` weighs the present sample."""
    before = state if w.shape[-1] > 1 else None  # one tap looks at nothing before the present
    y = long_conv_ref(x, w.flip(-1), history=before, cu_seqlens=cu_seqlens, layout=layout)
    if bias is not None:
        y = y + (_exact(bias).unsqueeze(-1) if layout == "BHL" else _exact(bias))
    if activation == "silu":
        return y / (1 + torch.exp(-y))
    if activation == "gelu":
        return y * 0.5 * (1 + torch.erf(y / 2**0.5))
    return y


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
