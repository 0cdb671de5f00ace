"""The internal pair `conv` and `corr`: closed under differentiation, so that derivatives of every order run in a backend.

With x on the samples [in_start, in_start + in_len) and lag(s) = lag0 + s, or lag0 - s if `reverse`,

    conv(x, k)[t] = Σ_s k[s] x[t - lag(s)]           t from out_start
    corr(y, x)[s] = Σ_t y[t] x[t - lag(s)]           summed over the batch and the channels that share a filter

d conv/dx is a conv with negated lags, d conv/dk a corr, d corr/dy a conv and d corr/dx a conv with negated lags. Signals
are (B, H, ·) in an arithmetic dtype (no 16-bit), without gates; the fused operator of `long_conv` is built on the same
backends. `cu_seqlens` bounds documents as in `longwave.long_conv`. With the text of a frequency mask k is its effective filter
(`masked.py`): the projection is its own adjoint and commutes with the sign of the lags, so that the pair stays closed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longwave import backends
from longwave.backends import plain
from longwave.checks import segments_of
from longwave.dtypes import cast, conj, resolved
from longwave.masks import FrequencyMask
from longwave.operands import Operands
from longwave.problem import Filters, Problem
from longwave.transforms import must_be_seen_through, refuse_forward_mode

_INTEGERS = "SymInt lag0, bool reverse, bool circular"
_WHO = "str backend, str? mask=None"
_CONV = f"(Tensor x, Tensor k, Tensor? cu_seqlens, SymInt in_start, SymInt out_start, SymInt out_len, {_INTEGERS}, {_WHO})"
_CORR = (
    f"(Tensor y, Tensor x, Tensor? cu_seqlens, SymInt out_start, SymInt in_start, SymInt taps, {_INTEGERS}, "
    f"SymInt groups, bool per_sample, {_WHO})"
)

_CONV_BACKEND, _CORR_BACKEND = 7, 9  # where it stands behind the first two arguments


def conv(x: Tensor, k: Tensor, *rest: Any) -> Tensor:
    """Σ_s k[s] x[t - lag(s)]; `_CONV` names the arguments."""
    x, k = resolved(x), resolved(k)
    if must_be_seen_through(x, k):
        return plain.formula(_conv_problem(x, k, *rest), Operands(x, k))
    return _conv_op(x, k, *rest)


def corr(y: Tensor, x: Tensor, *rest: Any) -> Tensor:
    """Σ_t y[t] x[t - lag(s)]; `_CORR` names the arguments."""
    y, x = resolved(y), resolved(x)
    if must_be_seen_through(y, x):
        return plain.taps_formula(_corr_problem(y, x, *rest), y, conj(x))
    return _corr_op(y, x, *rest)


def _conv_problem(
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
    mask: str | None = None,
) -> Problem:
    return _problem(x, Filters.of(k), cu_seqlens, in_start, out_start, out_len, lag0, reverse, circular, mask)


def _corr_problem(
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
    mask: str | None = None,
) -> Problem:
    filters = Filters(taps, groups, per_sample, x.dtype)
    return _problem(x, filters, cu_seqlens, in_start, out_start, y.shape[2], lag0, reverse, circular, mask)


def _problem(
    x: Tensor,
    filters: Filters,
    cu_seqlens: Tensor | None,
    in_start: int,
    out_start: int,
    out_len: int,
    lag0: int,
    reverse: bool,
    circular: bool,
    mask: str | None,
) -> Problem:
    # Both windows end where the packed row ends; the first document owns what lies before 0.
    segments = segments_of(cu_seqlens, in_start + x.shape[2])
    return Problem.of(
        x, filters, in_start=in_start, in_len=x.shape[2], out_start=out_start, out_len=out_len, lag0=lag0, reverse=reverse,
        circular=circular, segments=segments, mask=None if mask is None else FrequencyMask.of_text(mask),
    )  # fmt: skip


@torch.library.custom_op("longwave::conv", mutates_args=(), schema=f"{_CONV} -> Tensor")
def _conv_op(x: Tensor, k: Tensor, *rest: Any) -> Tensor:
    refuse_forward_mode()
    problem = _conv_problem(x, k, *rest)
    engine, _ = backends.choose(problem, rest[_CONV_BACKEND])
    return engine.forward(problem, Operands(x, k))


@_conv_op.register_fake
def _(x: Tensor, k: Tensor, cu_seqlens: Tensor | None, in_start: int, out_start: int, out_len: int, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], out_len)


@torch.library.custom_op("longwave::corr", mutates_args=(), schema=f"{_CORR} -> Tensor")
def _corr_op(y: Tensor, x: Tensor, *rest: Any) -> Tensor:
    refuse_forward_mode()
    problem = _corr_problem(y, x, *rest)
    engine, _ = backends.choose(problem, rest[_CORR_BACKEND])
    only_k = (False, True, False, False, False, False)
    # A backend's filter gradient is Σ dy · conj(x).
    return engine.backward(problem, only_k, y, Operands(conj(x)))[0]


@_corr_op.register_fake
def _(y: Tensor, x: Tensor, cu_seqlens: Tensor | None, out_start: int, in_start: int, taps: int, *rest: Any) -> Tensor:
    _, _, _, groups, per_sample, *_ = rest
    return x.new_empty(x.shape[0], groups, taps) if per_sample else x.new_empty(groups, taps)


def _conv_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, k, cu_seqlens, *ctx.integers = inputs
    ctx.save_for_backward(x, k, cu_seqlens)


def _conv_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, k, cu_seqlens = ctx.saved_tensors
    in_start, out_start, _, lag0, reverse, circular, *who = ctx.integers
    dx = dk = None
    if ctx.needs_input_grad[0]:
        dx = conv(dy, conj(k), cu_seqlens, out_start, in_start, x.shape[2], -lag0, not reverse, circular, *who)
    if ctx.needs_input_grad[1]:
        f = Filters.of(k)
        lags = (lag0, reverse, circular)
        dk = corr(dy, conj(x), cu_seqlens, out_start, in_start, f.taps, *lags, f.groups, f.per_sample, *who)
        dk = cast(dk, k.dtype)
    return dx, dk, *([None] * 9)


_conv_op.register_autograd(_conv_backward, setup_context=_conv_context)


def _corr_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    y, x, cu_seqlens, *ctx.integers = inputs
    ctx.save_for_backward(y, x, cu_seqlens)


def _corr_backward(ctx: Any, dk: Tensor) -> tuple[Any, ...]:
    y, x, cu_seqlens = ctx.saved_tensors
    out_start, in_start, _, lag0, reverse, circular, _, _, *who = ctx.integers
    dy = dx = None
    if ctx.needs_input_grad[0]:
        dy = conv(conj(x), dk, cu_seqlens, in_start, out_start, y.shape[2], lag0, reverse, circular, *who)
    if ctx.needs_input_grad[1]:
        dx = conv(conj(y), dk, cu_seqlens, out_start, in_start, x.shape[2], -lag0, not reverse, circular, *who)
    return dy, dx, *([None] * 11)


_corr_op.register_autograd(_corr_backward, setup_context=_corr_context)
