"""The algorithm `direct` of `long_conv`: few taps are summed as they stand, by the loops of `short_conv`.

The taps of a filter meet every sample once, whatever the length, so that up to a number of taps this is faster than any
transform. Of everything a problem may have only periods are left to `fused`.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import fir_kernels as kernels
from longwave.backends.cpu import fir_program as program
from longwave.backends.cpu import threads
from longwave.backends.cpu.costs import MACHINE
from longwave.backends.cpu.crossovers import chosen
from longwave.backends.cpu.fir_program import Header, Program, Sums
from longwave.backends.cpu.results import arithmetic, empty, filter_shape, gradient_bytes, like
from longwave.backends.cpu.simd import vector_bytes
from longwave.planner import Plan
from longwave.problem import Problem

# From so many samples on, up to so many taps: there a forward and backward was no slower than `fused`, and a forward up to
# twice as fast. A transform grows with the length, and this does not.
MOST_TAPS = chosen().most_taps


def takes(p: Problem) -> bool:
    """Whether this algorithm runs a problem: a function of its lags and its length alone."""
    low, high = p.lags
    few = next(taps for length, taps in MOST_TAPS if p.out_len >= length)
    return p.taps <= few and not p.circular and p.mask is None and (not p.skip or low <= 0 <= high)


class Window(NamedTuple):
    """The samples of input and output that one sum goes over."""

    in_first: int
    in_last: int
    out_first: int
    out_last: int


@lru_cache(maxsize=4096)
def windows(p: Problem) -> tuple[Window, ...]:
    """The whole problem, or every document that has inputs and outputs; the first one owns what lies before 0."""
    in_last, out_last = p.in_start + p.in_len, p.out_start + p.out_len
    if p.segments is None:
        found = [Window(p.in_start, in_last, p.out_start, out_last)]
    else:
        found = [
            Window(*((p.in_start, b, p.out_start, b) if i == 0 else (a, b, a, b)))
            for i, (a, b) in enumerate(itertools.pairwise(p.segments))
        ]
    return tuple(w for w in found if w.in_last > w.in_first and w.out_last > w.out_first)


def plan(p: Problem) -> Plan:
    headers = [program.header(_sums(p, w, p.channels_last), False) for w in windows(p)]
    workers = min(threads.width(), max((h.units for h in headers), default=1))
    item = arithmetic(p)
    scratch = (threads.scratch_bytes(h.units, h.seconds, h.scratch_bytes) for h in headers)
    return Plan(
        backend="cpu",
        algorithm=f"direct, sums over {p.taps} taps in {dtypes.name(item)}, {vector_bytes() // item.itemsize} lanes",
        N=0,
        samples_in_flight=min(p.batch, workers),
        channels_in_flight=min(p.channels, workers * (program.STRIP_CHANNELS if p.channels_last else 1)),
        scratch_bytes=max(scratch, default=0),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes(p) + max((_backward_bytes(p, w) for w in windows(p)), default=0),
        flop=2.0 * p.taps * p.batch * p.channels * p.out_len,
        predicted_ms=1e3 * sum(h.seconds for h in headers) / workers,
        predicted_for=f"{workers} threads of an {MACHINE}",
        problem=p,
    )


def _backward_bytes(p: Problem, window: Window) -> int:
    """What a backward allocates beside the gradients, all of which are wanted."""
    header = program.header(_sums(p, window, p.channels_last), True)
    sums = (math.prod(filter_shape(p)) + p.skip * p.channels) * arithmetic(p).itemsize
    return sums + header.partials_bytes + threads.scratch_bytes(header.units, header.seconds, header.scratch_bytes)


def forward(
    p: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> Tensor:
    y = empty(p, p.out_len, u)
    found = windows(p)
    if p.segments is not None or not found:
        y.zero_()  # a document may have outputs and no inputs
    for window in found:
        header = program.header(_sums(p, window, _side_by_side(u)), False)
        block = _program(header, u, k, D, pregate, history)
        _signals(block, (program.POSTGATE, postgate), (program.Y, y))
        threads.run(kernels.forward, block.address, like(p), header.units, header.seconds, header.scratch_bytes)
    return y


def backward(
    p: Problem,
    needs: tuple[bool, ...],
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> list[Tensor]:
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    du = empty(p, p.in_len - p.history, u) if need_u else None
    dpregate = empty(p, p.in_len - p.history, u) if need_pregate else None
    dpostgate = empty(p, p.out_len, u) if need_postgate else None
    dhistory = empty(p, p.history, history) if need_history and history is not None else None
    dk = u.new_zeros(filter_shape(p), dtype=arithmetic(p)) if need_k else None
    dD = u.new_zeros(p.channels, dtype=arithmetic(p)) if need_D else None
    found = windows(p)
    if p.segments is not None or not found:
        for grad in (du, dpregate, dpostgate, dhistory):
            if grad is not None:
                grad.zero_()  # what no document reaches
    for window in found:
        header = program.header(_sums(p, window, _side_by_side(u)), True)
        block = _program(header, u, k, D, pregate, history)
        _signals(
            block,
            (program.POSTGATE, postgate),
            (program.DY, dy),
            (program.DU, du),
            (program.DPREGATE, dpregate),
            (program.DPAST, dhistory),
            (program.DPOSTGATE, dpostgate),
        )
        sums: list[tuple[Tensor, Tensor]] = []
        for which, total in ((program.DTAPS, dk), (program.DSKIP, dD)):
            if total is not None:
                part = torch.empty_like(total)
                sums.append((total, part))
                *b, h, t = part.stride() if which == program.DTAPS else (1, 0)
                block.view(which, part, b[0] if b else 0, h, t)
        if sums:
            partials = torch.empty(header.partials_bytes, dtype=torch.uint8, device="cpu")
            block.words[program.PARTIALS] = partials.data_ptr()
        threads.run(kernels.backward, block.address, like(p), header.units, header.seconds, header.scratch_bytes)
        if sums:
            units = p.groups * (p.batch if p.per_sample else 1)
            threads.run(kernels.gather, block.address, like(p), units, 0.3e-9 * header.partials_bytes, 8 * p.taps)
            for total, part in sums:
                total += part
    dk = None if dk is None else dk.to(dtypes.named(p.filter_dtype))
    dD = None if dD is None or D is None else dD.to(D.dtype)
    return [grad for grad in (du, dk, dD, dpregate, dpostgate, dhistory) if grad is not None]


def _sums(p: Problem, window: Window, side_by_side: bool) -> Sums:
    return Sums(
        batch=p.batch,
        channels=p.channels,
        low=p.lags[0],
        taps=p.taps,
        falling=p.reverse,
        groups=p.groups,
        per_sample=p.per_sample,
        past_start=p.in_start,
        u_start=p.in_start + p.history,
        out_start=p.out_start,
        **window._asdict(),
        itemsize=arithmetic(p).itemsize,
        side_by_side=side_by_side,
    )


def _program(
    header: Header, u: Tensor, k: Tensor | None, D: Tensor | None, pregate: Tensor | None, history: Tensor | None
) -> Program:
    block = Program(header.words)
    _signals(block, (program.U, u), (program.PREGATE, pregate), (program.PAST, history))
    if k is not None:
        *b, h, t = k.stride()
        block.view(program.TAPS, k, b[0] if b else 0, h, t)
    if D is not None:
        block.view(program.SKIP, D, 0, D.stride(0), 0)
    return block


def _signals(block: Program, *signals: tuple[int, Tensor | None]) -> None:
    for which, x in signals:
        if x is not None and x.numel():
            block.view(which, x, *x.stride())


def _side_by_side(u: Tensor) -> bool:
    return u.stride(1) == 1 != u.stride(2)
