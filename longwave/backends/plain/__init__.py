"""Long convolutions through `torch.fft`, on every device and dtype that PyTorch transforms: the fallback and the yardstick.

Rows are taken a few at a time, so that the spectra in memory stay small whatever the tensor's size. Backward recomputes
spectra instead of keeping them. `formula` and `taps_formula` are the same sums as differentiable PyTorch expressions, for
the transforms (`vmap`, `jvp`, `func.grad`) that must see through them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import dtypes, masked, planner
from longwave.backends.plain.short import short_activated as short_activated
from longwave.backends.plain.short import short_backward as short_backward
from longwave.backends.plain.short import short_forward as short_forward
from longwave.backends.plain.short import short_sums as short_sums
from longwave.backends.plain.spectra import FilterGradient, Spectra, span
from longwave.backends.plain.stream import Memory as open_stream  # noqa: F401  (named by the backends' contract)
from longwave.dtypes import cast, conj
from longwave.operands import Operands
from longwave.planner import Piece, Plan
from longwave.problem import Problem
from longwave.results import empty

PRIORITY = 0
SHORT_DEVICES = None
STREAMS = True

# What the rows in flight may hold: on a CPU so little that the allocator hands out the same warm pages again (2 to 4 times
# as fast as all rows at once), on a GPU enough to fill it.
SCRATCH_BYTES = {"cpu": 2**26}
SCRATCH_BYTES_ELSEWHERE = 2**30
# Rows of a million samples are beyond that: fewer than this many at a time measured 1.9 times as slow.
ROWS_AT_LEAST = 4


class Cost(NamedTuple):
    """Forward seconds: `call + point · N·log2(N)` a transform; constants from `longwave bench --backend plain`."""

    call: float
    point: float
    machine: str


COST = {"cpu": Cost(1e-4, 0.4e-9, "2 threads of an AMD EPYC 7003")}


def missing() -> str | None:
    return None


def refuses(problem: Problem) -> str | None:
    return None


def passes(problem: Problem) -> str | None:
    return None


@lru_cache(maxsize=256)
def plan(problem: Problem) -> Plan:
    p = problem
    if p.mask is not None:
        return masked.plan(plan, p)
    found = planner.pieces(p)
    N = max((piece.at.N for piece in found), default=1)
    arithmetic = _arithmetic(p)
    complex_bytes = arithmetic.itemsize if p.complex else 2 * arithmetic.itemsize
    spectrum_bytes = complex_bytes * (N if p.complex else N // 2 + 1)
    # Of each row: the input where it is changed or moved, its spectrum, the product, the cyclic result (which an inverse
    # transform copies its input for); with documents the result as well, which is put together from theirs.
    changed = p.pregate or p.history or p.channels_last or arithmetic.itemsize != dtypes.named(p.dtype).itemsize
    row_bytes = (N + p.in_len * (1 + changed) + p.out_len * (p.segments is not None)) * arithmetic.itemsize + 3 * spectrum_bytes
    filter_bytes = N * arithmetic.itemsize + spectrum_bytes
    rows = max(_scratch_bytes(p) // (row_bytes + filter_bytes), ROWS_AT_LEAST)
    samples = min(p.batch, rows)
    channels = _whole_groups(min(p.channels, max(1, rows // samples)), p.channels // p.groups)
    filters = max(1, channels * p.groups // p.channels) * (samples if p.per_sample else 1)
    together = max((len(run) * _document_bytes(p, run[0].at.N) for run in _runs(p, found, channels)), default=0)
    row_bytes = max(row_bytes, row_bytes - _document_bytes(p, N) + together)
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    points = sum(piece.at.N * math.log2(max(2, piece.at.N)) for piece in found) * transforms / (1 if p.complex else 2)
    cost = COST.get(p.device)
    scratch_bytes = samples * channels * row_bytes + filters * filter_bytes
    item, taps = dtypes.named(p.dtype).itemsize, math.prod(p.filter_shape)
    signals = (1 + p.pregate) * (p.in_len - p.history) + p.postgate * p.out_len + p.history
    gradient_bytes = p.batch * p.channels * (signals * item + p.skip * arithmetic.itemsize) + taps * 2 * arithmetic.itemsize
    return Plan(
        backend="plain",
        algorithm=f"torch.fft, {'complex' if p.complex else 'real'} transforms in {dtypes.name(arithmetic)}",
        N=N,
        samples_in_flight=samples,
        channels_in_flight=channels,
        scratch_bytes=scratch_bytes,
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes + 2 * scratch_bytes,  # the output's gradient passes through all that the input does
        flop=5 * points,
        predicted_ms=None if cost is None else 1e3 * (cost.call * max(1, len(found)) + cost.point * points),
        predicted_for="" if cost is None else cost.machine,
        problem=p,
    )


def forward(problem: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor:
    p = problem
    if p.mask is not None and spectrum is not None:
        p = masked.whole(p)
    elif p.mask is not None:
        return masked.forward(forward, p, given)
    u, _, D, pregate, postgate, history = given
    found = planner.pieces(p)
    runs = _runs(p, found, plan(p).channels_in_flight)
    y = empty(p, p.out_len, u)
    for channels in _channel_blocks(p):
        last: Spectra | None = None
        for block in channels:
            x = _input(p, block.cut(u), block.cut(pregate), block.cut(history))
            whole = len(found) == 1 and not found[0].at.empty
            out = None if whole else x.new_zeros(x.shape[0], x.shape[1], p.out_len)
            for run in runs:
                # Blocks of samples share the filters' spectrum, and so do documents of one placement, which come together.
                S = None if p.per_sample or last is None or last.at != run[0].at else last.S
                S = S if spectrum is None else spectrum[block.groups]
                last = Spectra(
                    p, _longest(run), x=_inputs(run, x), k=None if S is not None else block.filters(p, given.taps), S=S
                )
                if out is None:
                    out = last.y()
                else:
                    _scatter(last.y(), out, [piece.out_slice for piece in run])
            if out is None:
                raise RuntimeError("a placement that is not empty gave no result")
            if D is not None:
                _add_skip(p, out, D[block.channels], x[..., p.history :])
            if postgate is not None:
                out *= block.cut(postgate)
            y[block.samples, block.channels] = out
    return y


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra, (G, frequencies)."""
    p = problem
    if p.mask is not None:
        p, k = masked.unmasked(p, k)
    (piece,) = planner.pieces(p)
    return Spectra(p, piece, k=k.to(dtypes.filter_arithmetic(dtypes.named(p.dtype), k.dtype))).S


