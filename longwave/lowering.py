"""From the public call to a `Problem`'s integers: every argument checked once, every mode lowered.

`MODES` is the table that lowers the public modes to the integers of the one formula in `problem.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.checks import (
    LAYOUTS,
    check_boundaries,
    check_choice,
    check_filter,
    check_signal,
    check_tensor,
    names,
)
from longwave.errors import ArgumentError
from longwave.masks import FrequencyMask
from longwave.operands import Operands
from longwave.transforms import is_traced, must_be_seen_through

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
    check_choice("mode", mode, tuple(MODES))
    check_choice("layout", layout, LAYOUTS)
    check_choice("precision", precision, PRECISIONS)
    row = MODES[mode]
    for name, given, allowed in (
        ("k_rev", k_rev, row.k_rev),
        ("history", history, row.history),
        ("cu_seqlens", cu_seqlens, row.cu_seqlens),
    ):
        if given is not None and not allowed:
            modes = names([m for m, r in MODES.items() if getattr(r, name)])
            raise ArgumentError(f"{name} does not go with mode={mode!r}; drop it or use mode {modes}")
    if frequency_mask is not None:
        _check_mask(frequency_mask, mode, k_rev)

    check_signal(u, layout)
    batched = u.dim() == 3
    channels_last = layout == "BLH"
    signals = {"pregate": pregate, "postgate": postgate, "history": history}
    u3 = _as_BHL(u, channels_last, batched)
    B, H, L = u3.shape
    check_filter("k", k, u, H, batched)
    if k_rev is not None:
        check_filter("k_rev", k_rev, u, H, batched)
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


def two_sided(k: Tensor, k_rev: Tensor, B: int, H: int, signal: torch.dtype) -> Tensor:
    """One filter with the lags 1 - K_rev … K - 1 from two that both count lag 0, added in arithmetic precision."""
    wide = dtypes.filter_arithmetic(signal, torch.promote_types(k.dtype, k_rev.dtype))
    rows = _same_rows(k.to(wide), k_rev.to(wide), B, H)
    return _joined(*rows) if must_be_seen_through() or is_traced() else _Joined.apply(*rows)


def _joined(k: Tensor, k_rev: Tensor) -> Tensor:
    # Split, not sliced: the gradient of a slice is as large as what it was cut from, and is made and added up for each.
    (k_0, later), (k_rev_0, earlier) = (f.split([1, f.shape[-1] - 1], dim=-1) for f in (k, k_rev))
    return torch.cat([earlier.flip(-1), k_rev_0 + k_0, later], dim=-1)


class _Joined(torch.autograd.Function):
    """The eager path: gradients are a view and one copy, where those of splits are joined and take three."""

    @staticmethod
    def forward(ctx: Any, k: Tensor, k_rev: Tensor) -> Tensor:
        ctx.lag0 = k_rev.shape[-1] - 1
        return _joined(k, k_rev)

    @staticmethod
    def backward(ctx: Any, dk: Tensor) -> tuple[Tensor | None, Tensor | None]:
        need_k, need_k_rev = ctx.needs_input_grad
        later, earlier = dk[..., ctx.lag0 :], dk[..., : ctx.lag0 + 1]
        return later if need_k else None, earlier.flip(-1) if need_k_rev else None


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
