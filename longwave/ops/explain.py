"""`plan`: what `long_conv` would do with tensors of these shapes, without tensors."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from longwave import backends
from longwave.backends.triton import cost
from longwave.errors import ArgumentError
from longwave.lowering import lower
from longwave.masks import FrequencyMask
from longwave.ops.long_conv import Call, problem_of
from longwave.planner import Plan

DEVICES = ("cpu", "cuda", *cost.PARTS)


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
    frequency_mask: FrequencyMask | None = None,
    cu_seqlens: Sequence[int] | None = None,
    layout: str = "BHL",
    precision: str | None = None,
    device: str = "cpu",
    backend: str = "auto",
) -> Plan:
    """The decision that `longwave.long_conv` takes for such a call; `print` explains it. A prepared filter prints its own.

    Args:
        u_shape, k_shape, k_rev_shape: the shapes of u, k and k_rev in `long_conv`.
        D, pregate, postgate: whether they are given.
        history: P, the number of samples before u.
        cu_seqlens: the boundaries of packed documents.
        dtype, filter_dtype, mode, frequency_mask, layout, precision, backend: as in `long_conv`.
        device: "cpu" or "cuda"; or a GPU that need not be here ("h200", "h100", "a100", "4090"), of which the time is modelled
            from its published rates.

    Returns:
        A Plan: backend and why, algorithm, sizes, `bytes` (result and scratch, for tensors that are contiguous in their
        layout), predicted time in ms.

    Raises:
        ArgumentError, UnsupportedError: as `long_conv` would.
    """
    u_size, k_size = _shape("u_shape", u_shape), _shape("k_shape", k_shape)
    k_rev_size = None if k_rev_shape is None else _shape("k_rev_shape", k_rev_shape)
    P = _count("history", history)
    bounds = None if cu_seqlens is None else _boundaries(cu_seqlens)
    if device not in DEVICES:
        raise ArgumentError(f"device={device!r} is unknown; choose one of {', '.join(map(repr, DEVICES))}")
    for name, value in (("dtype", dtype), ("filter_dtype", filter_dtype)):
        if not isinstance(value, torch.dtype):
            raise ArgumentError(f"{name} is {value!r}; give a torch.dtype, as torch.float32")

    def meta(shape: Sequence[int], of: torch.dtype = dtype) -> torch.Tensor:
        # Expanded from one number: a shape may be larger than any memory.
        return torch.empty((), dtype=of, device="meta").expand(shape)

    time = -2 if layout == "BLH" else -1
    before, after = list(u_size), list(u_size)
    if len(u_size) in (2, 3) and k_size:
        before[time] = P
        after[time] += k_size[-1] - 1 if mode == "full" else 0
    channels = u_size[-3 - time] if len(u_size) in (2, 3) else 0
    a = lower(
        meta(u_size),
        meta(k_size, filter_dtype),
        meta((channels,), filter_dtype) if D else None,
        mode=mode,
        k_rev=None if k_rev_size is None else meta(k_rev_size, filter_dtype),
        pregate=meta(u_size) if pregate else None,
        postgate=meta(after) if postgate else None,
        history=meta(before) if P else None,
        cu_seqlens=bounds,
        layout=layout,
        precision=precision,
        frequency_mask=frequency_mask,
    )
    mask = None if frequency_mask is None else frequency_mask.text
    call = Call(a.lag0, a.out_len, a.circular, a.channels_last, precision, backend, mask, a.rev_taps)
    problem = problem_of(call, a.given, bounds)
    if device in cost.PARTS:
        if backend not in ("auto", "triton"):
            raise ArgumentError(f"device={device!r} is a model of backend='triton', not of {backend!r}; use backend='auto'")
        return cost.plan(dataclasses.replace(problem, device="cuda"), device)
    problem = dataclasses.replace(problem, device=device)
    engine, why = backends.choose(problem, backend)
    chosen = engine.plan(problem)
    if k_rev_size is not None:  # two filters become one before a backend sees them: the one, and the turned half
        chosen = dataclasses.replace(chosen, scratch_bytes=chosen.scratch_bytes + 2 * a.given.taps.nbytes)
    return dataclasses.replace(chosen, why=why)


def _count(name: str, value: Any) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} is {value!r}; give a whole number") from None
    if count < 0 or isinstance(value, bool):
        raise ArgumentError(f"{name} is {value!r}; give a whole number that is not negative")
    return count


def _shape(name: str, shape: Any) -> list[int]:
    if not isinstance(shape, Iterable) or isinstance(shape, str):
        raise ArgumentError(f"{name} is {shape!r}; give a sequence of whole numbers")
    return [_count(name, n) for n in shape]


def _boundaries(cu_seqlens: Any) -> torch.Tensor:
    bounds = _shape("cu_seqlens", cu_seqlens)
    if any(n >= 2**31 for n in bounds):
        raise ArgumentError(f"cu_seqlens holds {max(bounds)}; boundaries are int32, below {2**31}")
    return torch.tensor(bounds, dtype=torch.int32)
