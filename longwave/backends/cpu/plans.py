"""What a call would do, stated before it is made: algorithm, memory to the byte, time."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from longwave import dtypes
from longwave.backends.cpu import direct, long_rows, strips, threads, tilings
from longwave.backends.cpu.costs import MACHINE, seconds
from longwave.backends.cpu.layouts import Layout, layout, writes_taps
from longwave.backends.cpu.results import arithmetic, gradient_bytes, width
from longwave.backends.cpu.tables import factors, matrix_shape
from longwave.documents import documents
from longwave.planner import Plan
from longwave.problem import Problem


@lru_cache(maxsize=1024)
def plan(problem: Problem, document: bool = False) -> Plan:
    """`document`: as one of several, whose gradients of the filters are added up."""
    p = problem
    if p.segments is not None:
        return _plan_of_documents(p)
    if direct.takes(p):
        return direct.plan(p)
    found = layout(p)
    N, windows, W, workers = found.at.N, found.windows, width(p), threads.width()
    arithmetic_name = dtypes.name(arithmetic(p))
    if found.is_long:
        product = " × ".join(f"{length:,}" for length in matrix_shape(N))
        algorithm = f"six_step, right-angle transforms of {product} in {arithmetic_name}, {W} lanes"
        together = long_rows.rows_at_once(strips.scratch(p, workers, backward=False)[0], N, workers, 2)
        in_flight = (together, together)
    else:
        product = "·".join(map(str, factors(N)))
        name = f"{windows:,} windows" if windows else "fused"
        algorithm = f"{name}, right-angle transforms of {product} in {arithmetic_name}, {W} lanes"
        in_flight = (min(p.batch, workers), min(p.channels, workers * W))
    if p.mask is not None:
        algorithm += f", {p.mask.fraction(N):.0%} of their frequencies"
    rows = N * max(1, windows)
    tiles = p.batch * p.channels / W if found.is_long else p.batch * -(-p.channels // W)
    filters = p.channels / W * (p.batch if p.per_sample else 1)
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    return Plan(
        backend="cpu",
        algorithm=algorithm,
        N=N,
        samples_in_flight=in_flight[0],
        channels_in_flight=in_flight[1],
        scratch_bytes=_forward_bytes(p, found, workers),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes(p) + max(_backward_bytes(p, found, workers, document), _skip_bytes(p)),
        flop=5 * transforms * rows * math.log2(max(2, N)),
        predicted_ms=1e3 * seconds(N, 2 * tiles + filters) * rows / N / workers,
        predicted_for=f"{workers} threads of an {MACHINE}",
        problem=p,
    )


def _plan_of_documents(p: Problem) -> Plan:
    """One document after the other; their programs are kept, for as many lengths as `layout` keeps."""
    found = documents(p)
    plans = [plan(document.problem, document=True) for document in found] or [plan(replace(p, segments=None))]
    largest = max(plans, key=lambda one: one.bytes)
    return replace(
        largest,
        scratch_bytes=max(one.scratch_bytes for one in plans),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes(p)
        + max(_skip_bytes(p), *(one.backward_bytes - gradient_bytes(one.problem) for one in plans)),
        flop=sum(one.flop for one in plans),
        predicted_ms=sum(one.predicted_ms or 0.0 for one in plans),
        problem=p,
    )


def _skip_bytes(p: Problem) -> int:
    """Of the gradient of D, which comes before the others."""
    return direct.gradient_of_skip_bytes(p) if p.skip else 0


def _forward_bytes(p: Problem, found: Layout, workers: int) -> int:
    """What a forward allocates beside its result."""
    taps = math.prod(p.filter_shape) * dtypes.named(p.filter_dtype).itemsize * p.reverse
    if found.period:
        taps += 2 * math.prod(p.filter_shape) // p.taps * found.period * arithmetic(p).itemsize
    if found.is_long:
        of_strip, rows = strips.scratch(p, workers, backward=False)
        dealt, matrices = long_rows.long_dealt(of_strip, found.at.N, workers, 2, False)
        return taps + rows + dealt.bytes + matrices
    return taps + max(tiling.dealt.bytes for tiling in tilings.forward_tilings(p, found, workers, p.channels_last))


def _backward_bytes(p: Problem, found: Layout, workers: int, document: bool) -> int:
    """What a backward allocates beside the gradients, all of which are wanted."""
    back = found.backward or found
    sums = (p.batch if p.per_sample else 1) * p.channels * found.taps * arithmetic(p).itemsize * (1 + bool(found.filter_again))
    sums *= document or not writes_taps(p, found)
    if found.is_long:
        of_strip, rows = strips.scratch(p, workers, backward=True)
        dealt, matrices = long_rows.long_dealt(of_strip, found.at.N, workers, 4, True)
        return sums + rows + dealt.bytes + matrices
    found_tilings, products = tilings.backward_tilings(p, back, workers, p.channels_last, True)
    all_dealt = [tiling.dealt for tiling in found_tilings]
    if products:
        all_dealt.append(tilings.sums_tiling(p, back).dealt)
    return sums + products + max(one.bytes for one in all_dealt)
