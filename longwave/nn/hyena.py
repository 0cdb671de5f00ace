"""`HyenaOperator`: projections, a short convolution, and long convolutions between gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.nn.decode import PART, LayerStream
from longwave.nn.filters import HyenaFilter
from longwave.nn.long_conv import LongConvOp
from longwave.nn.short_conv import ShortConv1d, ShortConvOp
from longwave.ops.long_conv import long_conv
from longwave.ops.short_conv import short_conv
from longwave.ops.stream import Stream


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
        short: the short convolution to call; a replacement keeps the signature of `longwave.short_conv`.
        split: whether inputs are spans of longer sequences, which the two operators put together: filters then have
            `max_length` taps, however short a span is.

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
        short: ShortConvOp = short_conv,
        split: bool = False,
    ) -> None:
        super().__init__()
        if d_model < 1 or order < 2:
            raise ArgumentError(f"HyenaOperator needs d_model >= 1 and order >= 2, but got {d_model} and {order}")
        self.d_model, self.order, self.backend, self.conv = d_model, order, backend, conv
        self.frequency_mask, self.split = frequency_mask, split
        self.in_proj = nn.Linear(d_model, (order + 1) * d_model)
        self.short = ShortConv1d((order + 1) * d_model, short_taps, layout="BLH", conv=short)
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
        parts = projected.split(self.d_model, dim=channels)
        filters = self.filters(projected.shape[time]).split(self.d_model)
        return self.between_gates(parts, filters, self.D, cu_seqlens, layout=layout)

    def project(self, u: Tensor, channels: slice) -> Tensor:
        """The projection and the short convolution of some channels: `u` (B, L, d_model) to their v, x_1, …, x_N side by side,
        (B, L, (order + 1) h), as `between_gates` takes them in parts.
        """

        def rows(parameter: Tensor) -> Tensor:
            return parameter.unflatten(0, (-1, self.d_model))[:, channels].flatten(0, 1)

        projected = F.linear(u, rows(self.in_proj.weight), rows(self.in_proj.bias))
        bias = None if self.short.bias is None else rows(self.short.bias)
        return self.short.conv(projected, rows(self.short.weight), bias, activation=self.short.activation, layout="BLH")

    def filters(self, length: int) -> Tensor:
        """The taps that `length` positions meet: ((order - 1) d_model, K), those of the first long convolution first."""
        return self.filter(self.filter.max_length if self.split else min(length, self.filter.max_length))

    def between_gates(
        self,
        parts: Sequence[Tensor],
        filters: Sequence[Tensor],
        D: Tensor,
        cu_seqlens: Tensor | None = None,
        *,
        layout: str = "BLH",
    ) -> Tensor:
        """v, x_1, …, x_N and the filters k_1, …, k_(N-1) to x_N · z_N, of all channels or of some: the parts (B, L, h) or
        (B, h, L) by `layout`, the filters (h, K), D (order - 1, h).
        """
        z, *gates = parts
        for n, k in enumerate(filters):
            postgate = gates[-1] if n == self.order - 2 else None
            z = self.conv(
                z, k, D[n], mode="causal", pregate=gates[n], postgate=postgate, cu_seqlens=cu_seqlens,
                frequency_mask=self.frequency_mask, layout=layout, backend=self.backend,
            )  # fmt: skip
        return z


class HyenaStream(LayerStream):
    """What `HyenaOperator.stream` opens: the short convolution and every long one as a `longwave.Stream`, with the layer's
    weights as they were then; the projections are the layer's own."""

    def __init__(
        self, layer: HyenaOperator, batch_size: int, max_length: int | None, max_rollback: int, backend: str | None
    ) -> None:
        if layer.frequency_mask is not None:
            raise ArgumentError(
                "a filter behind a frequency mask looks ahead and cannot be streamed; set the layer's frequency_mask to None"
            )
        self.layer = layer
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "dtype": layer.in_proj.weight.dtype,
            "max_length": max_length,
            "max_rollback": max_rollback,
            "backend": layer.backend if backend is None else backend,
        }
        with torch.no_grad():
            taps = min(layer.filter.max_length, max_length or layer.filter.max_length)
            filters = layer.filter(taps).split(layer.d_model)
            self.short = Stream(layer.short.weight.flip(-1), **options)
            self.long = [Stream(k, D, **options) for k, D in zip(filters, layer.D, strict=True)]
        self.streams = [self.short, *self.long]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        T = u.shape[1]
        projected = u.new_empty(u.shape[0], self.short.channels, T, dtype=self.short.dtype)
        for begin in range(0, T, PART):
            part = self.layer.in_proj(u[:, begin : begin + PART]).transpose(1, 2)
            if lengths is not None:
                given = torch.as_tensor(lengths, device=u.device).view(-1, 1, 1)
                at = torch.arange(begin, begin + part.shape[-1], device=u.device)
                part = part.masked_fill(at < T - given, 0)
            taken = self.short.extend(part) if begin else self.short.prefill(part)
            projected[..., begin : begin + PART] = taken
        return self._gated(projected, lambda stream, z: stream.prefill(z, lengths))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        projected = self.short.extend(self.layer.in_proj(u).transpose(1, 2))
        return self._gated(projected, lambda stream, z: stream.extend(z))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        return self._gated(self.short.step(self.layer.in_proj(u_t)), lambda stream, z: stream.step(z))

    def _gated(self, projected: Tensor, run: Callable[[Stream, Tensor], Tensor]) -> Tensor:
        """(B, (order + 1) d_model, T), or without T, as the short convolution gives them but for its bias."""
        layer, whole = self.layer, projected.dim() == 3
        if layer.short.bias is not None:
            projected += layer.short.bias.unsqueeze(-1) if whole else layer.short.bias
        z, *gates = projected.split(layer.d_model, dim=1)
        for stream, gate in zip(self.long, gates, strict=False):
            z = run(stream, gate * z)
        z = z * gates[-1]
        return F.linear(z.transpose(1, 2) if whole else z, layer.out_proj.weight, layer.out_proj.bias)
