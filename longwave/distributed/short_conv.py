"""`context_parallel_short_conv`: a short convolution over a sequence that is split across ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from longwave.checks import check_boundaries, segments_of
from longwave.distributed.agreement import Statement, agree, described, documents, everywhere, stand_in
from longwave.distributed.mesh import Ranks
from longwave.distributed.spans import Spans, around, documents_of
from longwave.distributed.transfers import fetch, tied
from longwave.errors import ArgumentError, UnsupportedError
from longwave.ops.short_conv import check, short_conv
from longwave.transforms import must_be_seen_through


def context_parallel_short_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    mesh: DeviceMesh,
    activation: str | None = None,
    layout: str = "BHL",
    state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """`longwave.short_conv` of a sequence of which every rank of a mesh dimension holds a span, and gets the result's.

    Every rank gets the K-1 samples before its span from those that own them. Spans, failures and gradients are as in
    `context_parallel_conv`: those of w and bias are this rank's share.

    Args:
        x: this rank's span, (B, H, L_r), or (B, L_r, H) with `layout="BLH"`, either without B.
        w, bias, activation, layout: as in `short_conv`, the same on every rank.
        mesh: one dimension of a DeviceMesh.
        state: the K-1 samples before all others, on the first rank alone.
        cu_seqlens: (S+1,) int32, the same on every rank: boundaries in the whole sequence.

    Returns:
        This rank's span of the result, in x's shape, dtype and layout.

    Raises:
        ArgumentError: as `short_conv` would, or the ranks were called with something different.
        UnsupportedError: under a functional transform or torch.compile.
        RankError: another rank has ended, or did not answer within the timeout.
    """
    ranks = Ranks.of(mesh)
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            "context_parallel_short_conv cannot be compiled; call the layer that holds it outside torch.compile"
        )

    def saying() -> Statement:
        return _statement(ranks, x, w, bias, activation, layout, state, cu_seqlens)

    own = agree(ranks, "context_parallel_short_conv", saying)
    lengths = tuple(said["samples"] for said in own)
    with everywhere():
        if not sum(lengths):
            raise ArgumentError("x has no samples on any rank; give at least one")
        bounds = segments_of(cu_seqlens, sum(lengths))
    batched, channels_last, before = x.dim() == 3, layout == "BLH", w.shape[1] - 1
    spans = Spans(lengths, history=own[0]["history"])
    x_BHL, state_BHL = (_as_BHL(t, batched, channels_last) for t in (x, state))

    def samples(offset: int, length: int) -> Tensor:
        return state_BHL.narrow(2, before + offset, length) if offset < 0 else x_BHL.narrow(2, offset, length)

    windows = [around(spans, rank, before, 0, bounds)[:1] for rank in range(ranks.size)]
    differentiable = any(said["differentiable"] for said in own)
    (past,) = fetch(windows, spans, samples, x_BHL.narrow(2, 0, 0), ranks, differentiable=differentiable).assemble()
    if not lengths[ranks.rank]:
        return tied(x, past, state, w, bias)
    inner = None if bounds is None else torch.tensor(documents_of(spans, ranks.rank, bounds), dtype=torch.int32)
    past = past.transpose(1, 2) if channels_last else past
    past = past if batched else past.squeeze(0)
    y = short_conv(x, w, bias, activation=activation, layout=layout, state=past, cu_seqlens=inner)
    return tied(y, state)


def _statement(
    ranks: Ranks, x: Tensor, w: Tensor, bias: Tensor | None, activation: str | None, layout: str, state: Any, cu_seqlens: Any
) -> Statement:
    if must_be_seen_through():
        raise UnsupportedError("context_parallel_short_conv cannot run under vmap, jvp or func.grad; call it outside of them")
    if state is not None and ranks.rank:
        raise ArgumentError("state was given, and the samples before all others belong to rank 0; give it there alone")
    check(stand_in(x, layout), w, bias, activation, layout, state)
    if cu_seqlens is not None:
        check_boundaries(cu_seqlens, x, x.dim() == 3, beside="x")
    time = -2 if layout == "BLH" else -1
    own = {
        "samples": x.shape[time],
        "history": 0 if state is None else w.shape[1] - 1,
        "differentiable": torch.is_grad_enabled() and any(t.requires_grad for t in (x, state) if t is not None),
    }
    common = {"x": described(x, time), "w": described(w), "bias": described(bias), "activation": repr(activation)}
    return Statement(own, {**common, "layout": repr(layout), "cu_seqlens": documents(cu_seqlens)})


def _as_BHL(x: Tensor | None, batched: bool, channels_last: bool) -> Any:
    if x is None:
        return None
    x = x if batched else x.unsqueeze(0)
    return x.transpose(1, 2) if channels_last else x
