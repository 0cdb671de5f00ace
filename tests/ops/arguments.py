"""Arguments of `long_conv` for the tests: a case is data, and its tensors are cut out of wider ones where asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longwave import backends
from longwave.bench.tolerances import bound, relative_l2
from longwave.masks import FrequencyMask
from longwave.problem import MODES
from longwave.reference import long_conv_ref


@dataclass(frozen=True)
class Case:
    mode: str = "causal"
    B: int = 2
    H: int = 6
    L: int = 31
    K: int = 31
    filters: str = "channel"  # channel · shared · group · sample
    K_rev: int = 0
    P: int = 0
    documents: tuple[int, ...] | None = None
    mask: FrequencyMask | None = None
    D: bool = False
    pregate: bool = False
    postgate: bool = False
    layout: str = "BHL"
    batched: bool = True
    strides: str = "contiguous"  # contiguous · cut · expanded · reversed_axes
    dtype: torch.dtype = torch.float64
    filter_dtype: torch.dtype | None = None
    seed: int = 0

    def __str__(self) -> str:
        given = {k: v for k, v in self.__dict__.items() if v != getattr(Case, k)}
        return " ".join(f"{k}={str(v).removeprefix('torch.')}" for k, v in given.items()) or "default"


def arguments(case: Case) -> dict[str, Any]:
    """Keyword arguments of `long_conv`; floating ones require gradients and are leaves."""
    c = case
    generator = torch.Generator().manual_seed(c.seed)
    wide = {torch.bfloat16: torch.float32, torch.float16: torch.float32}.get(c.dtype, c.dtype)

    def leaf(*shape: int, dtype: torch.dtype = c.dtype, scale: float = 1.0, strides: str = "contiguous") -> Tensor:
        draw = wide if dtype in (torch.bfloat16, torch.float16) else dtype
        if strides == "cut":  # a window of a wider tensor, every second row of it
            x = torch.full((*shape[:-2], 2 * shape[-2], shape[-1] + 5), float("nan"), dtype=dtype)
            x = x[..., ::2, 3 : 3 + shape[-1]]
        elif strides == "expanded":
            x = torch.empty(*shape[:-2], 1, shape[-1], dtype=dtype)
        elif strides == "reversed_axes":
            x = torch.empty(*reversed(shape), dtype=dtype).permute(*reversed(range(len(shape))))
        else:
            x = torch.empty(shape, dtype=dtype)
        with torch.no_grad():
            x.copy_(torch.randn(x.shape, dtype=draw, generator=generator) * scale)
        x = x.expand(shape) if strides == "expanded" else x
        return x.detach().requires_grad_()

    def signal(length: int, dtype: torch.dtype = c.dtype) -> Tensor:
        tail = (c.H, length) if c.layout == "BHL" else (length, c.H)
        strides = c.strides if c.batched or c.strides != "reversed_axes" else "cut"
        return leaf(*((c.B, *tail) if c.batched else tail), dtype=dtype, strides=strides)

    tap = c.filter_dtype or c.dtype
    rows = {"channel": (c.H,), "shared": (1,), "group": (c.H // 2,), "sample": (c.B, c.H)}[c.filters]
    kwargs: dict[str, Any] = {"u": signal(c.L), "k": leaf(*rows, c.K, dtype=tap, scale=c.K**-0.5), "mode": c.mode}
    kwargs["layout"] = c.layout
    if c.D:
        kwargs["D"] = leaf(c.H, dtype=tap)
    if c.K_rev:
        kwargs["k_rev"] = leaf(*rows, c.K_rev, dtype=tap, scale=c.K_rev**-0.5)
    if c.pregate:
        kwargs["pregate"] = signal(c.L)
    if c.postgate:
        kwargs["postgate"] = signal(MODES[c.mode].out_len(c.L, c.K))
    if c.P:
        kwargs["history"] = signal(c.P)
    if c.documents is not None:
        kwargs["cu_seqlens"] = torch.tensor(c.documents, dtype=torch.int32)
    if c.mask is not None:
        kwargs["frequency_mask"] = c.mask
    return kwargs


def floating(kwargs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: x for name, x in kwargs.items() if isinstance(x, Tensor) and x.requires_grad}


def backends_here() -> list[str]:
    """Every backend that can run on this machine: the tests of values run on each."""
    return [name for name, reason in backends.available().items() if reason is None]


def check(got: Tensor, truth: Tensor, case: Case, what: str) -> None:
    """`got` within the contract of its dtype, relative to everything a sum of it could cancel from."""
    length = case.L + case.K + case.K_rev + case.P
    allowed = bound(got.dtype, length, "plain", truth=truth if got.dtype.itemsize == 2 else None)
    error = relative_l2(got, truth)
    assert error <= allowed, f"{what}: relative error {error:.2e} above {allowed:.2e} in {case}"


def truth_of(kwargs: dict[str, Any]) -> Tensor:
    return long_conv_ref(**kwargs)
