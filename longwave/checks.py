"""What a single argument must be: a sentence for each that is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from longwave import dtypes
from longwave.errors import ArgumentError

LAYOUTS = ("BHL", "BLH")


def check_choice(name: str, given: str | None, allowed: Sequence[str | None]) -> None:
    if not isinstance(given, str | None) or given not in allowed:
        raise ArgumentError(f"{name}={given!r} is unknown; choose one of {names(allowed)}")


def names(values: Iterable[str | None]) -> str:
    return ", ".join(repr(v) for v in values)


def check_signal(u: Tensor, layout: str) -> None:
    check_dense("u", u)
    if u.dtype not in dtypes.SIGNAL_DTYPES:
        raise ArgumentError(
            f"u has dtype {dtypes.name(u.dtype)}; allowed are {dtypes.names(dtypes.SIGNAL_DTYPES)}; convert it with .to()"
        )
    if u.dim() not in (2, 3):
        batched, single = ("(B, H, L)", "(H, L)") if layout == "BHL" else ("(B, L, H)", "(L, H)")
        raise ArgumentError(f"u has shape {tuple(u.shape)}; layout={layout!r} takes {batched}, or {single} without a batch")
    for size in u.shape:
        if size == 0:
            raise ArgumentError(f"u is empty, shape {tuple(u.shape)}; every dimension must be at least 1")


def check_dense(name: str, x: Tensor | None) -> Tensor:
    if not isinstance(x, Tensor):
        raise ArgumentError(f"{name} is of type {type(x).__name__}; give a torch.Tensor")
    if x.layout is not torch.strided or x.is_nested:
        raise ArgumentError(
            f"{name} is a {'nested' if x.is_nested else x.layout} tensor; give a dense one, as .to_dense() makes"
        )
    return x


def check_tensor(name: str, x: Tensor | None, u: Tensor, allowed: Sequence[torch.dtype], beside: str = "u") -> None:
    """That `x` is a dense tensor of an allowed dtype on the device of `u`, which the caller knows as `beside`."""
    x = check_dense(name, x)
    if x.dtype not in allowed:
        raise ArgumentError(
            f"{name} has dtype {dtypes.name(x.dtype)}; with {beside} of {dtypes.name(u.dtype)} it must be "
            f"{dtypes.names(allowed)}; convert it with .to()"
        )
    if x.device != u.device:
        raise ArgumentError(f"{name} is on {x.device} and {beside} on {u.device}; move one of them with .to()")


def check_filter(name: str, k: Tensor, u: Tensor, H: int, batched: bool) -> None:
    check_tensor(name, k, u, (torch.float32, u.dtype))
    if k.dim() not in (2, 3):
        raise ArgumentError(
            f"{name} has shape {tuple(k.shape)}; allowed are (H, K), (1, K), (G, K) with G dividing H, and (B, H, K)"
        )
    if k.shape[-1] == 0:
        raise ArgumentError(f"{name} has no taps, shape {tuple(k.shape)}; give at least one")
    if k.dim() == 3:
        if not batched:
            raise ArgumentError(
                f"{name} has one filter a sample, shape {tuple(k.shape)}, but u has no batch, shape {tuple(u.shape)}; "
                "give u a batch dimension or the filter two dimensions"
            )
        if k.shape[0] != u.shape[0] or k.shape[1] != H:
            raise ArgumentError(
                f"{name} has shape {tuple(k.shape)}; one filter a sample is (B, H, K) with B={u.shape[0]} and H={H}"
            )
    elif k.shape[0] < 1 or H % k.shape[0]:
        raise ArgumentError(
            f"{name} has {k.shape[0]} rows, shape {tuple(k.shape)}; their number must divide the {H} channels of u"
        )


def check_boundaries(cu_seqlens: Tensor, u: Tensor, batched: bool, beside: str = "u") -> None:
    """That `cu_seqlens` can be boundaries of documents in `u`, which the caller knows as `beside`; values are read later."""
    if not isinstance(cu_seqlens, Tensor) or cu_seqlens.dtype != torch.int32 or cu_seqlens.dim() != 1:
        given = (
            f"{dtypes.name(cu_seqlens.dtype)} of shape {tuple(cu_seqlens.shape)}"
            if isinstance(cu_seqlens, Tensor)
            else type(cu_seqlens).__name__
        )
        raise ArgumentError(f"cu_seqlens is {given}; give an int32 tensor of shape (S + 1,), on the CPU if you can")
    if cu_seqlens.shape[0] < 2:
        raise ArgumentError(f"cu_seqlens has {cu_seqlens.shape[0]} entries; S documents have S + 1 >= 2 boundaries")
    if batched and u.shape[0] != 1:
        raise ArgumentError(
            f"cu_seqlens goes with documents packed into one row, but {beside} has a batch of {u.shape[0]}; "
            "pack them into shape (1, H, total)"
        )


def segments_of(cu_seqlens: Tensor | None, total: int) -> tuple[int, ...] | None:
    """The values of `cu_seqlens`, checked: 0 = c_0 <= c_1 <= … <= c_S = total."""
    if cu_seqlens is None:
        return None
    if cu_seqlens.device.type == "meta":
        raise ArgumentError("cu_seqlens is on the meta device, without values; give it on the CPU")
    bounds = tuple(cu_seqlens.tolist())
    if bounds[0] != 0 or bounds[-1] != total:
        raise ArgumentError(
            f"cu_seqlens runs from {bounds[0]} to {bounds[-1]}; it must start at 0 and end at the packed length {total}"
        )
    for i, (a, b) in enumerate(itertools.pairwise(bounds)):
        if a > b:
            raise ArgumentError(
                f"cu_seqlens falls from {a} to {b} at document {i}; give boundaries that never fall "
                "(a cumulative sum of lengths)"
            )
    return bounds