def spectrum_tag(problem: Problem) -> str:
    return f"torch.fft of {plan(problem).N}"


def formula(problem: Problem, given: Operands) -> Tensor:
    """`forward` as one expression of differentiable PyTorch operators, without blocks or writes in place."""
    p = problem
    if p.mask is not None:
        return masked.formula(formula, p, given)
    u, _, D, pregate, postgate, history = given
    x = _input(p, u, pregate, history)
    filters = given.taps.to(dtypes.filter_arithmetic(u.dtype, given.taps.dtype))
    outputs = {}
    for piece in planner.pieces(p):
        part = span(x, piece.in_slice)
        spectra = Spectra(p, piece, x=part, k=filters)
        zero = part.new_zeros(*part.shape[:2], spectra.out_len)
        outputs[piece.out_slice.start] = zero if piece.at.empty else spectra.y()
    y = torch.cat([outputs[start] for start in sorted(outputs)], dim=-1)
    if D is not None:
        first, last = _overlap(p)
        skip = D.unsqueeze(-1).to(dtypes.filter_arithmetic(u.dtype, D.dtype)) * span(
            x, slice(p.history + first, p.history + last)
        )
        y = y + F.pad(skip, (first - p.out_start, p.out_start + p.out_len - last))
    if postgate is not None:
        y = y * postgate
    return y.to(u.dtype)


def taps_formula(problem: Problem, dz: Tensor, x: Tensor) -> Tensor:
    """The filter's gradient Σ_t dz[t] conj(x[t - lag(s)]) as one such expression, in arithmetic precision."""
    p = problem
    if p.mask is not None:
        return masked.taps_formula(taps_formula, p, dz, x)
    total = x.new_zeros(p.filter_shape)
    for piece in planner.pieces(p):
        if not piece.at.empty:
            spectra = Spectra(p, piece, x=span(x, piece.in_slice), dz=span(dz, piece.out_slice))
            total = total + spectra.taps(spectra.W(p.groups))
    return total


