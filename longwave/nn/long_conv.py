"""`LongConv1d`: a depthwise convolution whose filter is a parameter, one tap for every sample if wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.ops.long_conv import long_conv

# What a layer calls to convolve: `longwave.long_conv`, or an operator that keeps its signature (over a split sequence,
# say).
LongConvOp = Callable[..., Tensor]

MODES = ("causal", "circular", "same")


class LongConv1d(nn.Module):
    """Depthwise convolution of `channels` signals with explicit filters of `taps` samples and a skip `D`.

        y[b, h] = conv(u[b, h], k[h]) + D[h] · u[b, h]

    Parameters (float32): `k` (channels, taps), drawn from N(0, 1/taps) so that white noise keeps its scale; `D`
    (channels,), ones, absent with `skip=False`.

    Args:
        channels: H, at least 1.
        taps: K, at least 1; shorter or longer than the input.
        mode: `causal`, `circular` or `same`, as in `longwave.long_conv`.
        skip: whether there is a `D`.
        layout: `BHL` (input (B, H, L)) or `BLH` (input (B, L, H)).
        frequency_mask: the frequencies of the filters that are kept, or None for all; also an attribute.
        backend: the backend's name; `auto` chooses.
        conv: the operator to call; a replacement keeps the signature of `longwave.long_conv`.

    Raises:
        ArgumentError: a size below 1 or an unknown mode.
    """

    def __init__(
        self,
        channels: int,
        taps: int,
        *,
        mode: str = "causal",
        skip: bool = True,
        layout: str = "BHL",
        frequency_mask: FrequencyMask | None = None,
        backend: str = "auto",
        conv: LongConvOp = long_conv,
    ) -> None:
        super().__init__()
        if channels < 1 or taps < 1:
            raise ArgumentError(f"LongConv1d needs channels >= 1 and taps >= 1, but got {channels} and {taps}")
        if mode not in MODES:
            raise ArgumentError(f"LongConv1d got mode {mode!r}; use one of {', '.join(MODES)}")
        self.mode, self.layout, self.backend, self.conv = mode, layout, backend, conv
        self.frequency_mask = frequency_mask
        self.k = nn.Parameter(torch.randn(channels, taps) * taps**-0.5)
        self.D = nn.Parameter(torch.ones(channels)) if skip else None

    def forward(self, u: Tensor, *, pregate: Tensor | None = None, postgate: Tensor | None = None) -> Tensor:
        """Convolve `u`, (B, H, L) or (B, L, H) by `layout`, any floating dtype; the gates have its shape and dtype.

        Returns:
            A tensor of `u`'s shape and dtype.

        Raises:
            ArgumentError: whatever `longwave.long_conv` refuses.
        """
        return self.conv(
            u,
            self.k,
            self.D,
            mode=self.mode,
            pregate=pregate,
            postgate=postgate,
            frequency_mask=self.frequency_mask,
            layout=self.layout,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        H, K = self.k.shape
        mask = "" if self.frequency_mask is None else f", frequency_mask={self.frequency_mask!r}"
        return f"channels={H}, taps={K}, mode={self.mode!r}, skip={self.D is not None}, layout={self.layout!r}{mask}"
