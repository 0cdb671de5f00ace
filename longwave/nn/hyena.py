"""`HyenaOperator`: projections, a short convolution, and long convolutions between gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.nn.decode import HyenaStream
from longwave.nn.filters import HyenaFilter
from longwave.nn.long_conv import LongConvOp
from longwave.nn.short_conv import ShortConv1d
from longwave.ops.long_conv import long_conv


class HyenaOperator(nn.Module):
    """A causal sequence mixer of `order` gates and `order - 1` implicit long convolutions.

        v, x_1, ..., x_N = short_conv(in_proj(u))          each (B, L, d_model)
        z_1 = v
        z_(n+1) = k_n * (x_n · z_n) + D_n · x_n · z_n      n = 1 ... N - 1
        y = out_proj(x_N · z_N)

    Every gate is an argument of the convolution beside it, and v, x_1, ..., x_N are strided slices of one projection:
    nothing is copied. Filters are as long as the input, at most `max_length`.

    Args:
        d_model: channels of the input, at least 1.
        max_length: taps the filters are made for; a longer input meets `max_length` taps.
        order: N >= 2.
        short_taps: taps of the short convolution.
        filter_options: keywords of `HyenaFilter`.
        frequency_mask: the frequencies of the long filters that are kept, or None for all; also an attribute. They leak:
            the mask must say so.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.

    Raises:
        ArgumentError: a size out of range.

    Source: Poli et al. 2023 (arXiv 2302.10866), definition 3.1. As in the authors' program, the first of the paper's N
    convolutions is the short one, so that order 2 has a single long filter.
    """

    def __init__(
        self,
        d_model: int,
        max_length: int,
        *,
        order: int = 2,
        short_taps: int = 3,
        filter_options: dict[str, Any] | None = None,
        frequency_mask: FrequencyMask | None = None,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if d_model < 1 or order < 2:
            raise ArgumentError(f"HyenaOperator needs d_model >= 1 and order >= 2, but got {d_model} and {order}")
        self.d_model, self.order, self.backend, self.conv = d_model, order, backend, conv
        self.frequency_mask = frequency_mask
        self.in_proj = nn.Linear(d_model, (order + 1) * d_model)
        self.short = ShortConv1d((order + 1) * d_model, short_taps, layout="BLH")
        self.filter = HyenaFilter((order - 1) * d_model, max_length, **(filter_options or {}))
        self.D = nn.Parameter(torch.randn(order - 1, d_model))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Mix `u` (B, L, d_model) along L; the result has its shape, and the projections' dtype under autocast.

        With `cu_seqlens`, as in `longwave.long_conv`, u is (1, total, d_model) and its documents are mixed apart.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or the convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"HyenaOperator takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        return self.out_proj(self.convolve(self.short(self.in_proj(u), cu_seqlens=cu_seqlens), cu_seqlens))

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> HyenaStream:
        """This layer for positions that come one by one: `prefill`, `extend` and `step` give what `forward` gives of the whole.

        Args:
            batch_size, max_length, max_rollback: as in `longwave.Stream`.
            backend: of the streams; the layer's own when not given.

        Raises:
            ArgumentError: there is a frequency mask, or a size is out of range.
        """
        return HyenaStream(self, batch_size, max_length, max_rollback, backend)

    def convolve(self, projected: Tensor, cu_seqlens: Tensor | None = None, *, layout: str = "BLH") -> Tensor:
        """The long convolutions and their gates alone: (B, L, (order + 1) d_model), as `short` gives them, to
        (B, L, d_model), as `out_proj` takes them; with `layout="BHL"` both with the last two dimensions exchanged.
        """
        channels, time = (2, 1) if layout == "BLH" else (1, 2)
        z, *gates = projected.split(self.d_model, dim=channels)
        filters = self.filter(min(projected.shape[time], self.filter.max_length)).split(self.d_model)
        for n, k in enumerate(filters):
            postgate = gates[-1] if n == self.order - 2 else None
            z = self.conv(
                z, k, self.D[n], mode="causal", pregate=gates[n], postgate=postgate, cu_seqlens=cu_seqlens,
                frequency_mask=self.frequency_mask, layout=layout, backend=self.backend,
            )  # fmt: skip
        return z
