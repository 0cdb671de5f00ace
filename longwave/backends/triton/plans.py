"""The decision for a Problem, from integers alone: regime, products, and what a call allocates."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import lru_cache

from longwave import dtypes, masked
from longwave.backends.triton import fir_plan
from longwave.backends.triton.blocks import Block, blocks, channel_blocks, group_blocks, in_flight, item_bytes
from longwave.backends.triton.configurations import CHAIN, L2_PROGRAMS, SPAN
from longwave.backends.triton.layouts import Layout, is_wide, layout
from longwave.backends.triton.shapes import first_side, split_flop
from longwave.documents import documents
from longwave.planner import Plan
from longwave.problem import Problem


def parts(p: Problem) -> list[Problem]:
    """The convolutions that a call is: documents apart, and the projections of filters onto a mask's frequencies."""
    if p.mask is None:
        return [document.problem for document in documents(p)]
    filters, found = p.groups * (p.batch if p.per_sample else 1), []
    for projection, group in itertools.groupby(masked.stretches(p), key=lambda stretch: stretch.projection):
        found += [projection_problem(projection, 1, filters, p.device), *(stretch.problem for stretch in group)]
    return found


def regime(p: Problem) -> str:
    """Of a problem without documents and masks. Raises ArgumentError where it is too long for any."""
    return "direct" if fir_plan.takes(p) else layout(p).regime


@lru_cache(maxsize=1024)
def plan(problem: Problem) -> Plan:
    p = problem
    if p.mask is not None:
        return masked.plan(plan, p, projection_bytes)
    if p.segments is not None:
        return _plan_of_documents(p)
    if fir_plan.takes(p):
        return fir_plan.plan(p)
    at = layout(p)
    product = " · ".join([*map(str, at.outer), str(at.shape).replace("·", " · ")])
    what = f"{at.windows:,} windows" if at.windows else at.regime
    multiplied = "TF32 three times" if is_wide(p) else p.dtype
    rows = p.batch * p.channels * max(1, at.windows)
    filters = p.groups * (p.batch if p.per_sample else 1)
    flop = split_flop(at.outer, at.shape, passes=False) if at.outer else at.shape.flop()
    # A way with samples in both planes of the ring multiplies them by the first matrix once more.
    more = rows * (at.source_upper + at.target_upper) + filters * at.filter_upper
    block = next(blocks(p, in_flight(p, at))) if at.outer else Block(0, p.channels, 0, p.batch)
    return Plan(
        backend="triton",
        algorithm=f"{what}, right-angle transforms of {product}, multiplied in {multiplied}",
        N=at.N,
        samples_in_flight=block.samples,
        channels_in_flight=block.channels,
        scratch_bytes=_forward_bytes(p, at),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=_gradient_bytes(p) + _backward_bytes(p, at),
        flop=float(at.N * ((rows + filters / 2) * flop + 4 * first_side(at.outer, at.shape) * more)),
        predicted_ms=None,
        predicted_for="",
        problem=p,
    )


def projection_problem(projection: masked.Projection, batch: int, filters: int, device: str) -> Problem:
    """The convolution that projects filters onto the frequencies of a mask: of polynomials of 2N coefficients, or periods."""
    n = projection.period or 2 * projection.N
    taps, first = (n, 0) if projection.period else (2 * n - 1, 1 - n)
    return Problem(
        batch=batch, channels=filters, in_start=0, in_len=n, out_start=0, out_len=n, taps=taps, lag0=first, reverse=False,
        circular=bool(projection.period), groups=1, per_sample=False, dtype="float32", filter_dtype="float32", device=device,
    )  # fmt: skip


def projection_bytes(projection: masked.Projection, filters: int, device: str) -> int:
    """What it holds: the filters, padded, and what the convolution does."""
    return (
        4 * filters * (projection.period or 2 * projection.N) + plan(projection_problem(projection, 1, filters, device)).bytes
    )


def _plan_of_documents(p: Problem) -> Plan:
    """One document after the other."""
    plans = [plan(document.problem) for document in documents(p)] or [plan(replace(p, segments=None))]
    largest = max(plans, key=lambda one: one.bytes)
    scratch = [one.backward_bytes - _gradient_bytes(one.problem) for one in plans]
    return replace(
        largest,
        scratch_bytes=max(one.scratch_bytes for one in plans),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=_gradient_bytes(p) + max(scratch),
        flop=sum(one.flop for one in plans),
        problem=p,
    )


