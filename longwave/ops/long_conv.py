"""`long_conv`: the public operator, its registration and its derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import backends, dtypes
from longwave.backends import plain
from longwave.checks import segments_of
from longwave.dtypes import cast, conj, resolved
from longwave.errors import UnsupportedError
from longwave.lowering import lower
from longwave.masks import FrequencyMask
from longwave.operands import Operands
from longwave.ops import pair
from longwave.ops.prepared import PreparedFilter
from longwave.problem import Filters, Problem
from longwave.transforms import is_traced, must_be_seen_through, refuse_forward_mode, without_autocast


def long_conv(
    u: Tensor,
    k: Tensor | PreparedFilter,
    D: Tensor | None = None,
    *,
    mode: str = "causal",
    k_rev: Tensor | None = None,
    pregate: Tensor | None = None,
    postgate: Tensor | None = None,
    history: Tensor | None = None,
    frequency_mask: FrequencyMask | None = None,
    cu_seqlens: Tensor | None = None,
    layout: str = "BHL",
    precision: str | None = None,
    backend: str = "auto",
) -> Tensor:
    """Convolve every channel of `u` with its own filter, as long as the sequence if need be.

        v = pregate · u
        y = postgate · (conv(v, k) + D · v)

    B is the batch, H the channels, L the samples, K the taps.

    Args:
        u: (B, H, L), or (B, L, H) with `layout="BLH"`, either without B; any strides, read in place. float64, float32,
            bfloat16, float16, complex64 or complex128.
        k: filters, float32 or u's dtype: (H, K); (1, K) shared by all channels; (G, K) shared by groups of H/G neighbouring
            channels; (B, H, K) one a sample. Any K >= 1, shorter or longer than L. Or a filter that `prepare_filter` made.
        D: (H,), float32 or u's dtype: a skip connection from v.
        mode: "causal": y[t] = Σ_{s=0..t} k[s] v[t-s]. "circular": v has period L; taps beyond L fold. "same": lags start at
            -((K-1)//2), as in `scipy.signal`. "full": all L+K-1 samples; v is extended by zeros for D.
        k_rev: adds Σ_{s>=0} k_rev[s] v[t+s], in the shapes of k (lag 0 counts in both). "causal" and "circular" only.
        pregate: u's shape, dtype and layout.
        postgate: the result's shape and layout, u's dtype.
        history: (B, H, P) in u's layout, u's dtype or float32: the P samples of v before u. "causal" only. With
            `cu_seqlens` it precedes the first document.
        frequency_mask: the frequencies of the filter that are kept, with a grid of its own for every document; D is not
            masked. It makes the filter look ahead: without `k_rev`, "causal" and "full" want a mask with `leaks_future=True`.
        cu_seqlens: (S+1,) int32, best on the CPU (on a GPU it costs one synchronisation): u is (1, H, total), the S
            documents [cu_seqlens[i], cu_seqlens[i+1]) are convolved apart and may be empty. Not with "full".
        layout: "BHL" or "BLH", of u, gates, history and result.
        precision: None for the backend's default, or "high"; they differ on GPUs, for 16-bit u.
        backend: "auto", or a backend by name, which is used or refused, never replaced. `longwave.plan` explains "auto".

    Returns:
        u's dtype, contiguous in `layout`; L samples, or L+K-1 in mode "full". 16-bit input is convolved in float32 and
        rounded once. Autocast changes nothing.

    Raises:
        ArgumentError: a wrong shape, dtype, device or value, or arguments that exclude each other.
        UnsupportedError: the named backend cannot run this call.

    Equivalent to (causal, without gates, K <= L + 1), up to rounding:
        n = 2 * L; torch.fft.irfft(torch.fft.rfft(u, n) * torch.fft.rfft(k, n), n)[..., :L] + D[:, None] * u

    Source: Fu et al. 2023, arXiv 2311.05908, section 3; Poli et al. 2023, arXiv 2302.10866, for the gates.
    """
    prepared = None
    if isinstance(k, PreparedFilter):
        k.check(
            u, mode=mode, layout=layout, backend=backend, k_rev=k_rev, history=history, cu_seqlens=cu_seqlens,
            frequency_mask=frequency_mask, precision=precision,
        )  # fmt: skip
        prepared, k = k, k.taps
    a = lower(
        u, k, D, mode=mode, k_rev=k_rev, pregate=pregate, postgate=postgate, history=history, cu_seqlens=cu_seqlens,
        layout=layout, precision=precision, frequency_mask=frequency_mask,
    )  # fmt: skip
    mask = None if frequency_mask is None else frequency_mask.text
    call = Call(a.lag0, a.out_len, a.circular, a.channels_last, precision, backend, mask, a.rev_taps)
    spectrum = None
    if prepared is not None:
        call, spectrum = call._replace(lag0=prepared.lag0, backend=prepared.backend, mask=prepared.mask), prepared.spectrum
    given = Operands(*(None if x is None else resolved(x) for x in a.given))  # type: ignore[arg-type]
    if must_be_seen_through():
        _refuse_for_transforms(backend)
        with without_autocast(u.device):
            y = plain.formula(problem_of(call, given, cu_seqlens), given)
            y = y.transpose(1, 2).contiguous() if a.channels_last else y
    elif is_traced():
        y = _op(*given, cu_seqlens, spectrum, *call)
        y = y.transpose(1, 2) if a.channels_last else y
    elif torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        y = _LongConv.apply(call, cu_seqlens, spectrum, *given)
    else:
        y = _in_layout(call, _run_forward(call, given, cu_seqlens, spectrum))
    return y if u.dim() == 3 else y.squeeze(0)


def _refuse_for_transforms(backend: str) -> None:
    if backend != "auto" and backends.load(backend) is not plain:
        raise UnsupportedError(
            f"backend={backend!r} cannot run under vmap, jvp or func.grad; use backend='auto', which takes 'plain' there"
        )
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            "long_conv under vmap, jvp or func.grad cannot be compiled with fullgraph=True; leave fullgraph out, or compile "
            "inside the transform"
        )


class Call(NamedTuple):
    """What the operator takes beside tensors."""

    lag0: int
    out_len: int
    circular: bool
    channels_last: bool
    precision: str | None
    backend: str
    mask: str | None = None  # the text of a FrequencyMask
    rev_taps: int = 0


def problem_of(call: Call, given: Operands, cu_seqlens: Tensor | None) -> Problem:
    P, L = 0 if given.history is None else given.history.shape[2], given.u.shape[2]
    return Problem.of(
        given.u,
        Filters.of(given.taps),
        in_start=-P,
        in_len=P + L,
        out_start=0,
        out_len=call.out_len,
        lag0=call.lag0,
        reverse=False,
        circular=call.circular,
        history=P,
        skip=given.D is not None,
        pregate=given.pregate is not None,
        postgate=given.postgate is not None,
        channels_last=call.channels_last,
        segments=segments_of(cu_seqlens, L),
        precision=call.precision,
        mask=None if call.mask is None else FrequencyMask.of_text(call.mask),
        rev_taps=call.rev_taps,
    )


def _run_forward(call: Call, given: Operands, cu_seqlens: Tensor | None, spectrum: Tensor | None) -> Tensor:
    problem = problem_of(call, given, cu_seqlens)
    engine, _ = backends.choose(problem, call.backend)
    return engine.forward(problem, given, spectrum)


def _in_layout(call: Call, y: Tensor) -> Tensor:
    """A result as the caller's own tensor, not as a view of one in another layout."""
    return y.transpose(1, 2).detach() if call.channels_last else y


def _run_backward(
    call: Call, needs: Sequence[bool], dy: Tensor, given: Operands, cu_seqlens: Tensor | None, spectrum: Tensor | None
) -> list[Tensor]:
    problem = problem_of(call, given, cu_seqlens)
    engine, _ = backends.choose(problem, call.backend)
    return engine.backward(problem, tuple(needs), dy, given, spectrum)


def _differentiable_backward(
    call: Call, needs: Sequence[bool], dy: Tensor, given: Operands, cu_seqlens: Tensor | None, _: Tensor | None
) -> list[Tensor]:
    """The gradients as an expression of the pair, which can itself be differentiated, to any order.

    From the taps, whatever was prepared of them. Windows are taken by `narrow`, for which batched gradients have a rule even
    where the window is everything.
    """
    u, _, D, pregate, postgate, history = given
    k = given.taps
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    wide = dtypes.arithmetic(u.dtype)
    taps = k.to(dtypes.filter_arithmetic(u.dtype, k.dtype))
    skip = None if D is None else D.to(dtypes.filter_arithmetic(u.dtype, D.dtype)).unsqueeze(-1)
    P, L = (0 if history is None else history.shape[2]), u.shape[2]
    M = min(L, call.out_len)  # the outputs that D reaches
    circular, backend, mask = call.circular, call.backend, call.mask

    v = u.to(wide) if pregate is None else u.to(wide) * pregate.to(wide)
    x = v if history is None else torch.cat([history.to(wide), v], dim=-1)
    dz = dy.to(wide) if postgate is None else dy.to(wide) * conj(postgate.to(wide))
    grads: list[Tensor | None] = [None] * 6
    if need_u or need_pregate or need_history:
        dx = pair.conv(dz, conj(taps), cu_seqlens, 0, -P, P + L, -call.lag0, True, circular, backend, mask)
        dv = dx.narrow(-1, P, L)
        if skip is not None:
            dv = dv + conj(skip) * F.pad(dz.narrow(-1, 0, M), (0, L - M))
        grads[0] = cast(dv if pregate is None else dv * conj(pregate.to(wide)), u.dtype)
        grads[3] = cast(dv * conj(u.to(wide)), u.dtype) if need_pregate else None
        grads[5] = cast(dx.narrow(-1, 0, P), history.dtype) if history is not None else None
    if need_k:
        f, lags = Filters.of(k), (call.lag0, False, circular)
        dk = pair.corr(dz, conj(x), cu_seqlens, 0, -P, f.taps, *lags, f.groups, f.per_sample, backend, mask)
        grads[1] = cast(dk, k.dtype)
    if need_D and D is not None:
        grads[2] = cast((dz.narrow(-1, 0, M) * conj(v.narrow(-1, 0, M))).sum(dim=(0, 2)), D.dtype)
    if need_postgate:
        z = pair.conv(x, taps, cu_seqlens, -P, 0, call.out_len, call.lag0, False, circular, backend, mask)
        if skip is not None:
            z = z + skip * F.pad(v, (0, call.out_len - L))
        grads[4] = cast(dy.to(wide) * conj(z), u.dtype)
    return [grad for grad, need in zip(grads, needs, strict=True) if need and grad is not None]


class _LongConv(torch.autograd.Function):
    """The eager path: cheaper a call than the registered operator, which tracing takes. Its result is in the caller's
    layout: a transposed view made after it could not be written to in place."""

    @staticmethod
    def forward(ctx: Any, call: Call, cu_seqlens: Tensor | None, spectrum: Tensor | None, *tensors: Any) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(cu_seqlens, spectrum, *tensors)
        return _in_layout(call, _run_forward(call, Operands(*tensors), cu_seqlens, spectrum))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cu_seqlens, spectrum, *tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        dy = dy.transpose(1, 2) if ctx.call.channels_last else dy
        differentiable = torch.is_grad_enabled() or must_be_seen_through(dy)
        run = _differentiable_backward if differentiable else _run_backward
        grads = iter(run(ctx.call, needs, resolved(dy), Operands(*tensors), cu_seqlens, spectrum))
        return None, None, None, *(next(grads) if need else None for need in needs)


_CALL = (
    "SymInt lag0, SymInt out_len, bool circular, bool channels_last, str? precision, str backend, str? mask, SymInt rev_taps=0"
)
_ARGUMENTS = (
    "Tensor u, Tensor k, Tensor? D, Tensor? pregate, Tensor? postgate, Tensor? history, Tensor? cu_seqlens, "
    f"Tensor? spectrum, {_CALL}"
)


@torch.library.custom_op("longwave::long_conv", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _op(*arguments: Any) -> Tensor:
    refuse_forward_mode()
    return _run_forward(Call(*arguments[8:]), Operands(*arguments[:6]), *arguments[6:8])


@_op.register_fake
def _(u: Tensor, *rest: Any) -> Tensor:
    call = Call(*rest[7:])
    return _fake_signal(u, call.out_len, call.channels_last)


@torch.library.custom_op(
    "longwave::long_conv_backward", mutates_args=(), schema=f"(bool[] needs, Tensor dy, {_ARGUMENTS}) -> Tensor[]"
)
def _backward_op(needs: list[bool], dy: Tensor, *arguments: Any) -> list[Tensor]:
    refuse_forward_mode()
    return _run_backward(Call(*arguments[8:]), needs, dy, Operands(*arguments[:6]), *arguments[6:8])


@_backward_op.register_fake
def _(needs: list[bool], dy: Tensor, *arguments: Any) -> list[Tensor]:
    given, call = arguments[:6], Call(*arguments[8:])
    u, history = given[0], given[5]
    signals = (u, None, None, u, dy, history)
    return [
        _fake_signal(x, signal.shape[2], call.channels_last) if signal is not None else x.new_empty(x.shape)
        for need, signal, x in zip(needs, signals, given, strict=True)
        if need and x is not None
    ]


def _fake_signal(x: Tensor, length: int, channels_last: bool) -> Tensor:
    if channels_last:
        return x.new_empty(x.shape[0], length, x.shape[1]).transpose(1, 2)
    return x.new_empty(x.shape[0], x.shape[1], length)


def _op_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, cu_seqlens, spectrum = inputs[:8]
    ctx.call = Call(*inputs[8:])
    ctx.save_for_backward(cu_seqlens, spectrum, *tensors)


def _op_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    cu_seqlens, spectrum, *tensors = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:6])
    if torch.is_grad_enabled() or must_be_seen_through(dy):
        grads = iter(_differentiable_backward(ctx.call, needs, dy, Operands(*tensors), cu_seqlens, spectrum))
    else:
        grads = iter(_backward_op(needs, resolved(dy), *tensors, cu_seqlens, spectrum, *ctx.call))
    return *(next(grads) if need else None for need in needs), *([None] * 10)


_op.register_autograd(_op_backward, setup_context=_op_context)
