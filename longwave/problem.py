"""What is asked, in integers: a long convolution as a frozen `Problem`.

Every mode is one formula. With `v` on the samples [in_start, in_start + in_len) and zero elsewhere, or with the period
`in_len` if `circular`,

    y[t] = Σ_s k[s] · v[t - lag(s)]        lag(s) = lag0 + s, or lag0 - s if `reverse`

for t in [out_start, out_start + out_len). Nothing here or below knows a mode's name (`lowering.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.masks import FrequencyMask


class Filters(NamedTuple):
    """The shape of a filter tensor: `groups` rows of `taps` along the channels, for each sample of the batch if so."""

    taps: int
    groups: int
    per_sample: bool
    dtype: torch.dtype

    @classmethod
    def of(cls, k: Tensor) -> Filters:
        return cls(k.shape[-1], k.shape[-2], k.dim() == 3, k.dtype)


@dataclass(frozen=True, slots=True)
class Problem:
    """A convolution in integers and strings: hashable, comparable, independent of any tensor.

    The first `history` samples of the input come from a tensor of their own and are neither gated nor scaled by D.
    `segments` are the boundaries of packed documents, each convolved apart; the first document owns what lies before 0.
    With a `mask` the filter is what its projection onto the frequencies kept is, of every document apart (`masked.py`).
    With `rev_taps` the taps are those of two filters, whose gradients are two tensors: the first `rev_taps` have the lags up
    to 0, and lag 0 counts in both. `device` is its type, which plans depend on; which of several it is only says who can run
    the problem (None: the current one).
    """

    batch: int
    channels: int
    in_start: int
    in_len: int
    out_start: int
    out_len: int
    taps: int
    lag0: int
    reverse: bool
    circular: bool
    groups: int
    per_sample: bool
    dtype: str
    filter_dtype: str
    device: str
    history: int = 0
    skip: bool = False
    pregate: bool = False
    postgate: bool = False
    channels_last: bool = False
    segments: tuple[int, ...] | None = None
    precision: str | None = None
    mask: FrequencyMask | None = None
    rev_taps: int = 0
    device_index: int | None = None

    @classmethod
    def of(cls, u: Tensor, filters: Filters, **rest: Any) -> Problem:
        """The problem of a signal (B, H, ·) and filters; `rest` are the other fields."""
        return cls(
            batch=u.shape[0],
            channels=u.shape[1],
            taps=filters.taps,
            groups=filters.groups,
            per_sample=filters.per_sample,
            dtype=dtypes.name(u.dtype),
            filter_dtype=dtypes.name(filters.dtype),
            device=u.device.type,
            device_index=u.device.index,
            **rest,
        )

    @property
    def lags(self) -> tuple[int, int]:
        """The smallest and the largest lag of a tap."""
        if self.reverse:
            return self.lag0 - self.taps + 1, self.lag0
        return self.lag0, self.lag0 + self.taps - 1

    @property
    def filter_shape(self) -> tuple[int, ...]:
        return (self.batch, self.groups, self.taps) if self.per_sample else (self.groups, self.taps)

    @property
    def complex(self) -> bool:
        return self.dtype.startswith("complex")


class ShortCall(NamedTuple):
    """A checked call of `longwave.short_conv`: x and state are (…, H, ·), or (…, ·, H) if `channels_last`."""

    x: Tensor
    w: Tensor
    bias: Tensor | None
    state: Tensor | None
    activation: str | None
    channels_last: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Those that have gradients, in their order."""
        return self[:4]
