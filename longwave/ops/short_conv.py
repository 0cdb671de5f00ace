"""`short_conv`: the short depthwise convolution that stands before the long one in Hyena, H3 and Mamba."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import backends, dtypes
from longwave.backends import plain
from longwave.checks import LAYOUTS, check_boundaries, check_choice, check_tensor, segments_of
from longwave.dtypes import resolved
from longwave.errors import ArgumentError
from longwave.problem import ShortCall
from longwave.transforms import is_traced, must_be_seen_through, refuse_forward_mode, without_autocast

MAX_TAPS = 256
REAL_DTYPES = tuple(dtype for dtype in dtypes.SIGNAL_DTYPES if not dtype.is_complex)
ACTIVATIONS = (None, "silu", "gelu")


def short_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    layout: str = "BHL",
    state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Convolve every channel of `x` with its own short causal filter, and apply an activation.

        y[t] = activation(Σ_{j=0..K-1} w[K-1-j] · x[t-j] + bias)

    Args:
        x: (B, H, L), or (B, L, H) with `layout="BLH"`, either without B; any strides. float64, float32, bfloat16, float16.
        w: (H, K), float32 or x's dtype, 1 <= K <= 256, in the order of `torch.nn.Conv1d`: `w[:, -1]` weighs the present
            sample.
        bias: (H,), float32 or x's dtype.
        activation: None, "silu" or "gelu" (the exact one).
        layout: "BHL" or "BLH", of x, state and result.
        state: (B, H, K-1) in x's layout, x's dtype: the samples before x; zeros without it. With `cu_seqlens` it precedes the
            first document.
        cu_seqlens: (S+1,) int32, best on the CPU: x is (1, H, total), the S documents [cu_seqlens[i], cu_seqlens[i+1]) are
            convolved apart and may be empty.

    Returns:
        x's shape and dtype, contiguous in `layout`. 16-bit input is computed in float32 and rounded once; autocast changes
        nothing.

    Raises:
        ArgumentError: a wrong shape, dtype, device or value.

    Equivalent to:
        activation(F.conv1d(x, w[:, None], bias, padding=K - 1, groups=H)[..., :L])

    Source: the depthwise convolutions of Poli et al. 2023, arXiv 2302.10866, section 3.
    """
    check(x, w, bias, activation, layout, state)
    tensors = [None if t is None else resolved(t) for t in (x, w, bias, state)]
    call = ShortCall(*tensors, activation, layout == "BLH")  # type: ignore[call-arg, arg-type]
    if cu_seqlens is None:
        return _run(call)
    check_boundaries(cu_seqlens, x, x.dim() == 3, beside="x")
    total = x.shape[-2] if call.channels_last else x.shape[-1]
    if is_traced():
        cu_seqlens = _checked(cu_seqlens, total)
    else:
        segments_of(cu_seqlens, total)
    return _run_packed(call, cu_seqlens)


@torch.library.custom_op("longwave::checked_boundaries", mutates_args=(), schema="(Tensor cu_seqlens, SymInt total) -> Tensor")
def _checked(cu_seqlens: Tensor, total: int) -> Tensor:
    """A copy of cu_seqlens, whose values a traced call can read in an operator alone."""
    segments_of(cu_seqlens, total)
    return cu_seqlens.clone()


@_checked.register_fake
def _(cu_seqlens: Tensor, total: int) -> Tensor:
    return torch.empty_like(cu_seqlens)


def _run(call: ShortCall) -> Tensor:
    if must_be_seen_through():
        return _formula(call)
    if is_traced():
        return _op(*call)
    engine = backends.for_short_conv(call.x.device.type)
    if engine is plain:
        return _formula(call)  # which autograd differentiates by itself
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in call.tensors):
        return _ShortConv.apply(*call)
    return engine.short_forward(call)


def _run_packed(call: ShortCall, cu_seqlens: Tensor) -> Tensor:
    if must_be_seen_through() or (not is_traced() and backends.for_short_conv(call.x.device.type) is plain):
        # The activation comes last, as of sums across two documents it may have a slope that is no number.
        with without_autocast(call.x.device):
            return plain.short_activated(_by_documents(plain.short_sums, call, cu_seqlens), call)
    return _by_documents(_run, call, cu_seqlens)


def _by_documents(run: Callable[[ShortCall], Tensor], call: ShortCall, cu_seqlens: Tensor) -> Tensor:
    """The packed row as one, but for the first K-1 samples of every document after the first: those are convolved once more,
    each document's by themselves. Sizes do not depend on the values of `cu_seqlens`, so that it can be traced."""
    time = call.x.dim() - (2 if call.channels_last else 1)
    total, before = call.x.shape[time], call.w.shape[1] - 1
    y = run(call)
    if before == 0 or cu_seqlens.shape[0] == 2:
        return y
    bounds = cu_seqlens.to(call.x.device, torch.int64)
    place_SJ = bounds[1:-1, None] + torch.arange(before, device=call.x.device)
    heads = call.x.index_select(time, place_SJ.clamp(max=total - 1).flatten())
    # Not `unflatten`: under a default device it cannot be traced.
    heads = heads.reshape(*heads.shape[:time], *place_SJ.shape, *heads.shape[time + 1 :])
    heads = heads.squeeze(0) if call.x.dim() == 3 else heads  # (S, J, H) or (H, S, J)
    heads = heads if call.channels_last else heads.transpose(0, 1)
    alone = run(call._replace(x=heads, state=None))
    alone = alone.flatten(0, 1) if call.channels_last else alone.transpose(0, 1).flatten(1)
    alone = alone.unsqueeze(0) if call.x.dim() == 3 else alone
    # What a document shorter than K-1 does not have goes to one more place behind the row, and is cut off with it.
    place_SJ = torch.where(place_SJ < bounds[2:, None], place_SJ, total)
    longer = F.pad(y, (0, 0, 0, 1) if call.channels_last else (0, 1))
    return longer.index_copy(time, place_SJ.flatten(), alone).narrow(time, 0, total).contiguous()


