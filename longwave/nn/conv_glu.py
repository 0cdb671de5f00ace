"""`FilterConv1d`, a convolution with a filter that a layer makes, and `ConvGLU`, the mixer around such convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError
from longwave.nn.decode import LayerStream
from longwave.nn.long_conv import LongConvOp
from longwave.ops.long_conv import long_conv
from longwave.ops.recurrence import RecurrentStream
from longwave.ops.stream import Stream


class FilterConv1d(nn.Module):
    """Depthwise convolution with the filters that another layer makes, and a skip `D`.

        y[b, t, h] = Σ_s k[h, s] · u[b, t - s, h] + D[h] · u[b, t, h]        (+ Σ_s k_rev[h, s] · u[b, t + s, h])

    Filters are as long as the input on every side that they have, at most their `max_length`; with `split` always `max_length`.
    Parameter (float32): `D` (channels,), N(0, 1).

    Args:
        filter: makes k: it has `channels` and `max_length`, and turns a number of taps into (channels, taps); or, if it is
            `two_sided`, into (channels, 2 taps), of the lags 1 - taps … taps.
        filter_rev: makes k_rev, of what comes after, beside a `filter` that is not `two_sided`; with neither the convolution
            is causal.
        backend: the convolution's backend; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.
        split: whether inputs are spans of longer sequences, which `conv` puts together.

    Raises:
        ArgumentError: a `filter_rev` beside a filter that is `two_sided`.
    """

    def __init__(
        self,
        filter: nn.Module,
        filter_rev: nn.Module | None = None,
        *,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
        split: bool = False,
    ) -> None:
        super().__init__()
        self.split = split
        self.filter, self.filter_rev, self.backend, self.conv = filter, filter_rev, backend, conv
        self.channels, self.max_length = cast(int, filter.channels), cast(int, filter.max_length)
        both = bool(getattr(filter, "two_sided", False))
        if both and filter_rev is not None:
            raise ArgumentError("FilterConv1d got a filter that is two_sided and a filter_rev; leave filter_rev out")
        self.mode, self.is_causal = "same" if both else "causal", not both and filter_rev is None
        self.D = nn.Parameter(torch.randn(self.channels))

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Convolve `u` (B, L, channels); the documents of (1, total, channels) apart with `cu_seqlens`.

        Raises:
            ArgumentError: whatever `longwave.long_conv` refuses.
        """
        taps = self.max_length if self.split else min(u.shape[1], self.max_length)
        k_rev = None if self.filter_rev is None else self.filter_rev(taps)
        return self.conv(
            u, self.filter(taps), self.D, mode=self.mode, k_rev=k_rev, cu_seqlens=cu_seqlens, layout="BLH", backend=self.backend
        )

    def stream(
        self, batch_size: int, *, max_length: int | None = None, max_rollback: int = 0, backend: str | None = None
    ) -> Stream:
        """A `longwave.Stream` with the filters as they are now, over (B, channels, T).

        Raises:
            ArgumentError: the convolution is not causal, or a size is out of range.
        """
        if not self.is_causal:
            raise ArgumentError("a two-sided convolution looks ahead and cannot be streamed; call it on whole inputs")
        with torch.no_grad():
            k = self.filter(min(self.max_length, max_length or self.max_length))
            return Stream(
                k,
                self.D,
                batch_size=batch_size,
                dtype=self.D.dtype,
                max_length=max_length,
                max_rollback=max_rollback,
                backend=self.backend if backend is None else backend,
            )


class ConvGLU(nn.Module):
    """A sequence mixer: a depthwise convolution, GELU, and a gated linear map that mixes channels.

        y = GLU(W · GELU(long(u)) + b)

    With more heads than one, `long` gets so many copies of u side by side, and W takes all of them.

    Args:
        d_model: channels of input and result.
        long: the convolution, with `channels` = heads · d_model: (B, L, channels) and `cu_seqlens` to the same; its `stream`
            opens what takes (B, channels, T).
        heads: filters a channel, at least 1.

    Raises:
        ArgumentError: `long` has another number of channels.

    Source: Gu et al. 2021 (arXiv 2111.00396), whose layer S4D (arXiv 2206.11893), SGConv (arXiv 2210.09298) and LongConv
    (arXiv 2302.06646) keep.
    """

    def __init__(self, d_model: int, long: nn.Module, *, heads: int = 1) -> None:
        super().__init__()
        if d_model < 1 or heads < 1 or long.channels != heads * d_model:
            raise ArgumentError(
                "ConvGLU needs d_model and heads >= 1 and a convolution of heads · d_model channels, "
                f"but got {d_model}, {heads} and {long.channels}"
            )
        self.d_model, self.long, self.heads = d_model, long, heads
        self.out_proj = nn.Linear(heads * d_model, 2 * d_model)

    def forward(self, u: Tensor, *, cu_seqlens: Tensor | None = None, **options: Any) -> Tensor:
        """Mix `u` (B, L, d_model) along L, documents apart with `cu_seqlens`; the result has its shape. Other keywords are
        those of `long`, as the `time_scale` of state spaces.

        Raises:
            ArgumentError: `u` is not (B, L, d_model), or the convolution refuses it.
        """
        if u.ndim != 3 or u.shape[-1] != self.d_model:
            raise ArgumentError(f"{type(self).__name__} takes (B, L, {self.d_model}), but got {tuple(u.shape)}")
        return self.mixed(self.long(self.copies(u), cu_seqlens=cu_seqlens, **options))

    def copies(self, u: Tensor) -> Tensor:
        """(…, d_model) to (…, heads · d_model)."""
        return u if self.heads == 1 else torch.cat([u] * self.heads, dim=-1)

    def mixed(self, y: Tensor) -> Tensor:
        """What follows the convolution, position by position: (…, heads · d_model) to (…, d_model)."""
        return F.glu(self.out_proj(F.gelu(y)), dim=-1)

    def stream(self, batch_size: int, **options: Any) -> ConvGLUStream:
        """This layer for positions that come one by one; options are those of `longwave.Stream`, and further ones of `long`.

        Raises:
            ArgumentError: the convolution looks ahead, or a size is out of range.
        """
        return ConvGLUStream(self, cast(FilterConv1d, self.long).stream(batch_size, **options))


class ConvGLUStream(LayerStream):
    """What `ConvGLU.stream` opens."""

    def __init__(self, layer: ConvGLU, long: Stream | RecurrentStream) -> None:
        self.layer, self.long, self.streams = layer, long, [long]

    @torch.no_grad()
    def prefill(self, u: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        return self.layer.mixed(self.long.prefill(self.layer.copies(u).transpose(1, 2), lengths).transpose(1, 2))

    @torch.no_grad()
    def extend(self, u: Tensor) -> Tensor:
        return self.layer.mixed(self.long.extend(self.layer.copies(u).transpose(1, 2)).transpose(1, 2))

    @torch.no_grad()
    def step(self, u_t: Tensor) -> Tensor:
        return self.layer.mixed(self.long.step(self.layer.copies(u_t)))
