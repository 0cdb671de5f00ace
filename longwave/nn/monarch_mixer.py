"""`MonarchMixer`: projections, a short convolution, and two-sided implicit long convolutions, one of them gated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.nn.filters import HyenaFilter
from longwave.nn.long_conv import LongConvOp
from longwave.nn.short_conv import ShortConv1d, ShortConvOp
from longwave.ops.long_conv import long_conv
from longwave.ops.short_conv import short_conv


class MonarchMixer(nn.Module):
    """A sequence mixer that sees both sides of every position.

        x_1, x_2, v = short_conv(in_proj(u))                each (B, L, d_model)
        g = x_2 · (conv(x_1 · v) + D_1 · x_1 · v)
        r = conv'(u) + D_2 · u
        y = out_proj(g + r)

    conv and conv' have a filter k of lags 0, 1, … and a filter k_rev of lags 0, -1, …, each a `HyenaFilter` of its own, so that
    there are four. They are as long as the input, at most `max_length`. r takes the place of a residual connection.

    Args:
        d_model: channels.
        max_length: taps that the filters are made for, on each side.
        short_taps: taps of the (causal) short convolution.
        circular: whether the ends meet in the long convolutions; filters are then `max_length` taps whatever the input, and
            fold onto a shorter one.
        filter_options: keywords of `HyenaFilter`.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        short: the short convolution to call; a replacement keeps the signature of `longwave.short_conv`.
        split: whether inputs are spans of longer sequences, which the two operators put together: filters then have
            `max_length` taps, however short a span is.

    Raises:
        ArgumentError: a size out of range.

    Source: Fu et al. 2023, Monarch Mixer (arXiv 2310.12109), and the authors' program, where k_rev begins at lag
    -1.
    """

    def __init__(
        self,
        d_model: int,
        max_length: int,
        *,
        short_taps: int = 3,
        circular: bool = False,
        filter_options: dict[str, Any] | None = None,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        short: ShortConvOp = short_conv,
        split: bool = False,
    ) -> None:
        super().__init__()
        if d_model < 1:
            raise ArgumentError(f"MonarchMixer needs d_model >= 1, but got {d_model}")
        self.d_model, self.max_length, self.circular = d_model, max_length, circular
        self.backend, self.conv, self.split = backend, conv, split
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        self.short = ShortConv1d(3 * d_model, short_taps, layout="BLH", conv=short)
        # k and k_rev of conv, then of conv'.
        self.filters = nn.ModuleList(HyenaFilter(d_model, max_length, **(filter_options or {})) for _ in range(4))
        self.D = nn.Parameter(torch.randn(2, d_model))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Mix `u` (B, L, d_model) along L; the result has its shape, and the projections' dtype under autocast.

        With `cu_seqlens`, as in `longwave.long_conv`, u is (1, total, d_model) and its documents are mixed apart.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or the convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"MonarchMixer takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        x1, x2, v = self.short(self.in_proj(u), cu_seqlens=cu_seqlens).split(self.d_model, dim=-1)
        taps = self.max_length if self.circular or self.split else min(u.shape[1], self.max_length)
        k, k_rev, k_direct, k_direct_rev = (make(taps) for make in self.filters)
        options: dict[str, Any] = {
            "mode": "circular" if self.circular else "causal",
            "cu_seqlens": cu_seqlens,
            "layout": "BLH",
            "backend": self.backend,
        }
        gated = self.conv(v, k, self.D[0], k_rev=k_rev, pregate=x1, postgate=x2, **options)
        direct = self.conv(u, k_direct, self.D[1], k_rev=k_direct_rev, **options)
        return self.out_proj(gated + direct)