def backward(
    problem: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None
) -> list[Tensor]:
    p = problem
    if p.mask is not None and spectrum is not None and not needs[1]:
        p = masked.whole(p)
    elif p.mask is not None:
        return masked.backward(backward, p, needs, dy, given)
    u, _, D, pregate, postgate, history = given
    arithmetic, P = _arithmetic(p), p.history
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    need_x = need_u or need_pregate or need_history
    runs = _runs(p, planner.pieces(p), plan(p).channels_in_flight)
    first, last = _overlap(p)
    skipped = slice(first - p.out_start, last - p.out_start)  # the outputs that D reaches

    du = empty(p, p.in_len - P, u) if need_u else None
    dk = torch.zeros(p.filter_shape, dtype=arithmetic, device=u.device) if need_k else None
    dD = torch.zeros(p.channels, dtype=arithmetic, device=u.device) if need_D else None
    dpregate = empty(p, p.in_len - P, u) if need_pregate else None
    dpostgate = empty(p, p.out_len, u) if need_postgate else None
    dhistory = empty(p, P, history) if need_history and history is not None else None

    for channels in _channel_blocks(p):
        taps = None if dk is None else FilterGradient()
        shared: Spectra | None = None
        for block in channels:
            rows = (block.samples, block.channels)
            x = _input(p, block.cut(u), block.cut(pregate), block.cut(history))
            dz = block.cut(dy).to(arithmetic)
            if postgate is not None:
                dz = dz * conj(block.cut(postgate))
            dx = torch.zeros_like(x) if need_x else None
            z = dz.new_zeros(dz.shape) if need_postgate else None
            for run in runs:
                spectra = Spectra(p, _longest(run), x=_inputs(run, x), dz=_outputs(run, dz))
                if need_x or need_postgate:
                    if spectrum is not None:
                        spectra.S = spectrum[block.groups]
                    elif shared is not None and shared.at == spectra.at and not p.per_sample:
                        spectra.S = shared.S
                    else:
                        spectra.k = block.filters(p, given.taps)
                    shared = spectra
                if z is not None:
                    _scatter(spectra.y(), z, [piece.out_slice for piece in run])
                if dx is not None:
                    _scatter(spectra.dx(), dx, [piece.in_slice for piece in run])
                if dk is not None and taps is not None:
                    taps.add(dk[block.filter_rows(p)], spectra, spectra.W(block.groups.stop - block.groups.start))
            v = x[..., P:]
            skip = None if D is None else D[block.channels].to(dtypes.filter_arithmetic(u.dtype, D.dtype)).unsqueeze(-1)
            if dD is not None:
                dD[block.channels] += (dz[..., skipped] * conj(v[..., first:last])).sum(dim=(0, 2))
            if dpostgate is not None and z is not None:
                if skip is not None:
                    z[..., skipped] += skip * v[..., first:last]
                dpostgate[rows] = block.cut(dy).to(arithmetic) * conj(z)
            if dx is None:
                continue
            dv = dx[..., P:]
            if skip is not None:
                dv[..., first:last] += conj(skip) * dz[..., skipped]
            if dhistory is not None:
                dhistory[rows] = cast(dx[..., :P], dhistory.dtype)
            if dpregate is not None:
                dpregate[rows] = dv * conj(block.cut(u))
            if du is not None:
                du[rows] = dv if pregate is None else dv * conj(block.cut(pregate))
        if taps is not None:
            taps.flush()

    dk = None if dk is None else cast(dk, dtypes.named(p.filter_dtype))
    dD = None if dD is None or D is None else cast(dD, D.dtype)
    return [grad for grad in (du, dk, dD, dpregate, dpostgate, dhistory) if grad is not None]


class _Block(NamedTuple):
    """Rows that are in flight together: some samples, some channels, and the filter rows of these channels."""

    samples: slice
    channels: slice
    groups: slice

    def cut(self, x: Tensor | None) -> Tensor:
        return x[self.samples, self.channels] if x is not None else None  # type: ignore[return-value]

    def filter_rows(self, p: Problem) -> tuple[slice, ...]:
        return (self.samples, self.groups) if p.per_sample else (self.groups,)

    def filters(self, p: Problem, k: Tensor) -> Tensor:
        return k[self.filter_rows(p)].to(dtypes.filter_arithmetic(dtypes.named(p.dtype), k.dtype))