def _gradient_bytes(p: Problem) -> int:
    """Of the gradients of everything that a call has; those of filters and D are made in float32."""
    item = dtypes.named(p.dtype).itemsize
    signals = (1 + p.pregate) * (p.in_len - p.history) + p.postgate * p.out_len + p.history
    return p.batch * p.channels * signals * item + 4 * (math.prod(p.filter_shape) + p.skip * p.channels)


def _after_bytes(p: Problem) -> int:
    """Before and after everything else: sums for the gradient of D that wait, filters' gradients rounded to 16 bits."""
    taps_item = dtypes.named(p.filter_dtype).itemsize
    sums = 4 * p.batch * p.channels * -(-p.out_len // SPAN) * p.skip
    return max(sums, math.prod(p.filter_shape) * taps_item * (taps_item != 4))


def _taps_bytes(p: Problem, at: Layout) -> tuple[int, int]:
    """(at most while they are made, kept) of copies of the filters in order of rising lag, folded to a period."""
    filters, item = math.prod(p.filter_shape), dtypes.named(p.filter_dtype).itemsize
    flipped = filters * item * p.reverse
    if not at.period:
        return flipped, flipped
    turns, rows = -(-p.taps // at.period), filters // p.taps
    period = 4 * rows * at.period
    padded, sums = turns * period, 3 * period if turns > 1 else period
    return flipped + max(padded + sums, padded + 4 * filters * (item != 4)), flipped + period


def _filter_bytes(p: Problem, at: Layout, filters: int) -> tuple[int, int]:
    """(at most while they are made, kept) of the spectra of so many filters."""
    made = filters * 8 * at.N
    kept = made if is_wide(p) else filters * (4 * at.N + 4)
    return made + max(made if at.outer else 0, 0 if is_wide(p) else kept), kept


def _powers_bytes(p: Problem, rows: int, count: int) -> int:
    """Of so many powers of two of each split row."""
    return 4 * rows * count * (p.dtype == "float16" and not is_wide(p))


def _forward_bytes(p: Problem, at: Layout) -> int:
    """Beside the result; of split rows the first ones in flight, which are the most."""
    repeats, samples = p.channels // p.groups, p.batch if p.per_sample else 1
    folding, folded = _taps_bytes(p, at)
    if not at.outer:
        return max(folding, folded + _filter_bytes(p, at, samples * p.groups)[0])
    block = next(blocks(p, in_flight(p, at)))
    making, kept = _filter_bytes(p, at, -(-block.channels // repeats) * (block.samples if p.per_sample else 1))
    rows = block.channels * block.samples
    in_l2 = at.regime == "fused_l2"
    scratch = 4 * at.N * item_bytes(p) * (min(rows, L2_PROGRAMS) if in_l2 else rows)
    powers = _powers_bytes(p, rows, 2 if in_l2 or len(at.outer) > 1 else 1)
    return max(folding, folded + max(making, kept + scratch + powers))


def _backward_bytes(p: Problem, at: Layout) -> int:
    """Beside the gradients."""
    sums = p.batch if p.per_sample else 1
    chains = sums * -(-(p.batch // sums * max(1, at.windows_back)) // CHAIN)
    group, groups = next(group_blocks(p, at))
    block = next(channel_blocks(p, at, group, groups))
    adding = block.channels * 8 * at.N * (1 if at.outer else chains)
    back = 0
    if at.outer:
        rows = block.channels * min(block.samples, p.batch // sums)
        adding += rows * 2 * at.N * item_bytes(p) * (2 + (len(at.outer) > 1)) + _powers_bytes(p, rows, 3)
        back = sums * groups * 8 * at.N * (1 + (len(at.outer) > 1))
    adding = sums * groups * 16 * at.N + max(adding, back)
    gradients = sums * p.groups * at.taps * 4 * (1 + p.circular)
    return max(_forward_bytes(p, at), adding + gradients, _after_bytes(p))
