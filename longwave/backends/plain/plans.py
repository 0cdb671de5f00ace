"""The decision for a Problem, from integers alone: transforms, rows in flight, and what a call allocates."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from longwave import dtypes, masked, planner
from longwave.backends.plain.rows import arithmetic, document_bytes, runs, scratch_bytes
from longwave.planner import Plan
from longwave.problem import Problem

# Rows of a million samples are beyond what is to be in flight: fewer than this many at a time measured 1.9 times as slow.
ROWS_AT_LEAST = 4


class Cost(NamedTuple):
    """Forward seconds: `call + point · N·log2(N)` a transform; constants from `longwave bench --backend plain`."""

    call: float
    point: float
    machine: str


COST = {"cpu": Cost(1e-4, 0.4e-9, "2 threads of an AMD EPYC 7003")}


@lru_cache(maxsize=256)
def plan(problem: Problem) -> Plan:
    p = problem
    if p.mask is not None:
        return masked.plan(plan, p)
    found = planner.pieces(p)
    N = max((piece.at.N for piece in found), default=1)
    wide = arithmetic(p)
    complex_bytes = wide.itemsize if p.complex else 2 * wide.itemsize
    spectrum_bytes = complex_bytes * (N if p.complex else N // 2 + 1)
    # Of each row: the input where it is changed or moved, its spectrum, the product, the cyclic result (which an inverse
    # transform copies its input for); with documents the result as well, which is put together from theirs.
    changed = p.pregate or p.history or p.channels_last or wide.itemsize != dtypes.named(p.dtype).itemsize
    row_bytes = (N + p.in_len * (1 + changed) + p.out_len * (p.segments is not None)) * wide.itemsize + 3 * spectrum_bytes
    filter_bytes = N * wide.itemsize + spectrum_bytes
    rows = max(scratch_bytes(p) // (row_bytes + filter_bytes), ROWS_AT_LEAST)
    samples = min(p.batch, rows)
    channels = _whole_groups(min(p.channels, max(1, rows // samples)), p.channels // p.groups)
    filters = max(1, channels * p.groups // p.channels) * (samples if p.per_sample else 1)
    together = max((len(run) * document_bytes(p, run[0].at.N) for run in runs(p, found, channels)), default=0)
    row_bytes = max(row_bytes, row_bytes - document_bytes(p, N) + together)
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    points = sum(piece.at.N * math.log2(max(2, piece.at.N)) for piece in found) * transforms / (1 if p.complex else 2)
    cost = COST.get(p.device)
    scratch = samples * channels * row_bytes + filters * filter_bytes
    item, taps = dtypes.named(p.dtype).itemsize, math.prod(p.filter_shape)
    signals = (1 + p.pregate) * (p.in_len - p.history) + p.postgate * p.out_len + p.history
    gradient_bytes = p.batch * p.channels * (signals * item + p.skip * wide.itemsize) + taps * 2 * wide.itemsize
    return Plan(
        backend="plain",
        algorithm=f"torch.fft, {'complex' if p.complex else 'real'} transforms in {dtypes.name(wide)}",
        N=N,
        samples_in_flight=samples,
        channels_in_flight=channels,
        scratch_bytes=scratch,
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes + 2 * scratch,  # the output's gradient passes through all that the input does
        flop=5 * points,
        predicted_ms=None if cost is None else 1e3 * (cost.call * max(1, len(found)) + cost.point * points),
        predicted_for="" if cost is None else cost.machine,
        problem=p,
    )


def _whole_groups(channels: int, repeats: int) -> int:
    """At most `channels`, as whole groups of `repeats` or a divisor of one: a block uses each of its filters equally often."""
    if channels >= repeats:
        return channels // repeats * repeats
    return next(size for size in range(channels, 0, -1) if repeats % size == 0)
