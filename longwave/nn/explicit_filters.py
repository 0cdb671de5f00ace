"""Explicit filters: parameters for taps, kept short or smooth by how taps are made of them."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longwave.errors import ArgumentError


class SquashedFilter(nn.Module):
    """`channels` filters of a parameter a tap, smoothed and then squashed.

        smooth:  m[i] = (k[i - smooth] + … + k[i + smooth]) / (2 smooth + 1)        zeros beyond the ends
        squash:  k̄[i] = sign(m[i]) · max(|m[i]| - squash, 0)

    Squashing sets small taps to zero and so keeps long filters sparse in time, and smooth in frequency.

    Parameter (float32): `k` (channels, max_length), or (channels, 2 max_length) if two-sided, of the lags 1 - max_length …
    max_length; drawn from N(0, 0.02²) under decays that run over the channels from slow to fast: exp(-(|lag| / max_length) ·
    (channels / 2)^(h / channels)). The tap of lag max_length connects no two of `max_length` positions and begins as 0: it is
    there so that rows begin where cache lines do.

    Args:
        channels: H, at least 1.
        max_length: taps, on either side with `two_sided`; shorter filters are those of the smallest lags.
        two_sided: whether there are taps of what comes after too.
        squash: λ, the soft threshold, at least 0.
        smooth: taps on either side that the mean takes in, at least 0; 0 leaves taps as they are.

    Raises:
        ArgumentError: a size or threshold out of range.

    Source: Fu et al. 2023, Simple Hardware-Efficient Long Convolutions (arXiv 2302.06646).
    """

    # As in the authors' Pathfinder, taps are trained at a quarter of the model's rate.
    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {"k": {"lr_scale": 0.25, "weight_decay": 0.0}}

    def __init__(
        self, channels: int, max_length: int, *, two_sided: bool = False, squash: float = 0.001, smooth: int = 0
    ) -> None:
        super().__init__()
        if min(channels, max_length) < 1 or squash < 0 or smooth < 0:
            raise ArgumentError(
                "SquashedFilter needs channels and max_length >= 1 and squash and smooth >= 0, "
                f"but got {channels}, {max_length}, {squash} and {smooth}"
            )
        self.channels, self.max_length, self.squash, self.smooth = channels, max_length, squash, smooth
        self.two_sided = two_sided
        rate_H = (channels / 2) ** (torch.arange(channels) / channels)
        share_K = torch.arange(*((1 - max_length, max_length + 1) if two_sided else (0, max_length))).abs() / max_length
        k = 0.02 * torch.randn(channels, len(share_K)) * torch.exp(-rate_H[:, None] * share_K)
        k[:, 2 * max_length - 1 :] = 0
        self.k = nn.Parameter(k)

    def forward(self, taps: int | None = None) -> Tensor:
        """The taps of lags 0 … `taps` - 1 (all `max_length` without it), (channels, taps); or, two-sided, of 1 - `taps` …
        `taps`, (channels, 2 taps). float32 under autocast too.

        Raises:
            ArgumentError: `taps` is not between 1 and `max_length`.
        """
        taps = _checked(self, taps)
        first = self.max_length - taps if self.two_sided else 0
        stop = first + taps * (1 + self.two_sided)
        with torch.autocast(self.k.device.type, enabled=False):
            # The outer taps' means take zeros in only where the filter itself ends.
            begin = max(0, first - self.smooth)
            k = self.k[:, begin : stop + self.smooth].to(torch.promote_types(self.k.dtype, torch.float32))
            if self.smooth:
                k = F.avg_pool1d(k, 2 * self.smooth + 1, stride=1, padding=self.smooth)[:, first - begin : stop - begin]
            return F.softshrink(k, self.squash) if self.squash else k

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, max_length={self.max_length}, two_sided={self.two_sided}, squash={self.squash}, "
            f"smooth={self.smooth}"
        )


class MultiScaleFilter(nn.Module):
    """`channels` filters of a few parameters a scale, each scale twice as long and smaller by a factor than the one before.

        k = (1 / Z) · [k_0, k_1, …, k_(S-1)]        k_i[h] = decay[h]^(-i) · upsample(w_i[h], 2^max(i - 1, 0) · scale_taps)

    S is as small as makes at least `max_length` taps. Upsampling is linear between the w_i, which stand in the middles of equal
    parts. Z, a number a channel, makes k's norm 1 as drawn and then stays; decay runs linearly over the channels from
    `slow_decay` to `fast_decay`, and is not trained.

    Parameter (float32): `weight` (S, channels, scale_taps), N(0, 1). Buffer: `norm` (channels, 1), which is Z.

    Args:
        channels: H, at least 1.
        max_length: taps; shorter filters are the first of them.
        scale_taps: parameters a scale, at least 1.
        slow_decay, fast_decay: of the first and of the last channel; 1 does not decay.

    Raises:
        ArgumentError: a size or decay out of range.

    Source: Li et al. 2022, What Makes Convolutional Models Great on Long Sequence Modeling? (arXiv 2210.09298).
    """

    # The authors train it at 0.001 whatever the model's rate, often 0.004.
    optimizer_options: ClassVar[dict[str, dict[str, float]]] = {"weight": {"lr_scale": 0.25, "weight_decay": 0.0}}

    norm: Tensor

    def __init__(
        self, channels: int, max_length: int, *, scale_taps: int = 64, slow_decay: float = 2.0, fast_decay: float = 2.0
    ) -> None:
        super().__init__()
        if min(channels, max_length, scale_taps) < 1 or not 1 <= slow_decay <= fast_decay:
            raise ArgumentError(
                "MultiScaleFilter needs channels, max_length and scale_taps >= 1 and 1 <= slow_decay <= fast_decay, "
                f"but got {channels}, {max_length}, {scale_taps}, {slow_decay} and {fast_decay}"
            )
        self.channels, self.max_length, self.scale_taps = channels, max_length, scale_taps
        self.slow_decay, self.fast_decay = slow_decay, fast_decay
        scales = 1 + math.ceil(math.log2(max(max_length / scale_taps, 1)))
        self.weight = nn.Parameter(torch.randn(scales, channels, scale_taps))
        self.register_buffer("norm", torch.ones(channels, 1))
        with torch.no_grad():
            self.norm = self._taps(scale_taps * 2 ** (scales - 1)).norm(dim=-1, keepdim=True)

    def forward(self, taps: int | None = None) -> Tensor:
        """The first `taps` taps (all `max_length` without it), (channels, taps), float32 under autocast too.

        Raises:
            ArgumentError: `taps` is not between 1 and `max_length`.
        """
        taps = _checked(self, taps)
        with torch.autocast(self.weight.device.type, enabled=False):
            return self._taps(taps) / self.norm

    def _taps(self, taps: int) -> Tensor:
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        decay_H = torch.linspace(self.slow_decay, self.fast_decay, self.channels, device=self.weight.device, dtype=dtype)
        parts, start = [], 0
        for i, w in enumerate(self.weight.to(dtype)):
            if start >= taps:
                break
            scale = 2 ** max(i - 1, 0)
            part = F.interpolate(w.unsqueeze(0), scale_factor=scale, mode="linear").squeeze(0) if scale > 1 else w
            parts.append(part * decay_H[:, None] ** -i)
            start += scale * self.scale_taps
        return torch.cat(parts, dim=-1)[:, :taps]

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, max_length={self.max_length}, scale_taps={self.scale_taps}, "
            f"slow_decay={self.slow_decay}, fast_decay={self.fast_decay}"
        )


class Zoom(NamedTuple):
    """Images of `side`² and of `new_side`² pixels, read row by row; what is 1 pixel wide there is `factor` pixels here."""

    side: int
    new_side: int
    factor: float


def zoomed(k: Tensor, zoom: Zoom, *, two_sided: bool) -> Tensor:
    """Filters over images of one size, row by row, as they are over images of another: what they see in both is the same.

    A lag is that of one place from another, dy · side + dx with -side / 2 <= dx < side / 2. Taps are interpolated linearly
    between such places, and divided by factor², for as many more pixels have what one had.

    Args:
        k: (H, side²) taps of the lags from 0 on, or with `two_sided` (H, 2 side²) of those from 1 - side² on.

    Returns:
        (H, new_side²) or (H, 2 new_side²) taps.

    Raises:
        ArgumentError: filters of other lengths.
    """
    side, new_side, factor = zoom
    lags, taps = side * side, k.shape[-1]
    expected = lags * (1 + two_sided)
    if taps != expected:
        raise ArgumentError(
            f"{'two-sided ' * two_sided}filters over images of {side}² pixels have {expected:,} taps, but {taps:,} were given; "
            "take filters as long as the images"
        )
    both = k[:, :-1] if two_sided else F.pad(k, (lags - 1, 0))
    # The plane of the places that a lag can be of, and one more on every side, which are of no lag, or of another row's.
    dy, dx = torch.arange(-side - 1, side + 2), torch.arange(-(side // 2) - 1, (side + 1) // 2 + 1)
    lag = dy[:, None] * side + dx
    there = (lag.abs() < lags) & (dx >= -(side // 2)) & (dx < (side + 1) // 2)
    plane = torch.where(there, both[:, (lag + lags - 1).clamp(0, 2 * lags - 2)], 0.0)
    new_lag = torch.arange(1 - new_side**2 if two_sided else 0, new_side**2, dtype=torch.float64)
    y = torch.floor((new_lag + new_side // 2) / new_side)
    at = torch.stack([(new_lag - y * new_side) / factor - dx[0], y / factor - dy[0]], dim=-1)
    size = torch.tensor([len(dx) - 1, len(dy) - 1])
    grid = (2 * at / size - 1).to(k.dtype)
    drawn = F.grid_sample(plane[None], grid[None, None], mode="bilinear", padding_mode="zeros", align_corners=True)
    new = drawn[0, :, 0] / factor**2
    return F.pad(new, (0, 1)) if two_sided else new


def _checked(filter: SquashedFilter | MultiScaleFilter, taps: int | None) -> int:
    taps = filter.max_length if taps is None else taps
    if not 1 <= taps <= filter.max_length:
        raise ArgumentError(f"{type(filter).__name__} was asked for {taps} taps; it has 1 to {filter.max_length}")
    return taps