def _channel_blocks(p: Problem) -> Iterator[list[_Block]]:
    """For some channels at a time, their blocks of samples: what is made of a filter serves all of them."""
    chosen = plan(p)
    repeats = p.channels // p.groups
    for h in range(0, p.channels, chosen.channels_in_flight):
        channels = slice(h, min(h + chosen.channels_in_flight, p.channels))
        groups = slice(channels.start // repeats, (channels.stop - 1) // repeats + 1)
        starts = range(0, p.batch, chosen.samples_in_flight)
        yield [_Block(slice(b, min(b + chosen.samples_in_flight, p.batch)), channels, groups) for b in starts]


# Documents of one placement are rows of one batch, the shorter of them behind with zeros, which change nothing.
Run = Sequence[Piece]


def _runs(p: Problem, found: Sequence[Piece], channels: int) -> list[Run]:
    """What is transformed together: what has the same placement, as long as the rows of so many channels stay small."""
    runs: list[Run] = []
    for at, pieces in itertools.groupby((piece for piece in found if not piece.at.empty), key=lambda piece: piece.at):
        same = tuple(pieces)
        together = max(1, _scratch_bytes(p) // (channels * _document_bytes(p, at.N)))
        runs += [same[i : i + together] for i in range(0, len(same), together)]
    return runs


def _longest(run: Run) -> Piece:
    in_len = max(piece.in_slice.stop - piece.in_slice.start for piece in run)
    out_len = max(piece.out_slice.stop - piece.out_slice.start for piece in run)
    return Piece(slice(0, in_len), slice(0, out_len), run[0].at)


def _inputs(run: Run, x: Tensor) -> Tensor:
    return _gathered(x, [piece.in_slice for piece in run])


def _outputs(run: Run, y: Tensor) -> Tensor:
    return _gathered(y, [piece.out_slice for piece in run])


def _gathered(x: Tensor, places: Sequence[slice]) -> Tensor:
    """(B, C, ·) at one place, or (documents, C, ·) from the one packed row."""
    if len(places) == 1:
        return x[..., places[0]]
    rows = x.new_zeros(len(places), x.shape[1], max(place.stop - place.start for place in places))
    for row, place in zip(rows, places, strict=True):
        row[:, : place.stop - place.start] = x[0, :, place]
    return rows


def _scatter(rows: Tensor, x: Tensor, places: Sequence[slice]) -> None:
    if len(places) == 1:
        x[..., places[0]] = rows
        return
    for row, place in zip(rows, places, strict=True):
        x[0, :, place] = row[:, : place.stop - place.start]


def _document_bytes(p: Problem, N: int) -> int:
    """Of a row of a document in flight: its samples in and out of the transform, its spectrum, the product, and a copy."""
    itemsize = _arithmetic(p).itemsize
    return 2 * N * itemsize + 3 * (itemsize * N if p.complex else 2 * itemsize * (N // 2 + 1))


def _scratch_bytes(p: Problem) -> int:
    return SCRATCH_BYTES.get(p.device, SCRATCH_BYTES_ELSEWHERE)


def _whole_groups(channels: int, repeats: int) -> int:
    """At most `channels`, as whole groups of `repeats` or a divisor of one: a block uses each of its filters equally often."""
    if channels >= repeats:
        return channels // repeats * repeats
    return next(size for size in range(channels, 0, -1) if repeats % size == 0)


def _input(p: Problem, u: Tensor, pregate: Tensor | None, history: Tensor | None) -> Tensor:
    """history | pregate · u, in arithmetic precision."""
    v = u.to(_arithmetic(p))
    v = v if pregate is None else v * pregate
    return v if history is None else torch.cat([history.to(v.dtype), v], dim=-1)


def _overlap(p: Problem) -> tuple[int, int]:
    """Where samples of v and of the result coincide: there D · v is added."""
    first = max(0, p.out_start)
    return first, max(first, min(p.in_len - p.history, p.out_start + p.out_len))


def _add_skip(p: Problem, out: Tensor, D: Tensor, v: Tensor) -> None:
    first, last = _overlap(p)
    skip = D.to(dtypes.filter_arithmetic(dtypes.named(p.dtype), D.dtype)).unsqueeze(-1)
    out[..., first - p.out_start : last - p.out_start] += skip * v[..., first:last]


def _arithmetic(p: Problem) -> torch.dtype:
    return dtypes.arithmetic(dtypes.named(p.dtype))
