"""By halos: every rank convolves its span with the samples around it that its filters reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longwave.distributed.choice import Choice
from longwave.distributed.mesh import Ranks
from longwave.distributed.spans import around, documents_of
from longwave.distributed.transfers import Call, fetch, tied
from longwave.lowering import two_sided
from longwave.ops.long_conv import long_conv


def with_halo(call: Call, choice: Choice, ranks: Ranks, conv: Callable[..., Tensor] = long_conv) -> Tensor:
    """The rank's span of the result, convolved by `conv`."""
    q, spans, dtype = choice.question, choice.spans, choice.halo_dtype
    u, pregate, history = (call.in_BHL(x) for x in (call.u, call.pregate, call.history))

    def samples(offset: int, length: int) -> Tensor:
        if offset < 0:
            return history.narrow(2, history.shape[2] + offset, length).to(dtype)
        x = u.narrow(2, offset, length).to(dtype)
        return x if pregate is None else x * pregate.narrow(2, offset, length).to(dtype)

    windows = [around(spans, rank, *choice.reach, q.segments) for rank in range(ranks.size)]
    if not choice.reach[1]:  # a causal convolution takes what is before all samples for zero
        windows = [(before._replace(zeros_before=0), after) for before, after in windows]
    nothing = u.narrow(2, 0, 0).to(dtype)
    before, after = fetch(windows, spans, samples, nothing, ranks, differentiable=call.differentiable).assemble()
    if not spans.lengths[ranks.rank]:
        return tied(call.u, call.pregate, call.postgate, call.history, before, call.k, call.k_rev, call.D)
    options: dict[str, Any] = {"precision": q.precision, "backend": q.backend}
    if choice.two_sided:
        return tied(_two_sided(conv, call, choice, samples(0, u.shape[2]), before, after, options), call.history)
    bounds = None if q.segments is None else torch.tensor(documents_of(spans, ranks.rank, q.segments), dtype=torch.int32)
    past = before.transpose(1, 2) if call.channels_last else before
    y = conv(
        call.u, call.k, call.D, pregate=call.pregate, postgate=call.postgate, history=past if before.shape[2] else None,
        cu_seqlens=bounds, layout=q.layout, **options,
    )  # fmt: skip
    return tied(y, call.history, None if before.shape[2] else before)


def _two_sided(
    conv: Callable[..., Tensor], call: Call, choice: Choice, v: Tensor, before: Tensor, after: Tensor, options: dict[str, Any]
) -> Tensor:
    """Lags from -R to F as the lags 0 … R + F of a causal convolution that ends R samples later; D is a tap at lag 0."""
    q, (_, R) = choice.question, choice.reach
    taps = call.k if call.k_rev is None else two_sided(call.k, call.k_rev, q.batch, q.channels, v.dtype)
    taps = taps if taps.dtype in (torch.float32, v.dtype) else taps.to(v.dtype)
    if call.D is not None:
        skip = call.D.unsqueeze(-1).to(torch.promote_types(taps.dtype, call.D.dtype))
        rows = taps.repeat_interleave(q.channels // taps.shape[-2], dim=-2)
        taps = torch.cat([rows[..., :R], rows[..., R : R + 1] + skip, rows[..., R + 1 :]], dim=-1)
    x = torch.cat([before, v, after], dim=2)
    reach = x.shape[2] - v.shape[2]
    postgate = call.in_BHL(call.postgate)
    fused = postgate if x.dtype == call.u.dtype else None
    past = x.narrow(2, 0, reach) if reach else None
    y = conv(x.narrow(2, reach, v.shape[2]), taps, history=past, postgate=fused, **options)
    if postgate is not None and fused is None:
        y = y * postgate.to(y.dtype)
    y = y.to(call.u.dtype)
    return y.transpose(1, 2).contiguous() if call.channels_last else y
