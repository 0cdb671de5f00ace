"""What is asked: the arguments of a long convolution, checked once and lowered to integers.

Every mode is one formula. With `v` on the samples [in_start, in_start + in_len) and zero elsewhere, or with the period
`in_len` if `circular`,

    y[t] = Σ_s k[s] · v[t - lag(s)]        lag(s) = lag0 + s, or lag0 - s if `reverse`

for t in [out_start, out_start + out_len). `MODES` is the table that lowers the public modes to these integers; a
`Problem` holds them, and nothing below this file knows a mode's name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.operands import Operands

LAYOUTS = ("BHL", "BLH")
PRECISIONS = (None, "high")


class Mode(NamedTuple):
    """One row of the table that lowers a mode; `lag0` and `out_len` take the length L and the number of taps K."""

    lag0: Callable[[int, int], int]
    out_len: Callable[[int, int], int]
    causal: bool
    circular: bool
    k_rev: bool
    history: bool
    cu_seqlens: bool


MODES = {
    "causal": Mode(lambda L, K: 0, lambda L, K: L, causal=True, circular=False, k_rev=True, history=True, cu_seqlens=True),
    "circular": Mode(lambda L, K: 0, lambda L, K: L, causal=False, circular=True, k_rev=True, history=False, cu_seqlens=True),
    "same": Mode(
        lambda L, K: -((K - 1) // 2), lambda L, K: L, causal=False, circular=False, k_rev=False, history=False, cu_seqlens=True
    ),
    "full": Mode(
        lambda L, K: 0, lambda L, K: L + K - 1, causal=True, circular=False, k_rev=False, history=False, cu_seqlens=False
    ),
}


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
    to 0, and lag 0 counts in both.
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


class Lowered(NamedTuple):
    """The public call, lowered: tensors of shape (B, H, ·) in any strides, one filter with signed lags, and integers."""

    given: Operands
    lag0: int
    out_len: int
    circular: bool
    channels_last: bool
    rev_taps: int


def lower(
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    *,
    mode: str,
    k_rev: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    cu_seqlens: Tensor | None,
    layout: str,
    precision: str | None,
    frequency_mask: FrequencyMask | None = None,
) -> Lowered:
    """Check every argument of `longwave.long_conv` and lower the call.

    Raises ArgumentError in one sentence. The values of `cu_seqlens` are read later, where a traced call can read them.
    """
    if not isinstance(mode, str) or mode not in MODES:
        raise ArgumentError(f"mode={mode!r} is unknown; choose one of {_names(MODES)}")
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ArgumentError(f"layout={layout!r} is unknown; choose one of {_names(LAYOUTS)}")
    if not isinstance(precision, str | None) or precision not in PRECISIONS:
        raise ArgumentError(f"precision={precision!r} is unknown; choose one of {_names(PRECISIONS)}")
    row = MODES[mode]
    for name, given, allowed in (
        ("k_rev", k_rev, row.k_rev),
        ("history", history, row.history),
        ("cu_seqlens", cu_seqlens, row.cu_seqlens),
    ):
        if given is not None and not allowed:
            modes = _names([m for m, r in MODES.items() if getattr(r, name)])
            raise ArgumentError(f"{name} does not go with mode={mode!r}; drop it or use mode {modes}")
    if frequency_mask is not None:
        _check_mask(frequency_mask, mode, k_rev)

    _check_signal(u, layout)
    batched = u.dim() == 3
    channels_last = layout == "BLH"
    signals = {"pregate": pregate, "postgate": postgate, "history": history}
    u3 = _as_BHL(u, channels_last, batched)
    B, H, L = u3.shape
    _check_filter("k", k, u, H, batched)
    if k_rev is not None:
        _check_filter("k_rev", k_rev, u, H, batched)
    K = k.shape[-1]
    out_len = row.out_len(L, K)
    if D is not None:
        check_tensor("D", D, u, (torch.float32, u.dtype))
        if D.shape != (H,):
            raise ArgumentError(f"D has shape {tuple(D.shape)}; give one value a channel, shape ({H},)")
    for name, length in (("pregate", L), ("postgate", out_len)):
        gate = signals[name]
        if gate is None:
            continue
        check_tensor(name, gate, u, (u.dtype,))
        shape = _shape(B, H, length, channels_last, batched)
        if gate.shape != shape:
            raise ArgumentError(
                f"{name} has shape {tuple(gate.shape)}; with u {tuple(u.shape)}, layout={layout!r} and mode={mode!r} "
                f"it must be {tuple(shape)}"
            )
        signals[name] = _as_BHL(gate, channels_last, batched)
    if history is not None:
        check_tensor("history", history, u, (u.dtype, torch.float32))
        h3 = _as_BHL(history, channels_last, batched) if history.dim() == u.dim() else None
        if h3 is None or h3.shape[:2] != (B, H) or h3.shape[2] < 1:
            P = _shape(B, H, "P", channels_last, batched)
            raise ArgumentError(
                f"history has shape {tuple(history.shape)}; it holds the P >= 1 samples before u in u's layout, "
                f"({', '.join(map(str, P))})"
            )
        signals["history"] = h3
    if cu_seqlens is not None:
        check_boundaries(cu_seqlens, u, batched)

    lag0, rev_taps = row.lag0(L, K), 0
    if k_rev is not None:
        rev_taps = k_rev.shape[-1]
        k, lag0 = two_sided(k, k_rev, B, H, u.dtype), 1 - rev_taps
    operands = Operands(u3, k, D, signals["pregate"], signals["postgate"], signals["history"])
    return Lowered(operands, lag0, out_len, row.circular, channels_last, rev_taps)


def segments_of(cu_seqlens: Tensor | None, total: int) -> tuple[int, ...] | None:
    """The values of `cu_seqlens`, checked: 0 = c_0 <= c_1 <= … <= c_S = total."""
    if cu_seqlens is None:
        return None
    if cu_seqlens.device.type == "meta":
        raise ArgumentError("cu_seqlens is on the meta device, without values; give it on the CPU")
    bounds = tuple(cu_seqlens.tolist())
    if bounds[0] != 0 or bounds[-1] != total:
        raise ArgumentError(
            f"cu_seqlens runs from {bounds[0]} to {bounds[-1]}; it must start at 0 and end at the packed length {total}"
        )
    for i, (a, b) in enumerate(itertools.pairwise(bounds)):
        if a > b:
            raise ArgumentError(
                f"cu_seqlens falls from {a} to {b} at document {i}; give boundaries that never fall "
                "(a cumulative sum of lengths)"
            )
    return bounds


def _check_mask(mask: FrequencyMask, mode: str, k_rev: Tensor | None) -> None:
    if not isinstance(mask, FrequencyMask):
        raise ArgumentError(
            f"frequency_mask is of type {type(mask).__name__}; give a longwave.FrequencyMask, as FrequencyMask.lowpass(0.25)"
        )
    if MODES[mode].causal and k_rev is None and not mask.leaks_future:
        raise ArgumentError(
            f"frequency_mask makes the causal filter of mode={mode!r} two-sided, so that every output would depend on later "
            "inputs; use mode 'circular' or 'same', give k_rev, or accept it with leaks_future=True when making the mask"
        )


def _check_signal(u: Tensor, layout: str) -> None:
    _check_dense("u", u)
    if u.dtype not in dtypes.SIGNAL_DTYPES:
        raise ArgumentError(
            f"u has dtype {dtypes.name(u.dtype)}; allowed are {dtypes.names(dtypes.SIGNAL_DTYPES)}; convert it with .to()"
        )
    if u.dim() not in (2, 3):
        batched, single = ("(B, H, L)", "(H, L)") if layout == "BHL" else ("(B, L, H)", "(L, H)")
        raise ArgumentError(f"u has shape {tuple(u.shape)}; layout={layout!r} takes {batched}, or {single} without a batch")
    for size in u.shape:
        if size == 0:
            raise ArgumentError(f"u is empty, shape {tuple(u.shape)}; every dimension must be at least 1")


def _check_dense(name: str, x: Tensor | None) -> Tensor:
    if not isinstance(x, Tensor):
        raise ArgumentError(f"{name} is of type {type(x).__name__}; give a torch.Tensor")
    if x.layout is not torch.strided or x.is_nested:
        raise ArgumentError(
            f"{name} is a {'nested' if x.is_nested else x.layout} tensor; give a dense one, as .to_dense() makes"
        )
    return x


def check_tensor(name: str, x: Tensor | None, u: Tensor, allowed: Sequence[torch.dtype], beside: str = "u") -> None:
    """That `x` is a dense tensor of an allowed dtype on the device of `u`, which the caller knows as `beside`."""
    x = _check_dense(name, x)
    if x.dtype not in allowed:
        raise ArgumentError(
            f"{name} has dtype {dtypes.name(x.dtype)}; with {beside} of {dtypes.name(u.dtype)} it must be "
            f"{dtypes.names(allowed)}; convert it with .to()"
        )
    if x.device != u.device:
        raise ArgumentError(f"{name} is on {x.device} and {beside} on {u.device}; move one of them with .to()")


def _check_filter(name: str, k: Tensor, u: Tensor, H: int, batched: bool) -> None:
    check_tensor(name, k, u, (torch.float32, u.dtype))
    if k.dim() not in (2, 3):
        raise ArgumentError(
            f"{name} has shape {tuple(k.shape)}; allowed are (H, K), (1, K), (G, K) with G dividing H, and (B, H, K)"
        )
    if k.shape[-1] == 0:
        raise ArgumentError(f"{name} has no taps, shape {tuple(k.shape)}; give at least one")
    if k.dim() == 3:
        if not batched:
            raise ArgumentError(
                f"{name} has one filter a sample, shape {tuple(k.shape)}, but u has no batch, shape {tuple(u.shape)}; "
                "give u a batch dimension or the filter two dimensions"
            )
        if k.shape[0] != u.shape[0] or k.shape[1] != H:
            raise ArgumentError(
                f"{name} has shape {tuple(k.shape)}; one filter a sample is (B, H, K) with B={u.shape[0]} and H={H}"
            )
    elif k.shape[0] < 1 or H % k.shape[0]:
        raise ArgumentError(
            f"{name} has {k.shape[0]} rows, shape {tuple(k.shape)}; their number must divide the {H} channels of u"
        )


def check_boundaries(cu_seqlens: Tensor, u: Tensor, batched: bool, beside: str = "u") -> None:
    """That `cu_seqlens` can be boundaries of documents in `u`, which the caller knows as `beside`; values are read later."""
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype != torch.int32 or cu_seqlens.dim() != 1:
        given = (
            f"{dtypes.name(cu_seqlens.dtype)} of shape {tuple(cu_seqlens.shape)}"
            if isinstance(cu_seqlens, Tensor)
            else type(cu_seqlens).__name__
        )
        raise ArgumentError(f"cu_seqlens is {given}; give an int32 tensor of shape (S + 1,), on the CPU if you can")
    if cu_seqlens.shape[0] < 2:
        raise ArgumentError(f"cu_seqlens has {cu_seqlens.shape[0]} entries; S documents have S + 1 >= 2 boundaries")
    if batched and u.shape[0] != 1:
        raise ArgumentError(
            f"cu_seqlens goes with documents packed into one row, but {beside} has a batch of {u.shape[0]}; "
            "pack them into shape (1, H, total)"
        )


def two_sided(k: Tensor, k_rev: Tensor, B: int, H: int, signal: torch.dtype) -> Tensor:
    """One filter with the lags 1 - K_rev … K - 1 from two that both count lag 0, added in arithmetic precision."""
    wide = dtypes.filter_arithmetic(signal, torch.promote_types(k.dtype, k_rev.dtype))
    k, k_rev = _same_rows(k.to(wide), k_rev.to(wide), B, H)
    return torch.cat([k_rev[..., 1:].flip(-1), k_rev[..., :1] + k[..., :1], k[..., 1:]], dim=-1)


def _same_rows(a: Tensor, b: Tensor, B: int, H: int) -> tuple[Tensor, Tensor]:
    if a.shape[:-1] == b.shape[:-1]:
        return a, b
    G = a.shape[-2] if b.shape[-2] == 1 else b.shape[-2] if a.shape[-2] == 1 else H

    def spread(f: Tensor) -> Tensor:
        f = f.repeat_interleave(G // f.shape[-2], dim=-2) if f.shape[-2] != G else f
        return f if f.dim() == 3 or a.dim() == b.dim() == 2 else f.expand(B, -1, -1)

    return spread(a), spread(b)


def _as_BHL(x: Tensor, channels_last: bool, batched: bool) -> Tensor:
    x = x if batched else x.unsqueeze(0)
    return x.transpose(1, 2) if channels_last else x


def _shape(B: int, H: int, length: int | str, channels_last: bool, batched: bool) -> tuple[int | str, ...]:
    tail: tuple[int | str, ...] = (length, H) if channels_last else (H, length)
    return (B, *tail) if batched else tail


def _names(values: Sequence[str | None] | dict[str, Mode]) -> str:
    return ", ".join(repr(v) for v in values)


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
