"""`context_parallel_conv`: a long convolution over a sequence that is split across ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from longwave import dtypes
from longwave.checks import segments_of
from longwave.distributed.agreement import Statement, agree, described, digest, documents, everywhere, few_taps, stand_in
from longwave.distributed.choice import ALL_TO_ALL, METHODS, Question, choose
from longwave.distributed.halo import with_halo
from longwave.distributed.mesh import Ranks
from longwave.distributed.shards import over_channels
from longwave.distributed.transfers import Call
from longwave.errors import ArgumentError, UnsupportedError
from longwave.lowering import lower
from longwave.masks import FrequencyMask
from longwave.ops.long_conv import long_conv
from longwave.ops.prepared import PreparedFilter
from longwave.transforms import must_be_seen_through


def context_parallel_conv(
    u: Tensor,
    k: Tensor,
    D: Tensor | None = None,
    *,
    mesh: DeviceMesh,
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
    method: str = "auto",
) -> Tensor:
    """`longwave.long_conv` of a sequence of which every rank of a mesh dimension holds a span, and gets the result's.

    All ranks call it, in the same order of calls, forward and backward. Spans follow each other in order of ranks; their
    lengths may differ, and some may be 0. Whatever is wrong on one rank, or differs between ranks, every rank raises.

    Args:
        u: this rank's span, (B, H, L_r), or (B, L_r, H) with `layout="BLH"`, either without B.
        k, D, k_rev: whole, the same on every rank, in the shapes of `long_conv`. Each rank's gradient is its share: their sum
            over the mesh dimension is the gradient.
        mesh: one dimension of a DeviceMesh, as `mesh["cp"]`; its group's timeout is that of every collective here.
        mode: as in `long_conv`, but "full". "circular" has the length of all spans for its period.
        pregate, postgate: of this rank's samples.
        history: on the first rank alone, which owns the samples before all others.
        frequency_mask, layout, precision, backend: as in `long_conv`.
        cu_seqlens: (S+1,) int32, the same on every rank: boundaries in the whole sequence, wherever ranks begin.
        method: "all_to_all": every rank gets some channels of the whole sequence, and gives them back. "halo": every rank gets
            the samples before its span (and behind it, where lags are negative) that its filters reach; not with a
            frequency mask, nor where documents or periods are two-sided. "auto" takes what moves fewer bytes;
            `longwave.distributed.plan` says which.

    Returns:
        This rank's span of the result, in the shape, dtype and layout of `u`.

    Raises:
        ArgumentError: as `long_conv` would, or the ranks were called with something different.
        UnsupportedError: a prepared filter, a functional transform, torch.compile, or a method that cannot do this call.
        RankError: another rank has ended, or did not answer within the timeout.

    Source: the all-to-all is that of Jacobs et al. 2023 (DeepSpeed-Ulysses, arXiv 2309.14509), with channels for heads.
    """
    ranks = Ranks.of(mesh)
    if torch.compiler.is_compiling():
        raise UnsupportedError("context_parallel_conv cannot be compiled; call the layer that holds it outside torch.compile")

    def state() -> Statement:
        return _statement(
            ranks, u, k, D, mode=mode, k_rev=k_rev, pregate=pregate, postgate=postgate, history=history,
            frequency_mask=frequency_mask, cu_seqlens=cu_seqlens, layout=layout, precision=precision, backend=backend,
            method=method,
        )  # fmt: skip

    own = agree(ranks, "context_parallel_conv", state)
    lengths = tuple(said["samples"] for said in own)
    batched, channels_last = u.dim() == 3, layout == "BLH"
    with everywhere():
        if not sum(lengths):
            raise ArgumentError("u has no samples on any rank; give at least one")
        question = Question(
            lengths=lengths, batch=u.shape[0] if batched else 1, channels=u.shape[-1 if channels_last else -2],
            taps=tuple(k.shape), rev_taps=None if k_rev is None else tuple(k_rev.shape), dtype=dtypes.name(u.dtype),
            filter_dtype=dtypes.name(k.dtype), device=u.device.type, mode=mode, history=own[0]["history"],
            history_float32=own[0]["history_float32"], skip=D is not None, pregate=pregate is not None,
            postgate=postgate is not None, segments=segments_of(cu_seqlens, sum(lengths)), mask=frequency_mask,
            layout=layout, precision=precision, backend=backend, method=method,
        )  # fmt: skip
        choice = choose(question)
    if ranks.size == 1 and method == "auto":
        return long_conv(
            u, k, D, mode=mode, k_rev=k_rev, pregate=pregate, postgate=postgate, history=history, frequency_mask=frequency_mask,
            cu_seqlens=cu_seqlens, layout=layout, precision=precision, backend=backend,
        )  # fmt: skip
    signals = (x if x is None or batched else x.unsqueeze(0) for x in (u, pregate, postgate, history))
    differentiable = any(said["differentiable"] for said in own)
    call = Call(*signals, k, k_rev, D, channels_last, differentiable)  # type: ignore[arg-type, call-arg]
    run = over_channels if choice.method == ALL_TO_ALL else with_halo
    y = run(call, choice, ranks)
    return y if batched else y.squeeze(0)


def _statement(ranks: Ranks, u: Tensor, k: Any, D: Tensor | None, **options: Any) -> Statement:
    """What this rank was called with, checked as far as it can be seen from here."""
    history, mask, cu_seqlens = options["history"], options["frequency_mask"], options["cu_seqlens"]
    method, backend = options.pop("method"), options.pop("backend")
    if isinstance(k, PreparedFilter):
        raise UnsupportedError(
            "a prepared filter serves all channels of one length, and a rank convolves some of them, or a part of the length; "
            "pass the filter itself"
        )
    if must_be_seen_through():
        raise UnsupportedError("context_parallel_conv cannot run under vmap, jvp or func.grad; call it outside of them")
    if options["mode"] == "full":
        raise ArgumentError("mode='full' makes more samples than there are, and no rank owns them; use 'causal' and a longer u")
    if method not in METHODS:
        raise ArgumentError(f"method={method!r} is unknown; choose one of {', '.join(map(repr, METHODS))}")
    if history is not None and ranks.rank:
        raise ArgumentError("history was given, and the samples before all others belong to rank 0; give it there alone")
    stand_ins = {name: stand_in(options[name], options["layout"]) for name in ("pregate", "postgate", "history")}
    stand_ins["k_rev"] = few_taps(options["k_rev"])
    lower(stand_in(u, options["layout"]), few_taps(k), D, **{**options, **stand_ins})
    time = -2 if options["layout"] == "BLH" else -1
    for name in ("pregate", "postgate"):
        if options[name] is not None and options[name].shape != u.shape:
            raise ArgumentError(f"{name} has shape {tuple(options[name].shape)}; u has {tuple(u.shape)}, give it the same")
    signals = [x for x in (u, options["pregate"], options["postgate"], history) if x is not None]
    own = {
        "samples": u.shape[time],
        "history": 0 if history is None else history.shape[time],
        "history_float32": history is not None and history.dtype != u.dtype,
        "differentiable": torch.is_grad_enabled() and any(x.requires_grad for x in signals),
    }
    common = {"u": described(u, time), "k": described(k), "D": described(D), "k_rev": described(options["k_rev"])}
    common |= {name: described(options[name], time) for name in ("pregate", "postgate")}
    common |= {name: repr(options[name]) for name in ("mode", "layout", "precision")}
    common |= {"backend": repr(backend), "method": repr(method)}
    common["frequency_mask"] = "None" if mask is None else f"{str(mask)[:100]} ({digest(mask.text)})"
    common["cu_seqlens"] = documents(cu_seqlens)
    return Statement(own, common)
