"""From a Problem and its tensors to programs, and back to results: everything about the engine that is not a loop."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import direct, kernels, pages, program, ring, threads
from longwave.backends.cpu.program import Move, Program
from longwave.backends.cpu.ring import Segment
from longwave.backends.cpu.simd import vector_bytes
from longwave.backends.cpu.tables import factors, tables
from longwave.planner import Placement, Plan
from longwave.problem import Problem

# Rows of scratch memory that are taken through all inner passes at once: half of a first-level cache of 32 KiB.
BASE_BYTES = 2**14
# Below this many channels the lanes hold rows of all samples of the batch, and each has its own copy of the filter.
FEW_CHANNELS = 64
# Nanoseconds a vector row and transform: a constant part (load, store) and one a factor of two. For threads and `plan`.
NS_ROW, NS_ROW_LEVEL, MACHINE = 3.0, 0.5, "AMD EPYC 7003, AVX2"


@dataclass(frozen=True)
class Layout:
    """Where everything of one stretch of samples stands in the ring; `first_tap` and `taps` count in order of rising lag."""

    at: Placement
    source: tuple[Segment, ...]  # from u, with indices of u
    past: tuple[Segment, ...]  # from history
    result: tuple[Segment, ...]  # with indices of y
    filter: tuple[Segment, ...]  # with indices from the first tap that is used
    filter_again: tuple[Segment, ...]  # circular: the same taps, one period earlier
    first_tap: int
    taps: int
    period: int  # of a circular convolution whose taps must be folded to it, or 0

    @property
    def zero_lag(self) -> Segment:
        return Segment(0, 1, 0, 0, 1)


@lru_cache(maxsize=4096)
def layouts(p: Problem) -> tuple[Layout, ...]:
    """The whole problem, or every document that is not empty; the first document owns what lies before 0."""
    if p.segments is None:
        return (_layout(p, 0, p.in_start, p.in_len, p.out_start, p.out_len),)
    found = []
    for i, (a, b) in enumerate(itertools.pairwise(p.segments)):
        in_a, out_a = (p.in_start, p.out_start) if i == 0 else (a, a)
        if b > in_a and b > out_a:
            found.append(_layout(p, a, in_a, b - in_a, out_a, b - out_a))
    return tuple(found)


def _layout(p: Problem, zero: int, in_start: int, in_len: int, out_start: int, out_len: int) -> Layout:
    """The stretch of inputs and outputs from these samples on; lags count from sample `zero`."""
    lo, hi = p.lags
    again: list[Segment] = []
    period = first_tap = 0
    if p.circular:
        at = ring.place(0, in_len, 0, in_len, 1 - in_len, in_len - 1)
        taps = p.taps
        if p.taps > in_len or lo % in_len:
            taps = period = in_len
        filter_, again = ring.segments(at.N, 0, taps), ring.segments(at.N, 1 - in_len, taps - 1, 1)
    else:
        wide = (min(lo, 0), max(hi, 0)) if p.skip else (lo, hi)
        at = ring.place(in_start - zero, in_len, out_start - zero, out_len, *wide)
        first_lag, last_lag = max(lo, at.lag), min(hi, at.lag + at.tap_stop - at.tap_start - 1)
        first_tap, taps = first_lag - lo, max(0, last_lag - first_lag + 1)
        filter_ = ring.segments(at.N, first_lag, taps)
    first = in_start - p.in_start  # counts history and u as one row
    past = max(0, min(p.history - first, in_len))
    return Layout(
        at=at,
        source=tuple(ring.segments(at.N, at.in_at + past, in_len - past, first + past - p.history)),
        past=tuple(ring.segments(at.N, at.in_at, past, first)),
        result=tuple(ring.segments(at.N, at.out_at, out_len, out_start - p.out_start)),
        filter=tuple(filter_),
        filter_again=tuple(again),
        first_tap=first_tap,
        taps=taps,
        period=period,
    )


@dataclass(frozen=True)
class Units:
    """How the rows are dealt to lanes and threads: `rows` of them in tiles of W, `batch` samples each, in `chunks`."""

    rows: int
    batch: int
    chunks: int
    count: int


def _units(p: Problem, sums_over_batch: bool) -> Units:
    """Whole batches where a filter's gradient sums over them; this depends on the problem alone there, as its order does."""
    W = vector_bytes() // _arithmetic(p).itemsize
    if p.per_sample or p.channels < (FEW_CHANNELS if sums_over_batch else W):
        return Units(p.batch * p.channels, 1, 1, -(-p.batch * p.channels // W))
    tiles, workers = -(-p.channels // W), threads.width()
    # A tile that is shared computes its filters' spectrum again for each part of the batch.
    even = tiles % workers == 0 or tiles >= 4 * workers
    chunks = 1 if sums_over_batch or even else min(p.batch, -(-2 * workers // tiles))
    return Units(p.channels, p.batch, chunks, tiles * chunks)


@lru_cache(maxsize=4096)
def plan(problem: Problem) -> Plan:
    p = problem
    if direct.takes(p):
        return direct.plan(p)
    found = layouts(p)
    N, itemsize = max((piece.at.N for piece in found), default=1), _arithmetic(p).itemsize
    rows = sum(piece.at.N for piece in found) or 1
    W = vector_bytes() // itemsize
    units = _units(p, False)
    workers = min(threads.width(), units.count)
    seconds = _seconds(N, 2 * p.batch * -(-p.channels // W) + -(-p.channels // W)) * rows / N
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    product = "·".join(map(str, factors(N)))
    return Plan(
        backend="cpu",
        algorithm=f"fused, right-angle transforms of {product} in {dtypes.name(_arithmetic(p))}, {W} lanes",
        N=N,
        samples_in_flight=min(p.batch, workers),
        channels_in_flight=min(p.channels, workers * W),
        scratch_bytes=workers * kernels.scratch_bytes(N, 2) + 2 * itemsize * N * 3,
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        flop=5 * transforms * rows * math.log2(max(2, N)),
        predicted_ms=1e3 * seconds / workers,
        predicted_for=f"{workers} threads of an {MACHINE}",
        problem=p,
    )


def forward(
    problem: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> Tensor:
    p = problem
    if direct.takes(p):
        return direct.forward(p, u, k, D, pregate, postgate, history)
    y = _empty(p, p.out_len, u)
    if p.segments is not None:
        y.zero_()  # a document may have outputs and no inputs
    units = _units(p, False)
    for found in layouts(p):
        if found.at.empty:
            y.zero_()
            continue
        block = _program(p, found, units)
        block.move(program.TAPS, _filter_moves(p, found, k, D))
        block.move(program.INPUT, _input_moves(found, u, pregate, history))
        block.move(program.OUTPUT, [Move(y, postgate, found.result)])
        _run(kernels.forward, p, found, units, block, parts=2, transforms=3)
    return y


def backward(
    problem: Problem,
    needs: tuple[bool, ...],
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> list[Tensor]:
    p = problem
    if direct.takes(p):
        return direct.backward(p, needs, dy, u, k, D, pregate, postgate, history)
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    wide = _arithmetic(p)
    du = _empty(p, p.in_len - p.history, u) if need_u else None
    dpregate = _empty(p, p.in_len - p.history, u) if need_pregate else None
    dpostgate = _empty(p, p.out_len, u) if need_postgate else None
    dhistory = _empty(p, p.history, history) if need_history and history is not None else None
    dk = u.new_zeros(_filter_shape(p), dtype=wide) if need_k else None
    dD = u.new_zeros(p.channels, dtype=wide) if need_D else None
    pieces = layouts(p)
    if p.segments is not None or pieces[0].at.empty:
        for grad in (du, dpregate, dpostgate, dhistory):
            if grad is not None:
                grad.zero_()  # what no document reaches

    units = _units(p, need_k or need_D)
    samples = p.batch if units.batch == 1 else 1
    for found in pieces:
        if found.at.empty:
            continue
        rows = [u.new_empty(samples, p.channels, n, dtype=wide) for n in (found.taps, found.taps, 1)]
        block = _program(p, found, units)
        if k is not None:
            block.move(program.TAPS, _filter_moves(p, found, k, D))
        block.move(program.INPUT, _input_moves(found, u, pregate, history))
        block.move(program.DZ, [Move(dy, postgate, found.result)])
        dx = [Move(du, pregate, found.source)] if du is not None else []
        dx += [Move(dpregate, u, found.source)] if dpregate is not None else []
        dx += [Move(dhistory, None, found.past)] if dhistory is not None else []
        block.move(program.DX, dx)
        block.move(program.DPOSTGATE, [Move(dpostgate, dy, found.result)] if dpostgate is not None else [])
        sums = [Move(rows[0], None, found.filter), Move(rows[1], None, found.filter_again)] if need_k else []
        sums += [Move(rows[2], None, [found.zero_lag])] if need_D else []
        block.move(program.DK, sums)
        _run(kernels.backward, p, found, units, block, parts=4, transforms=5)
        if dk is not None:
            if found.filter_again:
                rows[0][..., 1:] += rows[1][..., 1:]
            dk += _filter_gradient(p, found, rows[0])
        if dD is not None:
            dD += _in_order(rows[2], 0).squeeze(-1)
    dk = None if dk is None else dk.to(dtypes.named(p.filter_dtype))
    dD = None if dD is None or D is None else dD.to(D.dtype)
    return [grad for grad in (du, dk, dD, dpregate, dpostgate, dhistory) if grad is not None]


def _program(p: Problem, found: Layout, units: Units) -> Program:
    constants = tables(found.at.N, dtypes.name(_arithmetic(p)))
    return Program(constants, _base(found.at.N), p.channels, units.rows, units.batch, units.chunks)


@lru_cache(maxsize=4096)
def _base(N: int) -> int:
    """The largest block of a pass that is within BASE_BYTES (or the smallest there is)."""
    n, rows = N, BASE_BYTES // kernels.ROW_BYTES
    for r in factors(N)[:-1]:
        if n <= rows:
            break
        n //= r
    return n


def _run(kernel: Any, p: Problem, found: Layout, units: Units, block: Program, *, parts: int, transforms: int) -> None:
    like = np.float64(1) if _arithmetic(p) == torch.float64 else np.float32(1)
    words = block.block()
    N = found.at.N
    seconds = _seconds(N, transforms * units.count * -(-units.batch // units.chunks))
    threads.run(kernel, words.ctypes.data, like, units.count, seconds, kernels.scratch_bytes(N, parts))


def _seconds(N: int, transforms: int) -> float:
    return 1e-9 * transforms * N * (NS_ROW + NS_ROW_LEVEL * math.log2(max(2, N)))


def _input_moves(found: Layout, u: Tensor, pregate: Tensor | None, history: Tensor | None) -> list[Move]:
    moves = [Move(u, pregate, found.source)]
    return moves if history is None or not found.past else [*moves, Move(history, None, found.past)]


def _filter_moves(p: Problem, found: Layout, k: Tensor, D: Tensor | None) -> list[Move]:
    """The taps at their lags, and D as one more tap at lag 0."""
    repeats = p.channels // p.groups
    k = k.flip(-1) if p.reverse else k
    if found.period:
        k = _folded(p, k.to(_arithmetic(p)), found.period)
    k = k[..., found.first_tap : found.first_tap + found.taps]
    moves = [Move(k, None, found.filter, repeats)]
    if found.filter_again:
        moves.append(Move(k, None, found.filter_again, repeats))
    if D is not None:
        moves.append(Move(D.unsqueeze(-1), None, [found.zero_lag], add=True))
    return moves


def _folded(p: Problem, k: Tensor, L: int) -> Tensor:
    """(…, L) with the tap of lag j modulo the period L at j, from taps in order of rising lag."""
    turns = -(-p.taps // L)
    padded = torch.nn.functional.pad(k, (0, turns * L - p.taps)).unflatten(-1, (turns, L))
    return _in_order(padded.movedim(-2, 0), 0).roll(p.lags[0] % L, dims=-1)


def _filter_gradient(p: Problem, found: Layout, dk: Tensor) -> Tensor:
    """(samples, H, taps in use) to the shape of the filter, its sums in a fixed order."""
    repeats = p.channels // p.groups
    if repeats > 1:
        dk = _in_order(dk.unflatten(1, (p.groups, repeats)), 2)
    if not p.per_sample:
        dk = _in_order(dk, 0)
    if found.period:
        turned = dk.roll(-(p.lags[0] % found.period), dims=-1)
        dk = torch.cat([turned] * -(-p.taps // found.period), dim=-1)[..., : p.taps]
    elif found.taps != p.taps:
        dk = torch.nn.functional.pad(dk, (found.first_tap, p.taps - found.first_tap - found.taps))
    return dk.flip(-1) if p.reverse else dk


def _filter_shape(p: Problem) -> tuple[int, ...]:
    return (p.batch, p.groups, p.taps) if p.per_sample else (p.groups, p.taps)


def _in_order(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension, one term after the other: `Tensor.sum` may split it by the number of threads."""
    first, *others = x.unbind(dim)
    if not others:
        return first
    total = first.clone()
    for term in others:
        total += term
    return total


def _empty(p: Problem, length: int, like: Tensor) -> Tensor:
    """Uninitialised (B, H, length) in the result's layout."""
    if p.channels_last:
        return pages.with_large_pages(like.new_empty(p.batch, length, p.channels)).transpose(1, 2)
    return pages.with_large_pages(like.new_empty(p.batch, p.channels, length))


def _arithmetic(p: Problem) -> torch.dtype:
    return dtypes.arithmetic(dtypes.named(p.dtype))
