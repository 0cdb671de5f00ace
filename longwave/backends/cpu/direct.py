"""The algorithm `direct` of `long_conv`: few taps are summed as they stand, by the loops of `short_conv`.

The taps of a filter meet every sample once, whatever the length, so that up to a number of taps this is faster than any
transform. Of everything a problem may have only periods are left to `fused`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import fir_kernels as kernels
from longwave.backends.cpu import fir_program as program
from longwave.backends.cpu import threads
from longwave.backends.cpu.costs import MACHINE
from longwave.backends.cpu.crossovers import chosen
from longwave.backends.cpu.fir_program import Header, Program, Sums
from longwave.backends.cpu.results import arithmetic, gradient_bytes, like
from longwave.backends.cpu.simd import vector_bytes
from longwave.operands import Operands
from longwave.planner import Plan
from longwave.problem import Problem
from longwave.results import Gradients

# From so many samples on, up to so many taps: there a forward and backward was no slower than `fused`, and a forward up to
# twice as fast. A transform grows with the length, and this does not.
MOST_TAPS = chosen().most_taps


def takes(p: Problem) -> bool:
    """Whether this algorithm runs a problem: a function of its lags and its length alone."""
    low, high = p.lags
    few = next(taps for length, taps in MOST_TAPS if p.out_len >= length)
    return p.taps <= few and not p.circular and p.mask is None and (not p.skip or low <= 0 <= high)


def plan(p: Problem) -> Plan:
    header, back = (_header(p, p.channels_last, gradient) for gradient in (False, True))
    workers = min(threads.width(), header.units)
    item = arithmetic(p)
    sums = (math.prod(p.filter_shape) + p.skip * p.channels) * item.itemsize
    backward_bytes = sums + back.partials_bytes + threads.scratch_bytes(back.units, back.seconds, back.scratch_bytes)
    return Plan(
        backend="cpu",
        algorithm=f"direct, sums over {p.taps} taps in {dtypes.name(item)}, {vector_bytes() // item.itemsize} lanes",
        N=0,
        samples_in_flight=min(p.batch, workers),
        channels_in_flight=min(p.channels, workers * (program.STRIP_CHANNELS if p.channels_last else 1)),
        scratch_bytes=threads.scratch_bytes(header.units, header.seconds, header.scratch_bytes),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes(p) + backward_bytes,
        flop=2.0 * p.taps * p.batch * p.channels * p.out_len,
        predicted_ms=1e3 * header.seconds / workers,
        predicted_for=f"{workers} threads of an {MACHINE}",
        problem=p,
    )


def convolve(p: Problem, y: Tensor, given: Operands) -> None:
    """Write y."""
    header = _header(p, _side_by_side(given.u), False)
    block = _program(header, given)
    _signals(block, (program.Y, y))
    threads.run(kernels.forward, block.address, like(p), header.units, header.seconds, header.scratch_bytes)


def differentiate(p: Problem, into: Gradients, dy: Tensor, given: Operands) -> None:
    """Write the gradients, and add those of k and D."""
    header = _header(p, _side_by_side(given.u), True)
    block = _program(header, given)
    _signals(
        block,
        (program.DY, dy),
        (program.DU, into.u),
        (program.DPREGATE, into.pregate),
        (program.DPAST, into.history),
        (program.DPOSTGATE, into.postgate),
    )
    sums: list[tuple[Tensor, Tensor]] = []
    for which, total in ((program.DTAPS, into.k), (program.DSKIP, into.D)):
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


def one_tap(p: Problem) -> Problem:
    """What D does, as a filter of every channel; with no other."""
    return replace(
        p, taps=1, lag0=0, reverse=False, circular=False, groups=p.channels, per_sample=False, history=0, segments=None,
        in_start=p.in_start + p.history, in_len=p.in_len - p.history, mask=None,
    )  # fmt: skip


def gradient_of_skip_bytes(p: Problem) -> int:
    """What the gradient of D takes beside it, where it is that of `one_tap`."""
    back = _header(one_tap(p), p.channels_last, True)
    sums = p.channels * arithmetic(p).itemsize
    return sums + back.partials_bytes + threads.scratch_bytes(back.units, back.seconds, back.scratch_bytes)


def _header(p: Problem, side_by_side: bool, gradient: bool) -> Header:
    sums = Sums(
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
        in_first=p.in_start,
        in_last=p.in_start + p.in_len,
        out_first=p.out_start,
        out_last=p.out_start + p.out_len,
        itemsize=arithmetic(p).itemsize,
        side_by_side=side_by_side,
    )
    return program.header(sums, gradient, threads.width())


def _program(header: Header, given: Operands) -> Program:
    u, k, D, pregate, postgate, history = given
    block = Program(header.words)
    _signals(block, (program.U, u), (program.PREGATE, pregate), (program.POSTGATE, postgate), (program.PAST, history))
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
