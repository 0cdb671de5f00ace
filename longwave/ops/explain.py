"""`plan`: what `long_conv` would do with tensors of these shapes, without tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from longwave import backends
from longwave.errors import ArgumentError
from longwave.ops.long_conv import _Call, _problem
from longwave.planner import Plan
from longwave.problem import lower, segments_of

DEVICES = ("cpu", "cuda")


def plan(
    u_shape: Sequence[int],
    k_shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    filter_dtype: torch.dtype = torch.float32,
    mode: str = "causal",
    k_rev_shape: Sequence[int] | None = None,
    D: bool = False,
    pregate: bool = False,
    postgate: bool = False,
    history: int = 0,
    cu_seqlens: Sequence[int] | None = None,
    layout: str = "BHL",
    precision: str | None = None,
    device: str = "cpu",
    backend: str = "auto",
) -> Plan:
    """The decision that `longwave.long_conv` takes for such a call; `print` explains it.

    Args:
        u_shape, k_shape, k_rev_shape: the shapes of u, k and k_rev in `long_conv`.
        D, pregate, postgate: whether they are given.
        history: P, the number of samples before u.
        cu_seqlens: the boundaries of packed documents.
        dtype, filter_dtype, mode, layout, precision, backend: as in `long_conv`; device: "cpu" or "cuda".

    Returns:
        A Plan: backend and why, algorithm, sizes, `bytes` (result and scratch), predicted time in ms.

    Raises:
        ArgumentError, UnsupportedError: as `long_conv` would.
    """
    for name, shape in (("u_shape", u_shape), ("k_shape", k_shape), ("k_rev_shape", k_rev_shape)):
        if shape is not None and any(not isinstance(n, int) or n < 0 for n in shape):
            raise ArgumentError(f"{name} is {tuple(shape)}; give whole numbers that are not negative")
    if device not in DEVICES:
        raise ArgumentError(f"device={device!r} is unknown; choose one of {', '.join(map(repr, DEVICES))}")
    if history < 0:
        raise ArgumentError(f"history is {history}; give a number of samples, 0 for none")

    def meta(shape: Sequence[int], of: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(tuple(shape), dtype=of, device="meta")

    u, k = meta(u_shape), meta(k_shape, filter_dtype)
    channels_at = -2 if layout == "BHL" else -1
    H = u.shape[channels_at] if u.dim() in (2, 3) else 0
    before = list(u.shape)
    if history and u.dim() in (2, 3):
        before[-1 if layout == "BHL" else -2] = history
    after = list(u.shape)
    if mode == "full" and u.dim() in (2, 3) and k.dim():
        after[-1 if layout == "BHL" else -2] += k.shape[-1] - 1
    bounds = None if cu_seqlens is None else torch.tensor(list(cu_seqlens), dtype=torch.int32)
    a = lower(
        u,
        k,
        meta((H,), torch.float32) if D else None,
        mode=mode,
        k_rev=None if k_rev_shape is None else meta(k_rev_shape, filter_dtype),
        pregate=meta(u.shape) if pregate else None,
        postgate=meta(after) if postgate else None,
        history=meta(before) if history else None,
        cu_seqlens=bounds,
        layout=layout,
        precision=precision,
    )
    segments_of(bounds, a.u.shape[2])
    call = _Call(a.lag0, a.out_len, a.circular, a.channels_last, precision, backend)
    problem = _problem(call, (a.u, a.k, a.D, a.pregate, a.postgate, a.history), bounds)
    problem = dataclasses.replace(problem, device=device)
    engine, why = backends.choose(problem, backend)
    return dataclasses.replace(engine.plan(problem), why=why)
