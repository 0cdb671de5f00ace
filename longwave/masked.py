"""Convolutions behind a frequency mask: the projection of a filter onto the frequencies kept, and its adjoint.

On the lags [low, high] that connect an input of a stretch with an output, real filters are polynomials x^(lag - low) modulo
x^2N + 1, 2N > high - low. A mask sets some values of their right-angle transform to zero: a projection P, linear, equal to its
own adjoint, and the same wherever `low` is, since shifting by x commutes with it. The *effective filter* P(k) has every one of
these lags; convolving with it is an ordinary convolution, for which any backend serves. A circular convolution of period L is
the same with the DFT of length L. Documents have a grid of their own each.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import dtypes
from longwave.dtypes import conj
from longwave.lengths import mask_grid
from longwave.masks import FrequencyMask
from longwave.operands import Operands
from longwave.planner import Plan
from longwave.problem import Problem

# What the spectra of the filters that are projected at a time may hold.
PROJECTION_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Projection:
    """P between the `taps` of a filter (in order, of falling lag if `reverse`) and the `lags` of its effective filter.

    On a grid of `N`, in order of rising lag, the taps [start, stop) are the lags from place `at` on, and the others connect
    nothing; or with a `period` tap s is the lag (s + at) modulo it. `whole`: this is no document among others.
    """

    mask: FrequencyMask
    N: int
    taps: int
    reverse: bool
    lags: int
    start: int
    stop: int
    at: int
    period: int = 0
    whole: bool = True

    def filter(self, k: Tensor, project: Project | None = None) -> Tensor:
        """(…, G, lags), the effective filter of k (…, G, taps), in k's dtype. `project`: who makes it; without it torch.fft, in
        a differentiable expression."""
        k = k.flip(-1) if self.reverse else k
        if self.period:
            turns = -(-self.taps // self.period)
            k = F.pad(k, (0, turns * self.period - self.taps)).unflatten(-1, (turns, self.period)).sum(dim=-2)
            return self._projected(k.roll(self.at, dims=-1), project)
        k = F.pad(k.narrow(-1, self.start, self.stop - self.start), (self.at, 2 * self.N - self.at - self.stop + self.start))
        return self._projected(k, project).narrow(-1, 0, self.lags)

    def gradient(self, dk: Tensor, project: Project | None = None) -> Tensor:
        """(…, G, taps), the adjoint of `filter`: the gradient of the taps from that of the effective filter."""
        if self.period:
            dk = self._projected(dk, project).roll(-self.at, dims=-1)
            dk = torch.cat([dk] * -(-self.taps // self.period), dim=-1).narrow(-1, 0, self.taps)
        else:
            dk = self._projected(F.pad(dk, (0, 2 * self.N - self.lags)), project).narrow(-1, self.at, self.stop - self.start)
            dk = F.pad(dk, (self.start, self.taps - self.stop))
        return dk.flip(-1) if self.reverse else dk

    def _projected(self, k: Tensor, project: Project | None) -> Tensor:
        """P of polynomials of 2N coefficients, or of periods."""
        return self.by_transforms(k, torch.fft) if project is None else project(self, k)

    def by_transforms(self, k: Tensor, fft: Any) -> Tensor:
        """P by the transforms of `fft`, which has the names of torch.fft, on some rows at a time: the spectra of all filters
        may be many times as large as the filters."""
        kept = self.kept().to(k.device)
        project = _project_period if self.period else _project
        if k.is_complex():  # the projection of a complex filter is that of its parts
            return torch.complex(*(self._split(project, part, kept, fft) for part in (k.real, k.imag)))
        return self._split(project, k, kept, fft)

    def kept(self) -> Tensor:
        """The frequencies kept: (N,) bool, on the CPU. Raises ArgumentError where they are none, or none of a period's."""
        kept = self.mask.kept_of_period(self.N) if self.period else self.mask.kept(self.N)
        if self.whole:  # a short document among others may well vanish
            self.mask.check_some(kept)
        return kept

    def _split(self, project: Callable[[Tensor, Tensor, Any], Tensor], k: Tensor, kept: Tensor, fft: Any) -> Tensor:
        row_bytes = 6 * k[..., :1, :].numel() * k.element_size()
        parts = [project(part, kept, fft) for part in k.split(max(1, PROJECTION_BYTES // row_bytes), dim=-2)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def _project(k: Tensor, kept: Tensor, fft: Any) -> Tensor:
    """P of the polynomials (…, 2N): sample n + N is -i at n of N complex numbers."""
    N = k.shape[-1] // 2
    angle = torch.arange(N, dtype=torch.float64, device=k.device) * (-math.pi / (2 * N))
    w = torch.polar(torch.ones_like(angle), angle).to(torch.complex128 if k.dtype == torch.float64 else torch.complex64)
    z = torch.complex(k.narrow(-1, 0, N), -k.narrow(-1, N, N))
    z = fft.ifft(fft.fft(z * w) * kept) * conj(w)
    return torch.cat([z.real, -z.imag], dim=-1)


def _project_period(k: Tensor, kept: Tensor, fft: Any) -> Tensor:
    L = k.shape[-1]
    return fft.irfft(fft.rfft(k) * kept[: L // 2 + 1], n=L)


# P of (…, G, 2N) real polynomials, or of (…, G, L) periods.
Project = Callable[[Projection, Tensor], Tensor]


class Stretch(NamedTuple):
    """The whole problem or one document of it: a problem without a mask for its effective filter, and the cuts of its input
    (history | u) and output."""

    problem: Problem
    projection: Projection
    inputs: slice
    outputs: slice


@lru_cache(maxsize=256)
def stretches(p: Problem) -> tuple[Stretch, ...]:
    """The stretches of a masked problem that have inputs and outputs; equal ones follow each other.

    Raises ArgumentError where the mask's blocks do not divide a grid, or where it keeps nothing of the whole problem's.
    """
    in_stop, out_stop = p.in_start + p.in_len, p.out_start + p.out_len
    if p.segments is None:
        return (_stretch(p, p.in_start, in_stop, p.out_start, out_stop, 0),)
    found = []
    for i, (a, b) in enumerate(itertools.pairwise(p.segments)):
        in_a, out_a = (p.in_start, p.out_start) if i == 0 else (a, a)  # the first owns what lies before 0
        if b > in_a and b > out_a:
            found.append(_stretch(p, in_a, b, out_a, b, a))
    return tuple(sorted(found, key=lambda s: (s.problem.in_len, s.problem.out_len, s.problem.in_start)))


def _stretch(p: Problem, in_start: int, in_stop: int, out_start: int, out_stop: int, origin: int) -> Stretch:
    mask, first = _mask_of(p), p.lags[0]
    in_len, out_len = in_stop - in_start, out_stop - out_start
    if p.circular:
        N = lags = in_len
        low = 0
        placed = {"start": 0, "stop": p.taps, "at": first % N, "period": N}
    else:
        lags = in_len + out_len - 1
        N, low = mask_grid(-(-lags // 2)), out_start - in_stop + 1
        start = min(max(0, low - first), p.taps)
        stop = max(start, min(p.taps, low + lags - first))
        placed = {"start": start, "stop": stop, "at": min(max(0, first - low), lags) if stop > start else 0}
    mask.check_grid(N)
    problem = dataclasses.replace(
        p, in_start=in_start - origin, in_len=in_len, out_start=out_start - origin, out_len=out_len, taps=lags, lag0=low,
        reverse=False, rev_taps=0, history=p.history if in_start < 0 and p.history else 0, segments=None, mask=None,
        filter_dtype=dtypes.name(_filter_dtype(p)),
    )  # fmt: skip
    projection = Projection(mask, N, p.taps, p.reverse, lags, **placed, whole=p.segments is None)
    return Stretch(
        problem, projection, slice(in_start - p.in_start, in_stop - p.in_start),
        slice(out_start - p.out_start, out_stop - p.out_start),
    )  # fmt: skip


def whole(p: Problem) -> Problem:
    """A masked problem that is no packing of documents, as one without a mask, for its effective filter."""
    return stretches(p)[0].problem


def unmasked(p: Problem, k: Tensor, project: Project | None = None) -> tuple[Problem, Tensor]:
    """`whole`, and the effective filter of k."""
    return whole(p), stretches(p)[0].projection.filter(k.to(_filter_dtype(p)), project)


def forward(run: Callable[..., Tensor], p: Problem, given: Operands, project: Project | None = None) -> Tensor:
    """A backend's `forward` of a masked problem, by its `run` for problems without a mask."""
    if p.segments is None:
        problem, effective = unmasked(p, given.taps, project)
        return run(problem, given._replace(k=effective))
    y = _zeros(p, p.out_len, given.u)
    for projection, group in _by_projection(p):
        effective = projection.filter(given.taps.to(_filter_dtype(p)), project)
        for stretch in group:
            y[..., stretch.outputs] = run(stretch.problem, _part(p, stretch, given._replace(k=effective)))
    return y


def backward(
    run: Callable[..., list[Tensor]],
    p: Problem,
    needs: tuple[bool, ...],
    dy: Tensor,
    given: Operands,
    project: Project | None = None,
) -> list[Tensor]:
    """A backend's `backward` of a masked problem, by its `run` for problems without a mask."""
    u, k, D, *_, history = given
    k = None if k is None else k.to(_filter_dtype(p))
    filter_dtype = dtypes.named(p.filter_dtype)
    if p.segments is None:
        projection = stretches(p)[0].projection
        grads = run(whole(p), needs, dy, given._replace(k=None if k is None else projection.filter(k, project)))
        if needs[1]:
            at = int(needs[0])
            grads[at] = dtypes.cast(projection.gradient(grads[at], project), filter_dtype)
        return grads

    # Sums over documents are rounded once.
    skip = None if D is None else D.to(dtypes.filter_arithmetic(u.dtype, D.dtype))
    L = p.in_len - p.history
    taps = (p.batch, p.groups, p.taps) if p.per_sample else (p.groups, p.taps)
    totals = [
        _zeros(p, L, u),
        u.new_zeros(taps, dtype=_filter_dtype(p)),
        u.new_zeros(p.channels, dtype=u.dtype if skip is None else skip.dtype),
        _zeros(p, L, u),
        _zeros(p, p.out_len, u),
        _zeros(p, p.history, u if history is None else history),
    ]
    for projection, group in _by_projection(p):
        own = given._replace(k=None if k is None else projection.filter(k, project), D=skip)
        d_effective: Tensor | None = None
        for stretch in group:
            needed = (*needs[:5], needs[5] and stretch.problem.history > 0)  # only the first document has one
            grads = run(stretch.problem, needed, dy[..., stretch.outputs], _part(p, stretch, own))
            everything, inputs = slice(None), _of_u(p, stretch)
            places = (inputs, None, everything, inputs, stretch.outputs, everything)
            for grad, i in zip(grads, itertools.compress(range(6), needed), strict=True):
                if i == 1:
                    d_effective = grad if d_effective is None else d_effective + grad
                else:
                    totals[i][..., places[i]] += grad
        if d_effective is not None:
            totals[1] += projection.gradient(d_effective, project)
    totals[1] = dtypes.cast(totals[1], filter_dtype)
    totals[2] = totals[2] if D is None else dtypes.cast(totals[2], D.dtype)
    return [total for total, need in zip(totals, needs, strict=True) if need]


def formula(run: Callable[..., Tensor], p: Problem, given: Operands) -> Tensor:
    """`forward` as one expression without writes in place, if `run` is one."""
    u, filters, parts, end = given.u, given.taps.to(_filter_dtype(p)), [], 0
    for stretch in sorted(stretches(p), key=lambda s: s.outputs.start):
        parts += [u.new_zeros(*u.shape[:2], stretch.outputs.start - end)] * (stretch.outputs.start > end)
        own = given._replace(k=stretch.projection.filter(filters))
        parts.append(run(stretch.problem, _part(p, stretch, own)))
        end = stretch.outputs.stop
    parts += [u.new_zeros(*u.shape[:2], p.out_len - end)] * (p.out_len > end)
    return torch.cat(parts, dim=-1)


def taps_formula(run: Callable[..., Tensor], p: Problem, dz: Tensor, x: Tensor) -> Tensor:
    """The filter's gradient from those of the effective filters, which `run` gives, as one such expression."""
    total = x.new_zeros((p.batch, p.groups, p.taps) if p.per_sample else (p.groups, p.taps))
    for s in stretches(p):
        total = total + s.projection.gradient(run(s.problem, _span(dz, s.outputs), _span(x, s.inputs)))
    return total


def plan(
    run: Callable[[Problem], Plan], p: Problem, project_bytes: Callable[[Projection, int, str], int] | None = None
) -> Plan:
    """A backend's plan of a masked problem: `run`'s plans of its stretches and what the projection of so many filters holds, by
    `project_bytes` where it is not by `Projection.by_transforms`."""
    found = stretches(p)
    plans = [run(s.problem) for s in found]
    item = _filter_dtype(p).itemsize
    rows = p.groups * (p.batch if p.per_sample else 1)
    lags = max((s.projection.lags for s in found), default=1)
    points = max((s.projection.N for s in found), default=1)
    filters = item * (rows * lags + 10 * points) + min(6 * item * points * rows, PROJECTION_BYTES)
    if project_bytes is not None:
        filters = item * rows * lags + max((project_bytes(s.projection, rows, p.device) for s in found), default=0)
    largest = max(plans, key=lambda plan: plan.scratch_bytes + plan.result_bytes, default=None) or run(
        dataclasses.replace(p, mask=None)
    )
    copied = 0 if p.segments is None else largest.result_bytes  # a document's result, before it stands in the whole one
    predicted = [plan.predicted_ms for plan in plans]
    return dataclasses.replace(
        largest,
        algorithm=f"effective filters of {lags:,} lags on a grid of {points:,}, then {largest.algorithm}",
        scratch_bytes=largest.scratch_bytes + copied + filters,
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=largest.backward_bytes + copied + 2 * filters,  # the filters' gradients are projected too
        flop=sum(plan.flop for plan in plans),
        predicted_ms=None if None in predicted else sum(ms for ms in predicted if ms is not None),
        problem=p,
    )


def effective_filter(k: Tensor, length: int, mask: FrequencyMask) -> Tensor:
    """The effective filter of a causal k (…, G, K) on `length` samples: (…, G, 2·length - 1), lags 1 - length … length - 1."""
    taps, lags = k.shape[-1], 2 * length - 1
    projection = Projection(mask, mask_grid(length), taps, False, lags, start=0, stop=min(taps, length), at=length - 1)
    return projection.filter(k)


def _by_projection(p: Problem) -> Iterator[tuple[Projection, Iterator[Stretch]]]:
    return itertools.groupby(stretches(p), key=lambda stretch: stretch.projection)


def _part(p: Problem, s: Stretch, given: Operands) -> Operands:
    """What a stretch has of the tensors."""
    return given.part(_of_u(p, s), s.outputs, s.problem.history > 0)


def _of_u(p: Problem, s: Stretch) -> slice:
    """The stretch's part of u, before which the history stands."""
    return slice(max(0, s.inputs.start - p.history), s.inputs.stop - p.history)


def _span(x: Tensor, where: slice) -> Tensor:
    """x[..., where], in an operator that batched gradients have a rule for even where it is all of x."""
    return x.narrow(-1, where.start, where.stop - where.start)


def _zeros(p: Problem, length: int, like: Tensor) -> Tensor:
    """(B, H, length) in the result's layout."""
    if p.channels_last:
        return like.new_zeros(p.batch, length, p.channels).transpose(1, 2)
    return like.new_zeros(p.batch, p.channels, length)


def _mask_of(p: Problem) -> FrequencyMask:
    if p.mask is None:
        raise RuntimeError("the projection of a problem without a mask was asked for")
    return p.mask


def _filter_dtype(p: Problem) -> torch.dtype:
    return dtypes.filter_arithmetic(dtypes.named(p.dtype), dtypes.named(p.filter_dtype))