def _formula(call: ShortCall) -> Tensor:
    with without_autocast(call.x.device):
        return plain.short_forward(call)


def _run_backward(needs: Sequence[bool], dy: Tensor, call: ShortCall) -> list[Tensor]:
    engine = backends.for_short_conv(dy.device.type)
    if engine is plain:
        return _differentiable_backward(needs, resolved(dy), call)
    return engine.short_backward(tuple(needs), resolved(dy), call)


def _differentiable_backward(needs: Sequence[bool], dy: Tensor, call: ShortCall) -> list[Tensor]:
    with without_autocast(dy.device):
        return plain.short_backward(tuple(needs), dy, call)


class _ShortConv(torch.autograd.Function):
    """The eager path: cheaper a call than the registered operator, which tracing takes."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        call = ShortCall(*arguments)
        ctx.options = call[4:]
        ctx.save_for_backward(*call.tensors)
        return backends.for_short_conv(call.x.device.type).short_forward(call)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:4]
        run = _differentiable_backward if torch.is_grad_enabled() or must_be_seen_through(dy) else _run_backward
        grads = iter(run(needs, dy, ShortCall(*ctx.saved_tensors, *ctx.options)))
        return *(next(grads) if need else None for need in needs), None, None


_ARGUMENTS = "Tensor x, Tensor w, Tensor? bias, Tensor? state, str? activation, bool channels_last"


@torch.library.custom_op("longwave::short_conv", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _op(*arguments: Any) -> Tensor:
    refuse_forward_mode("short_conv")
    call = ShortCall(*arguments)
    with without_autocast(call.x.device):
        return backends.for_short_conv(call.x.device.type).short_forward(call)


@_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "longwave::short_conv_backward", mutates_args=(), schema=f"(bool[] needs, Tensor dy, {_ARGUMENTS}) -> Tensor[]"
)
def _backward_op(needs: list[bool], dy: Tensor, *arguments: Any) -> list[Tensor]:
    refuse_forward_mode("short_conv")
    return _run_backward(needs, dy, ShortCall(*arguments))


@_backward_op.register_fake
def _(needs: list[bool], dy: Tensor, *arguments: Any) -> list[Tensor]:
    return [t.new_empty(t.shape) for need, t in zip(needs, arguments[:4], strict=True) if need and t is not None]


def _op_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.options = inputs[4:]
    ctx.save_for_backward(*inputs[:4])


def _op_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:4])
    call = ShortCall(*ctx.saved_tensors, *ctx.options)
    if torch.is_grad_enabled() or must_be_seen_through(dy):
        grads = iter(_differentiable_backward(needs, dy, call))
    else:
        grads = iter(_backward_op(needs, resolved(dy), *call))
    return *(next(grads) if need else None for need in needs), None, None


_op.register_autograd(_op_backward, setup_context=_op_context)


def check(x: Tensor, w: Tensor, bias: Tensor | None, activation: str | None, layout: str, state: Tensor | None) -> None:
    """The arguments of `short_conv`. Raises ArgumentError in one sentence."""
    check_choice("layout", layout, LAYOUTS)
    if not isinstance(activation, str | None) or activation not in ACTIVATIONS:
        raise ArgumentError(f"activation={activation!r} is unknown; choose one of {', '.join(map(repr, ACTIVATIONS))}")
    check_tensor("x", x, x, REAL_DTYPES, beside="x")
    for name, tensor in (("w", w), ("bias", bias), ("state", state)):
        if tensor is not None or name == "w":
            check_tensor(name, tensor, x, (x.dtype,) if name == "state" else (torch.float32, x.dtype), beside="x")
    if x.dim() not in (2, 3) or 0 in x.shape:
        raise ArgumentError(f"x has shape {tuple(x.shape)}; give (B, H, L), or (B, L, H) with layout='BLH', none of them 0")
    H = x.shape[-2] if layout == "BHL" else x.shape[-1]
    if w.dim() != 2 or w.shape[0] != H or not 1 <= w.shape[1] <= MAX_TAPS:
        raise ArgumentError(
            f"w has shape {tuple(w.shape)}; with {H} channels it must be ({H}, K) with K from 1 to {MAX_TAPS}; longer "
            "filters go to longwave.long_conv"
        )
    if bias is not None and bias.shape != (H,):
        raise ArgumentError(f"bias has shape {tuple(bias.shape)}; give one value a channel, shape ({H},)")
    if state is not None:
        lead, before = x.shape[:-2], w.shape[1] - 1
        shape = (*lead, H, before) if layout == "BHL" else (*lead, before, H)
        if state.shape != shape:
            raise ArgumentError(f"state has shape {tuple(state.shape)}; it holds the K-1 samples before x, shape {shape}")
