"""Who runs a Problem: every module or package in this folder is a backend, found by being there.

A backend offers, beside its docstring,

    PRIORITY                        `auto` tries backends from the highest to the lowest
    missing() -> str | None         why it cannot run on this machine at all
    refuses(problem) -> str | None  why it does not take this problem
    passes(problem) -> str | None   why `auto` leaves this problem to another, although it could take it
    plan(problem) -> Plan           the decision, from integers alone
    forward(problem, given, spectrum=None) -> y
    backward(problem, needs, dy, given, spectrum=None) -> [gradients]
    prepare(problem, k) -> Tensor | None
    spectrum_tag(problem) -> str

with the tensors of the call as `Operands`, dy of shape (B, H, ·) in any strides, and gradients for the tensors whose place
in `needs` is True, in the order of `Operands`. `problem.segments` is read by the backend; nothing
above it loops over documents. Running decides nothing: it follows `plan(problem)`. `prepare` makes what can be made of filters
alone, one tensor in a form of the backend's own or None, and `forward` and `backward` may take it as `spectrum`; it serves any
batch, gates and D, and any number of channels that the filters' divides. `spectrum_tag` names its form: a stored one is used
again where the tags are equal. For `short_conv`

    SHORT_DEVICES                   the types of device whose short convolutions it runs, or None for all
    short_forward(call) -> y
    short_backward(needs, dy, call) -> [gradients]

with contiguous results, and gradients in the order x, w, bias, state. For `Stream`

    STREAMS                         whether it holds streams, of any problem that it takes; if not, there is no open_stream
    open_stream(k, D, batch, channels, schedule, ring, dtype) -> StreamMemory

with k (G, K) or (B, H, K) in arithmetic precision: what a stream holds, and the work on it (`StreamMemory`).
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from typing import Protocol, cast

import torch
from torch import Tensor

from longwave.errors import ArgumentError, UnsupportedError
from longwave.operands import Operands
from longwave.planner import Plan, Schedule
from longwave.problem import Problem, ShortCall


class Backend(Protocol):
    __name__: str
    PRIORITY: int
    SHORT_DEVICES: tuple[str, ...] | None
    STREAMS: bool

    def missing(self) -> str | None: ...

    def refuses(self, problem: Problem) -> str | None: ...

    def passes(self, problem: Problem) -> str | None: ...

    def plan(self, problem: Problem) -> Plan: ...

    def forward(self, problem: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor: ...

    def backward(
        self, problem: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None
    ) -> list[Tensor]: ...

    def prepare(self, problem: Problem, k: Tensor) -> Tensor | None: ...

    def spectrum_tag(self, problem: Problem) -> str: ...

    def short_forward(self, call: ShortCall) -> Tensor: ...

    def short_backward(self, needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]: ...

    def open_stream(
        self, k: Tensor, D: Tensor | None, batch: int, channels: int, schedule: Schedule, ring: int, dtype: torch.dtype
    ) -> StreamMemory: ...


class StreamMemory(Protocol):
    """Inputs, spectra and pending outputs of a stream. The clock counts samples, at multiples of `planner.Schedule.grain`
    block boundaries of all levels; nothing is asked at a clock that was not reserved.

    In block b of a level the spectrum of block b-1 falls due, and the outputs of block b+1.
    """

    @property
    def nbytes(self) -> int: ...

    def reserve(self, clock: int) -> int:
        """Make memory for inputs before `clock`; until when what there is lasts."""
        ...

    def forget(self) -> None:
        """Begin anew: nothing that was made is of use."""
        ...

    def again(self, number: int, block: int) -> None:
        """What falls due in a level's blocks from `block` on is to be done again; before it, it has been done."""
        ...

    def load(self, clock: int, u: Tensor) -> None:
        """Inputs (B, H, ·) that end at `clock`, after zeros."""
        ...

    def read(self, begin: int, end: int) -> Tensor:
        """(B, H, end - begin) in arithmetic precision, zeros before clock 0."""
        ...

    def step(self, clock: int, u: Tensor, y: Tensor) -> None:
        """One sample, (B, H), whatever the strides."""
        ...

    def advance(self, clock: int, u: Tensor, y: Tensor) -> None:
        """Samples (B, H, d) by sums over the first lags and the outputs that all levels have pending; not over a boundary of
        the first level."""
        ...

    def block(self, number: int, clock: int, u: Tensor, y: Tensor) -> None:
        """A whole block (B, H, n) of a level, by all of its parts and what larger levels have pending."""
        ...

    def rebuild(self, number: int, clock: int, transform: bool) -> None:
        """Pending outputs of a level for a stream that stands at `clock`, and its delay line if `transform`, from inputs."""
        ...

    def reorder(self, clock: int, rows: Tensor) -> None:
        """Take row rows[b] of the batch for row b, in a stream that stands at `clock`."""
        ...


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every backend that is shipped, whether or not it can run here."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> Backend:
    """The backend's module. Raises ArgumentError for a name that is not one."""
    if not isinstance(name, str) or name not in names():
        raise ArgumentError(f"backend={name!r} is unknown; choose 'auto' or one of {', '.join(map(repr, names()))}")
    return cast(Backend, importlib.import_module(f"{__name__}.{name}"))


def available() -> dict[str, str | None]:
    """Every backend with the reason why it cannot run on this machine, or None if it can."""
    return {name: load(name).missing() for name in names()}


def choose(problem: Problem, name: str) -> tuple[Backend, tuple[str, ...]]:
    """The backend that runs `problem`, and why. A named backend is taken or refused, never replaced.

    Raises ArgumentError for an unknown name and UnsupportedError where the named backend cannot run the problem.
    """
    if not isinstance(name, str):
        load(name)  # raises
    return _chosen(problem, name)


@lru_cache(maxsize=1024)
def _chosen(problem: Problem, name: str) -> tuple[Backend, tuple[str, ...]]:
    if name != "auto":
        backend = load(name)
        reason = backend.missing() or backend.refuses(problem)
        if reason:
            raise UnsupportedError(f"backend={name!r} cannot run this call: {reason}; use backend='auto' or another")
        return backend, ("named by the caller",)
    return _choose_auto(problem)


def _choose_auto(problem: Problem) -> tuple[Backend, tuple[str, ...]]:
    passed_over: list[str] = []
    for candidate in sorted(names(), key=lambda name: -load(name).PRIORITY):
        backend = load(candidate)
        reason = backend.missing() or backend.refuses(problem) or backend.passes(problem)
        if reason is None:
            return backend, (*passed_over, "chosen by 'auto': the fastest that takes this problem here")
        passed_over.append(f"not {candidate}: {reason}")
    raise UnsupportedError(f"no backend takes this call: {'; '.join(passed_over)}")


@lru_cache(maxsize=16)
def for_short_conv(device: str) -> Backend:
    """The backend that runs short convolutions on this type of device, here."""
    able = [b for b in map(load, names()) if b.missing() is None and (b.SHORT_DEVICES is None or device in b.SHORT_DEVICES)]
    return max(able, key=lambda backend: backend.PRIORITY)


def for_stream(problem: Problem, name: str) -> Backend:
    """The backend that holds a stream whose calls are like `problem`. Raises as `choose`."""
    if name != "auto":
        backend, _ = choose(problem, name)
        if not backend.STREAMS:
            raise UnsupportedError(f"backend={name!r} has no streams; use backend='auto' or another")
        return backend
    able = [b for b in map(load, names()) if b.STREAMS and (b.missing() or b.refuses(problem)) is None]
    return max(able, key=lambda backend: backend.PRIORITY)
