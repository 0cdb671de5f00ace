"""Calls of `long_conv` for the tests: a case is data, its tensors are cut out of wider ones where asked, and what a backend
makes of it is held against direct sums."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import devices
import pytest
import torch
from devices import backends_here as backends_here
from torch import Tensor

import longwave
from longwave import reference
from longwave.bench.tolerances import CONTRACTS, bound
from longwave.lowering import MODES
from longwave.masks import FrequencyMask

long_conv_ref = devices.on_the_cpu(reference.long_conv_ref)
short_conv_ref = devices.on_the_cpu(reference.short_conv_ref)

STRIDES = ("contiguous", "cut", "expanded", "reversed_axes", "any")


@dataclass(frozen=True, repr=False)
class Case:
    """A call; written out it is what makes it again, `compare(Case(…), backend)`."""

    mode: str = "causal"
    B: int = 2
    H: int = 6
    L: int = 31
    K: int = 31
    filters: str = "channel"  # channel · shared · group · sample
    K_rev: int = 0
    filters_rev: str | None = None  # as `filters`
    P: int = 0
    documents: tuple[int, ...] | None = None
    mask: FrequencyMask | None = None
    D: bool = False
    pregate: bool = False
    postgate: bool = False
    layout: str = "BHL"
    batched: bool = True
    strides: str = "contiguous"  # one of STRIDES, or far; any and far: every tensor, the result's gradient too, has its own
    dtype: torch.dtype = torch.float64
    filter_dtype: torch.dtype | None = None
    history_dtype: torch.dtype | None = None
    precision: str | None = None
    frozen: tuple[str, ...] = ()  # arguments without a gradient
    seed: int = 0

    def _given(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if v != getattr(Case, k)}

    def __repr__(self) -> str:
        return f"Case({', '.join(f'{k}={v!r}' for k, v in self._given().items())})"

    def __str__(self) -> str:
        return " ".join(f"{k}={str(v).removeprefix('torch.')}" for k, v in self._given().items()) or "default"


def arguments(case: Case, device: str | None = None) -> dict[str, Any]:
    """Keyword arguments of `long_conv`, on a device or on that of the tests, boundaries on the CPU; floating ones require
    gradients (unless frozen) and are leaves."""
    c = case
    generator = torch.Generator().manual_seed(c.seed)
    chance = Random(c.seed)

    def leaf(*shape: int, dtype: torch.dtype = c.dtype, scale: float = 1.0, strides: str = "contiguous") -> Tensor:
        return _random(shape, dtype, strides, generator, chance, scale).requires_grad_()

    def signal(length: int, dtype: torch.dtype = c.dtype) -> Tensor:
        strides = c.strides if c.batched or c.strides != "reversed_axes" else "cut"
        return leaf(*_signal_shape(c, length), dtype=dtype, strides=strides)

    tap = c.filter_dtype or c.dtype
    beside = c.strides if c.strides in ("any", "far") else "contiguous"

    def taps(filters: str, count: int) -> Tensor:
        rows = {"channel": (c.H,), "shared": (1,), "group": (c.H // 2,), "sample": (c.B, c.H)}[filters]
        # Equal taps may add up to an error of the truth itself, as large as the bounds of float64.
        strides = "apart" if beside == "any" and c.dtype in (torch.float64, torch.complex128) else beside
        return leaf(*rows, count, dtype=tap, scale=count**-0.5, strides=strides)

    kwargs: dict[str, Any] = {"u": signal(c.L), "k": taps(c.filters, c.K), "mode": c.mode}
    kwargs["layout"] = c.layout
    if c.precision is not None:
        kwargs["precision"] = c.precision
    if c.D:
        kwargs["D"] = leaf(c.H, dtype=tap, strides=beside)
    if c.K_rev:
        kwargs["k_rev"] = taps(c.filters_rev or c.filters, c.K_rev)
    if c.pregate:
        kwargs["pregate"] = signal(c.L)
    if c.postgate:
        kwargs["postgate"] = signal(MODES[c.mode].out_len(c.L, c.K))
    if c.P:
        kwargs["history"] = signal(c.P, c.history_dtype or c.dtype)
    if c.documents is not None:
        kwargs["cu_seqlens"] = torch.tensor(c.documents, dtype=torch.int32)
    if c.mask is not None:
        kwargs["frequency_mask"] = c.mask
    for name in c.frozen:
        kwargs[name].requires_grad_(False)
    return _all_on(kwargs, device or devices.DEVICE)


def _all_on(kwargs: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: on_device(x, device) if isinstance(x, Tensor) and name != "cu_seqlens" else x for name, x in kwargs.items()}


def result_gradient(case: Case) -> Tensor:
    """What a loss hands back to the result."""
    shape = _signal_shape(case, MODES[case.mode].out_len(case.L, case.K))
    generator, chance = torch.Generator().manual_seed(case.seed + 1), Random(case.seed + 1)
    return _random(shape, case.dtype, case.strides if case.strides in ("any", "far") else "contiguous", generator, chance)


def _signal_shape(case: Case, length: int) -> tuple[int, ...]:
    tail = (case.H, length) if case.layout == "BHL" else (length, case.H)
    return (case.B, *tail) if case.batched else tail


def _random(
    shape: tuple[int, ...], dtype: torch.dtype, strides: str, generator: torch.Generator, chance: Random, scale: float = 1.0
) -> Tensor:
    """N(0, scale²), drawn in one dtype for the 16-bit types; between the samples there is NaN."""
    wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    if strides == "cut":  # a window of a wider tensor, every second row of it
        x = torch.full((*shape[:-2], 2 * shape[-2], shape[-1] + 5), float("nan"), dtype=dtype)
        x = x[..., ::2, 3 : 3 + shape[-1]]
    elif strides == "expanded":
        x = torch.empty(*shape[:-2], 1, shape[-1], dtype=dtype)
    elif strides == "reversed_axes":
        x = torch.empty(*reversed(shape), dtype=dtype).permute(*reversed(range(len(shape))))
    elif strides in ("any", "apart"):
        x = _anywhere(shape, dtype, chance, all_of_last=strides == "apart")
    elif strides == "far":
        x = _far_apart(shape, dtype, chance)
    else:
        x = torch.empty(shape, dtype=dtype)
    x.copy_(torch.randn(x.shape, dtype=wide, generator=generator) * scale)
    return x.expand(shape)


def _anywhere(shape: tuple[int, ...], dtype: torch.dtype, chance: Random, all_of_last: bool) -> Tensor:
    """Axes in any order in memory, each with steps, something before and after it, or one place for all of it (size 1)."""
    order = chance.sample(range(len(shape)), len(shape))
    kept = [1 if chance.random() < 0.1 else size for size in shape]
    kept[-1] = shape[-1] if all_of_last else kept[-1]
    steps = [chance.choice((1, 1, 1, 2, 3)) for _ in shape]
    before = [chance.choice((0, 0, 1, 3)) for _ in shape]
    ends = [b + (size - 1) * step + 1 for b, size, step in zip(before, kept, steps, strict=True)]
    x = torch.full([ends[axis] + chance.choice((0, 0, 1, 5)) for axis in order], float("nan"), dtype=dtype)
    x = x.permute(*(order.index(axis) for axis in range(len(shape))))
    return x[tuple(slice(b, end, step) for b, end, step in zip(before, ends, steps, strict=True))]


def _far_apart(shape: tuple[int, ...], dtype: torch.dtype, chance: Random) -> Tensor:
    """The ends of one axis are more than 2^31 samples apart; memory that nobody touches costs nothing."""
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    strides = list(torch.empty(shape, device="meta").stride())
    if axes:
        axis = chance.choice(axes)
        strides[axis] = 2**31 // (shape[axis] - 1) + 1
    needed = dtype.itemsize * (1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)))
    try:
        storage = torch.UntypedStorage(needed)
    except RuntimeError:
        pytest.skip(f"this system does not set aside {needed / 2**30:.0f} GiB of addresses")
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)


def on_device(x: Tensor, device: str) -> Tensor:
    """A leaf with the same place, strides and neighbours in its memory; x itself where it is there."""
    if x.device.type == device:
        return x
    moved = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage()).to(device).untyped_storage()
    there = torch.empty(0, dtype=x.dtype, device=device).set_(moved, x.storage_offset(), x.shape, x.stride())
    return there.requires_grad_(x.requires_grad)


def floating(kwargs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: x for name, x in kwargs.items() if isinstance(x, Tensor) and x.requires_grad}


def truth_of(kwargs: dict[str, Any]) -> Tensor:
    return long_conv_ref(**_of_the_reference(kwargs))


def _of_the_reference(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in kwargs.items() if name != "precision"}


def compare(case: Case, backend: str, device: str | None = None) -> None:
    """The result and every gradient, within the contract of the backend and of the dtype it gives them in; on a device, or on
    that of `pytest --device`.

    Raises UnsupportedError where the backend refuses the case.
    """
    kwargs, dy, device = arguments(case, "cpu"), result_gradient(case), device or devices.DEVICE
    there = _all_on(kwargs, device)
    y = longwave.long_conv(**there, backend=backend)
    assert y.dtype == case.dtype
    assert y.shape == dy.shape
    assert y.is_contiguous()
    inputs, leaves = floating(kwargs), floating(there)
    got = {"y": y.detach().cpu()}
    if inputs:
        grads = torch.autograd.grad(y, list(leaves.values()), on_device(dy, device))
        got |= zip(inputs, [grad.cpu() for grad in grads], strict=True)
    for name, x in inputs.items():
        assert got[name].dtype == x.dtype
        assert got[name].shape == x.shape
    held_to_truth(case, kwargs, dy, got, backend)


def held_to_truth(
    case: Case, kwargs: dict[str, Any], dy: Tensor, got: dict[str, Tensor], backend: str, apart: dict[str, float] | None = None
) -> None:
    """That the result "y" and the gradients, by the names of their arguments, are within the contract of the backend.

    `apart`: for gradients that are sums of parts which were rounded each, the norm of all parts relative to that of the sum; in
    16 bits they have the bound of what rounding may cost, since the exact parts are not known here.
    """
    inputs = [name for name in got if name != "y"]
    exact = {name: _exact(x) for name, x in kwargs.items() if isinstance(x, Tensor) and name != "cu_seqlens"}
    truth = _derived({**kwargs, **exact}, inputs, _exact(dy))
    allowed = {name: _allowed(case, (dy if name == "y" else kwargs[name]).dtype, truth[name], backend) for name in got}
    for name, factor in (apart or {}).items():
        if kwargs[name].dtype.itemsize == 2:
            allowed[name] = bound(kwargs[name].dtype, case.L + case.K + case.K_rev + case.P, backend)
        allowed[name] *= max(1.0, factor)
    wrong = [name for name in got if not _error(got[name], truth[name]) <= allowed[name]]
    if wrong:
        sizes = _sizes({**kwargs, **exact}, _exact(dy))
        for name in wrong:
            error = _error(got[name], truth[name], sizes[name])
            what = name if name == "y" else f"the gradient of {name}"
            assert error <= allowed[name], (
                f"{what}: relative error {error:.2e} above {allowed[name]:.2e} on {backend} in {case!r}"
            )


def _sizes(kwargs: dict[str, Any], dy: Tensor) -> dict[str, float]:
    """The norms that the result and the gradients have on average over the signs of what they sum.

    Few terms may happen to cancel, or none may reach a sample of history, while a transform spreads its rounding errors over
    all samples of a row: |v|·|k|/√n each (|dz|·|k|/√n, |v|·|dz|/√n), and that is also their average where n are summed. Behind
    a mask k stays the filter that was given: its projection has no larger norm, but may leave a sample of history next to
    nothing, with an error of 1e-5 of that.
    """

    def energy(x: Tensor | None) -> Tensor:
        """|x|², (B, H, ·), or 1."""
        if x is None:
            return torch.ones((), dtype=torch.float64)
        x = x.detach().abs().square()
        x = x if kwargs["u"].dim() == 3 else x.unsqueeze(0)
        return x if kwargs["layout"] == "BHL" else x.transpose(1, 2)

    u, pregate, postgate, history = (energy(kwargs.get(name)) for name in ("u", "pregate", "postgate", "history"))
    B, H, L = u.shape
    v, dz = (u * pregate).sum(-1, keepdim=True), (energy(dy) * postgate).sum(-1, keepdim=True)
    before, after = L, energy(dy).shape[-1]
    if "history" in kwargs:
        v, before = v + history.sum(-1, keepdim=True), L + history.shape[-1]
    taps = torch.zeros(B, H, 1, dtype=torch.float64)
    for k in (kwargs["k"], kwargs.get("k_rev")):
        if k is not None:
            taps = taps + k.detach().abs().square().sum(-1, keepdim=True).repeat_interleave(H // k.shape[-2], dim=-2)
    if "D" in kwargs:
        taps = taps + kwargs["D"].detach().abs().square().unsqueeze(-1)
    y, dv, correlated = v * taps / after, dz * taps / before, (v * dz / before).sum()
    squares = {
        "y": (y * postgate).expand(B, H, after),
        "postgate": y.expand(B, H, after),
        "u": (dv * pregate).expand(B, H, L),
        "pregate": dv * u,
        "history": dv.expand(B, H, before - L),
        "D": correlated,
        **{name: correlated * min(before, kwargs[name].shape[-1]) for name in ("k", "k_rev") if name in kwargs},
    }
    return {name: x.sum().sqrt().item() for name, x in squares.items()}


def check(got: Tensor, truth: Tensor, case: Case, what: str, backend: str = "plain") -> None:
    error, allowed = _error(got, truth), _allowed(case, got.dtype, truth, backend)
    assert error <= allowed, f"{what}: relative error {error:.2e} above {allowed:.2e} in {case!r}"


def _exact(x: Tensor) -> Tensor:
    """A leaf of the same values."""
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64).requires_grad_()


def _derived(kwargs: dict[str, Any], inputs: list[str], dy: Tensor) -> dict[str, Tensor]:
    """The reference's result and gradients, on the CPU."""
    y = reference.long_conv_ref(**_of_the_reference(kwargs))
    found = {"y": y.detach()}
    if inputs:
        of = torch.autograd.grad(y, [kwargs[name] for name in inputs], dy.detach(), materialize_grads=True)
        found |= zip(inputs, of, strict=True)
    return found


def _error(got: Tensor, truth: Tensor, typical: float = 0.0) -> float:
    wrong, size = (got.to(truth.dtype) - truth).norm().item(), max(truth.norm().item(), typical)
    return 0.0 if wrong == 0 else wrong / size if size else float("inf")


def _allowed(case: Case, dtype: torch.dtype, truth: Tensor, backend: str) -> float:
    length = case.L + case.K + case.K_rev + case.P
    if CONTRACTS[backend].multiplies_as_given and case.dtype.itemsize == 2:
        if case.precision is None:
            return bound(case.dtype, length, backend, truth=truth)
        backend = "plain"  # float32 inside, rounded once
    return bound(dtype, length, backend, truth=truth if dtype.itemsize == 2 else None)
