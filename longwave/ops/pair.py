"""The internal pair `conv` and `corr`: closed under differentiation, so that derivatives of every order run in a backend.

With x on the samples [in_start, in_start + in_len) and lag(s) = lag0 + s, or lag0 - s if `reverse`,

    conv(x, k)[t] = Σ_s k[s] x[t - lag(s)]           t from out_start
    corr(y, x)[s] = Σ_t y[t] x[t - lag(s)]           summed over the batch and the channels that share a filter

d conv/dx is a conv with negated lags, d conv/dk a corr, d corr/dy a conv and d corr/dx a conv with negated lags. Signals
are (B, H, ·) in an arithmetic dtype (no 16-bit), without gates; the fused operator of `long_conv` is built on the same
backends. `cu_seqlens` bounds documents as in `longwave.long_conv`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longwave import backends, dtypes
from longwave.dtypes import cast
from longwave.problem import Problem, filter_rows, segments_of


def _problem(
    x: Tensor,
    cu_seqlens: Tensor | None,
    *,
    filter_dtype: torch.dtype,
    taps: int,
    groups: int,
    per_sample: bool,
    in_start: int,
    out_start: int,
    out_len: int,
    lag0: int,
    reverse: bool,
    circular: bool,
) -> Problem:
    return Problem(
        batch=x.shape[0],
        channels=x.shape[1],
        in_start=in_start,
        in_len=x.shape[2],
        out_start=out_start,
        out_len=out_len,
        taps=taps,
        lag0=lag0,
        reverse=reverse,
        circular=circular,
        groups=groups,
        per_sample=per_sample,
        dtype=dtypes.name(x.dtype),
        filter_dtype=dtypes.name(filter_dtype),
        device=x.device.type,
        # Both windows end where the packed row ends; the first document owns what lies before 0.
        segments=segments_of(cu_seqlens, in_start + x.shape[2]),
    )


@torch.library.custom_op("longwave::conv", mutates_args=())
def conv(
    x: Tensor,
    k: Tensor,
    cu_seqlens: Tensor | None,
    in_start: int,
    out_start: int,
    out_len: int,
    lag0: int,
    reverse: bool,
    circular: bool,
    backend: str,
) -> Tensor:
    groups, per_sample = filter_rows(k)
    problem = _problem(
        x, cu_seqlens, filter_dtype=k.dtype, taps=k.shape[-1], groups=groups, per_sample=per_sample, in_start=in_start,
        out_start=out_start, out_len=out_len, lag0=lag0, reverse=reverse, circular=circular,
    )  # fmt: skip
    engine, _ = backends.choose(problem, backend)
    return engine.forward(problem, x, k, None, None, None, None)


@conv.register_fake
def _(
    x: Tensor,
    k: Tensor,
    cu_seqlens: Tensor | None,
    in_start: int,
    out_start: int,
    out_len: int,
    lag0: int,
    reverse: bool,
    circular: bool,
    backend: str,
) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], out_len)


@torch.library.custom_op("longwave::corr", mutates_args=())
def corr(
    y: Tensor,
    x: Tensor,
    cu_seqlens: Tensor | None,
    out_start: int,
    in_start: int,
    taps: int,
    lag0: int,
    reverse: bool,
    circular: bool,
    groups: int,
    per_sample: bool,
    backend: str,
) -> Tensor:
    problem = _problem(
        x, cu_seqlens, filter_dtype=x.dtype, taps=taps, groups=groups, per_sample=per_sample, in_start=in_start,
        out_start=out_start, out_len=y.shape[2], lag0=lag0, reverse=reverse, circular=circular,
    )  # fmt: skip
    engine, _ = backends.choose(problem, backend)
    only_k = (False, True, False, False, False, False)
    # A backend's filter gradient is Σ dy · conj(x).
    return engine.backward(problem, only_k, y, dtypes.conj(x), None, None, None, None, None)[0]


@corr.register_fake
def _(
    y: Tensor,
    x: Tensor,
    cu_seqlens: Tensor | None,
    out_start: int,
    in_start: int,
    taps: int,
    lag0: int,
    reverse: bool,
    circular: bool,
    groups: int,
    per_sample: bool,
    backend: str,
) -> Tensor:
    return x.new_empty(x.shape[0], groups, taps) if per_sample else x.new_empty(groups, taps)


def _conv_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, k, cu_seqlens, *ctx.integers = inputs
    ctx.save_for_backward(x, k, cu_seqlens)


def _conv_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, k, cu_seqlens = ctx.saved_tensors
    in_start, out_start, _, lag0, reverse, circular, backend = ctx.integers
    dx = dk = None
    if ctx.needs_input_grad[0]:
        dx = conv(
            dtypes.resolved(dy),
            dtypes.conj(k),
            cu_seqlens,
            out_start,
            in_start,
            x.shape[2],
            -lag0,
            not reverse,
            circular,
            backend,
        )
    if ctx.needs_input_grad[1]:
        groups, per_sample = filter_rows(k)
        dk = corr(
            dtypes.resolved(dy),
            dtypes.conj(x),
            cu_seqlens,
            out_start,
            in_start,
            k.shape[-1],
            lag0,
            reverse,
            circular,
            groups,
            per_sample,
            backend,
        )
        dk = cast(dk, k.dtype)
    return dx, dk, *([None] * 8)


conv.register_autograd(_conv_backward, setup_context=_conv_context)


def _corr_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    y, x, cu_seqlens, *ctx.integers = inputs
    ctx.save_for_backward(y, x, cu_seqlens)


def _corr_backward(ctx: Any, dk: Tensor) -> tuple[Any, ...]:
    y, x, cu_seqlens = ctx.saved_tensors
    out_start, in_start, _, lag0, reverse, circular, _, _, backend = ctx.integers
    dy = dx = None
    if ctx.needs_input_grad[0]:
        dy = conv(
            dtypes.conj(x),
            dtypes.resolved(dk),
            cu_seqlens,
            in_start,
            out_start,
            y.shape[2],
            lag0,
            reverse,
            circular,
            backend,
        )
    if ctx.needs_input_grad[1]:
        dx = conv(
            dtypes.conj(y),
            dtypes.resolved(dk),
            cu_seqlens,
            out_start,
            in_start,
            x.shape[2],
            -lag0,
            not reverse,
            circular,
            backend,
        )
    return dy, dx, *([None] * 10)


corr.register_autograd(_corr_backward, setup_context=_corr_context)
