"""Who is measured: longwave on each backend, the rivals that are installed, and two copies as a floor.

Every contestant is called as a user calls it: it transforms the filter and allocates its result inside the timing. Each
has as many threads as PyTorch has (`torch.get_num_threads()`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from longwave.bench.cases import BACKWARD, Case
from longwave.bench.formula import Array, Arrays, Transform, forward, forward_backward
from longwave.bench.truth import TORCH_FFT
from longwave.errors import ArgumentError, UnsupportedError

LONGWAVE, RIVAL, FLOOR = "longwave", "rival", "floor"
# The results of one call by name: `y`, `du`, `dk`, … A floor has none: nothing is convolved.
Results = dict[str, Tensor]
Call = Callable[[], Results]


@dataclass(frozen=True)
class Contestant:
    """`bind(case, arrays)` returns the call to be timed; nothing that belongs to the call may happen in `bind`."""

    name: str
    kind: str
    bind: Callable[[Case, Arrays], Call]
    backend: str = "plain"  # whose error bounds it is held to


@dataclass(frozen=True)
class Rival:
    """A rival, the module that must be installed for it, and how it is made."""

    name: str
    module: str
    make: Callable[[], Callable[[Case, Arrays], Call]]
    devices: tuple[str, ...] = ("cpu",)
    kind: str = RIVAL
    backend: str = "plain"
    install: str = "pip install 'longwave[bench]'"


def contestants(backends: Sequence[str], device: str = "cpu") -> tuple[list[Contestant], dict[str, str]]:
    """Everyone who can be measured on `device`, longwave first, and why the others cannot.

    - `backends`: names of longwave's backends; none given means all that take tensors of this device here.

    Returns `(contestants, absent)`; `absent` maps a name to one line that says why.
    Raises ArgumentError for a backend that is unknown, or named and not able to run.
    """
    from longwave.bench.gpu_contestants import GPU_RIVALS

    absent: dict[str, str] = {}
    kind = device.partition(":")[0]
    ours = runnable_backends(backends, kind)
    field = [Contestant(f"longwave:{name}", LONGWAVE, _longwave(name), backend=name) for name in ours]
    for rival in (*RIVALS, *GPU_RIVALS):
        if kind not in rival.devices:
            if "cpu" in rival.devices:
                absent[rival.name] = f"runs on the CPU only, not on {device}"
        elif importlib.util.find_spec(rival.module.partition(".")[0]) is None:
            absent[rival.name] = f"not installed; {rival.install}"
        else:
            field.append(Contestant(rival.name, rival.kind, rival.make(), rival.backend))
    return [*field, Contestant("copy", FLOOR, _copy_to_new), Contestant("copy into", FLOOR, _copy_into)], absent


def runnable_backends(asked: Sequence[str] = (), device: str = "cpu") -> list[str]:
    """The backends to measure: those asked for, or all that run on this machine with tensors on this type of device.

    Returns a list of names. Raises ArgumentError for a backend that is unknown, or asked for and not able to run.
    """
    from longwave.backends import available

    reasons = available()
    for name in asked:
        if name not in reasons:
            raise ArgumentError(f"--backend {name} is unknown; choose from {', '.join(reasons)}")
        if reasons[name] is not None:
            raise ArgumentError(f"--backend {name} cannot run here: {reasons[name]}; choose another")
    return list(dict.fromkeys(asked)) or [name for name, reason in reasons.items() if reason is None and _takes(name, device)]


def _takes(backend: str, device: str) -> bool:
    """Whether a backend takes an ordinary call with tensors of this device."""
    from longwave import plan

    try:
        plan((1, 1, 1024), (1, 1024), device=device, backend=backend)
    except UnsupportedError:
        return False
    return True


def longwave_call(backend: str, case: Case, operands: Arrays) -> Call:
    """The call of a backend of longwave by itself."""
    return _longwave(backend)(case, operands)


def _longwave(backend: str) -> Callable[[Case, Arrays], Call]:
    def bind(case: Case, x: Arrays) -> Call:
        from longwave import long_conv

        def conv(u: Tensor, k: Tensor, D: Tensor | None, pregate: Tensor | None, postgate: Tensor | None) -> Tensor:
            return long_conv(u, k, D, mode=case.mode, pregate=pregate, postgate=postgate, layout=case.layout, backend=backend)

        return under_autograd(case, x, conv)

    return bind


def by_formula(fft: Transform) -> Callable[[Case, Arrays], Call]:
    """The formula with transforms of PyTorch, under autograd."""

    def bind(case: Case, x: Arrays) -> Call:
        dtype = getattr(torch, case.dtype)
        # torch.fft takes no bfloat16 on any device and no float16 on the CPU: a caller goes through float32.
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def conv(*operands: Tensor | None) -> Tensor:
            widened = (None if operand is None else operand.to(wide) for operand in operands)
            u, k, D, pregate, postgate = widened
            return forward(case, Arrays(u, k, D, pregate, postgate, None), fft).to(dtype)

        return under_autograd(case, x, conv)

    return bind


def under_autograd(case: Case, x: Arrays, conv: Callable[..., Tensor]) -> Call:
    """A forward, or a forward and the gradients that autograd finds."""
    if case.direction != BACKWARD:
        return lambda: {"y": conv(*x[:5])}
    leaves = [None if operand is None else operand.detach().requires_grad_() for operand in x[:5]]
    present = [(f"d{name}", leaf) for name, leaf in zip(Arrays._fields[:5], leaves, strict=True) if leaf is not None]

    def call() -> Results:
        y = conv(*leaves)
        gradients = torch.autograd.grad(y, [leaf for _, leaf in present], x.dy)
        return {"y": y.detach()} | dict(zip([name for name, _ in present], gradients, strict=True))

    return call


def _scipy_fft() -> Callable[[Case, Arrays], Call]:
    import scipy.fft

    def rfft(a: Array, n: int, axis: int) -> Array:
        return scipy.fft.rfft(a, n, axis=axis, workers=torch.get_num_threads())

    def irfft(a: Array, n: int, axis: int) -> Array:
        return scipy.fft.irfft(a, n, axis=axis, workers=torch.get_num_threads())

    return _through_numpy(Transform(rfft, irfft))


def _ducc0() -> Callable[[Case, Arrays], Call]:
    import ducc0
    import numpy as np

    def rfft(a: Array, n: int, axis: int) -> Array:
        axis %= a.ndim
        shape = (*a.shape[:axis], n, *a.shape[axis + 1 :])
        padded = np.zeros(shape, a.dtype)
        padded[(slice(None),) * axis + (slice(a.shape[axis]),)] = a
        return ducc0.fft.r2c(padded, axes=(axis,), nthreads=torch.get_num_threads())

    def irfft(a: Array, n: int, axis: int) -> Array:
        return ducc0.fft.c2r(a, axes=(axis % a.ndim,), lastsize=n, forward=False, inorm=2, nthreads=torch.get_num_threads())

    return _through_numpy(Transform(rfft, irfft))


def _through_numpy(fft: Transform) -> Callable[[Case, Arrays], Call]:
    """The formula on NumPy arrays that share the tensors' memory; the gradients by hand, every spectrum used again."""

    def bind(case: Case, x: Arrays) -> Call:
        dtype, parameters = getattr(torch, case.dtype), getattr(torch, case.parameter_dtype)

        def call() -> Results:
            # NumPy has no bfloat16, and these transforms no half precision of use: 16-bit types go through float32.
            arrays = Arrays(*(None if t is None else (t.float() if t.itemsize == 2 else t).numpy() for t in x))
            found: dict[str, Any] = (
                forward_backward(case, arrays, fft) if case.direction == BACKWARD else {"y": forward(case, arrays, fft)}
            )
            return {
                name: torch.from_numpy(array).to(parameters if name in ("dk", "dD") else dtype) for name, array in found.items()
            }

        return call

    return bind


def _copy_to_new(case: Case, x: Arrays) -> Call:
    def call() -> Results:
        torch.empty_like(x.u).copy_(x.u)
        return {}

    return call


def _copy_into(case: Case, x: Arrays) -> Call:
    y = torch.zeros_like(x.u)

    def call() -> Results:
        y.copy_(x.u)
        return {}

    return call


RIVALS = (
    Rival("torch.fft", "torch", lambda: by_formula(TORCH_FFT), ("cpu", "cuda")),
    Rival("scipy.fft", "scipy", _scipy_fft),
    Rival("ducc0", "ducc0", _ducc0),
)
