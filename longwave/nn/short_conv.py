"""`ShortConv1d`: a causal depthwise convolution of a few taps, the local half of most long-convolution layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.ops.short_conv import short_conv

# What a layer calls for its short convolution: `longwave.short_conv`, or an operator that keeps its signature.
ShortConvOp = Callable[..., Tensor]


class ShortConv1d(nn.Module):
    """Causal depthwise convolution of `channels` signals with `taps` taps, a bias and an optional activation.

        y[b, h, t] = activation(bias[h] + sum over s of weight[h, taps - 1 - s] · x[b, h, t - s])

    Parameters (float32): `weight` (channels, taps) and `bias` (channels,), uniform in ±1/sqrt(taps) as in `nn.Conv1d`.

    Args:
        channels: H, at least 1.
        taps: K, 1 to 256.
        bias: whether there is a bias.
        activation: None, `silu` or `gelu`, as in `longwave.short_conv`.
        layout: `BHL` or `BLH`.
        conv: the operator to call; a replacement keeps the signature of `longwave.short_conv`.

    Raises:
        ArgumentError: a size out of range.
    """

    def __init__(
        self,
        channels: int,
        taps: int,
        *,
        bias: bool = True,
        activation: str | None = None,
        layout: str = "BHL",
        conv: ShortConvOp = short_conv,
    ) -> None:
        super().__init__()
        if channels < 1 or not 1 <= taps <= 256:
            raise ArgumentError(f"ShortConv1d needs channels >= 1 and 1 to 256 taps, but got {channels} and {taps}")
        self.activation, self.layout, self.conv = activation, layout, conv
        bound = taps**-0.5
        self.weight = nn.Parameter(torch.empty(channels, taps).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Convolve `x`, (B, H, L) or (B, L, H) by `layout`, or packed documents as in `longwave.short_conv`; the result has
        its shape and dtype.

        Raises:
            ArgumentError: whatever `longwave.short_conv` refuses.
        """
        return self.conv(x, self.weight, self.bias, activation=self.activation, layout=self.layout, cu_seqlens=cu_seqlens)

    def extra_repr(self) -> str:
        H, K = self.weight.shape
        return f"channels={H}, taps={K}, activation={self.activation!r}, layout={self.layout!r}"
