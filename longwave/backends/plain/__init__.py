"""Long convolutions through `torch.fft`, on every device and dtype that PyTorch transforms: the fallback and the yardstick.

Rows are taken a few at a time, so that the spectra in memory stay small whatever the tensor's size. Backward recomputes
spectra instead of keeping them. `formula` is the same convolution as one differentiable PyTorch expression, for the
transforms (`vmap`, `jvp`, `func.grad`) that must see through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import dtypes, planner
from longwave.backends.plain.spectra import Spectra
from longwave.dtypes import cast, conj
from longwave.planner import Plan
from longwave.problem import Problem

PRIORITY = 0

# Rows and spectra in flight: on a CPU about what its caches hold, on a GPU enough to fill it.
SCRATCH_BYTES = {"cpu": 2**24}
SCRATCH_BYTES_ELSEWHERE = 2**30
# Seconds a point of N·log2(N) and transform, forward, from `longwave bench --backend plain`, and where.
COST = {"cpu": (0.55e-9, "2 threads of an AMD EPYC 7003")}


def missing() -> str | None:
    return None


def refuses(problem: Problem) -> str | None:
    return None


@lru_cache(maxsize=4096)
def plan(problem: Problem) -> Plan:
    p = problem
    found = planner.pieces(p)
    N = max((piece.at.N for piece in found), default=1)
    arithmetic = _arithmetic(p)
    complex_bytes = arithmetic.itemsize if p.complex else 2 * arithmetic.itemsize
    # Of each row: the samples in and out and the cyclic result, and the spectra of the input, the gradient and a product.
    row_bytes = (p.in_len + p.out_len + N) * arithmetic.itemsize + 3 * complex_bytes * (N if p.complex else N // 2 + 1)
    rows = max(1, SCRATCH_BYTES.get(p.device, SCRATCH_BYTES_ELSEWHERE) // row_bytes)
    samples = min(p.batch, rows)
    channels = _whole_groups(min(p.channels, max(1, rows // samples)), p.channels // p.groups)
    filters = max(1, channels * p.groups // p.channels) * (samples if p.per_sample else 1)
    filter_bytes = N * arithmetic.itemsize + complex_bytes * (N if p.complex else N // 2 + 1)
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    points = sum(piece.at.N * math.log2(max(2, piece.at.N)) for piece in found) * transforms / (1 if p.complex else 2)
    cost, machine = COST.get(p.device, (None, ""))
    return Plan(
        backend="plain",
        algorithm=f"torch.fft, {'complex' if p.complex else 'real'} transforms in {dtypes.name(arithmetic)}",
        N=N,
        samples_in_flight=samples,
        channels_in_flight=channels,
        scratch_bytes=samples * channels * row_bytes + filters * filter_bytes,
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        flop=5 * points,
        predicted_ms=None if cost is None else 1e3 * cost * points,
        predicted_for=machine,
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
    found = planner.pieces(p)
    y = _empty(p, p.out_len, u)
    for block in _blocks(p):
        x = _input(p, block.cut(u), block.cut(pregate), block.cut(history))
        filters = block.filters(p, k)
        out = x.new_empty(x.shape[0], x.shape[1], p.out_len)
        last: Spectra | None = None
        for piece in found:
            if piece.at.empty:
                out[..., piece.out_slice] = 0
                continue
            # Documents come sorted by their placement: those of one placement share the filters' spectrum.
            S = last.S if last is not None and last.at == piece.at else None
            last = Spectra(p, piece, x=x[..., piece.in_slice], k=filters, S=S)
            out[..., piece.out_slice] = last.y()
        if D is not None:
            _add_skip(p, out, D[block.channels], x[..., p.history :])
        if postgate is not None:
            out *= block.cut(postgate)
        y[block.samples, block.channels] = out
    return y


def formula(
    problem: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> Tensor:
    """`forward` as one expression of differentiable PyTorch operators, without blocks or writes in place."""
    p = problem
    x = _input(p, u, pregate, history)
    filters = k.to(_filter_arithmetic(p))
    outputs = {}
    for piece in planner.pieces(p):
        part = x[..., piece.in_slice]
        spectra = Spectra(p, piece, x=part, k=filters)
        zero = part.new_zeros(*part.shape[:2], spectra.out_len)
        outputs[piece.out_slice.start] = zero if piece.at.empty else spectra.y()
    y = torch.cat([outputs[start] for start in sorted(outputs)], dim=-1)
    if D is not None:
        first, last = _overlap(p)
        skip = D.unsqueeze(-1).to(_filter_arithmetic(p)) * x[..., p.history + first : p.history + last]
        y = y + F.pad(skip, (first - p.out_start, p.out_start + p.out_len - last))
    if postgate is not None:
        y = y * postgate
    return y.to(u.dtype)


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
    arithmetic, P = _arithmetic(p), p.history
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    need_x = need_u or need_pregate or need_history
    found = planner.pieces(p)
    first, last = _overlap(p)
    skipped = slice(first - p.out_start, last - p.out_start)  # the outputs that D reaches

    du = _empty(p, p.in_len - P, u) if need_u else None
    dk = torch.zeros(_filter_shape(p), dtype=arithmetic, device=u.device) if need_k else None
    dD = torch.zeros(p.channels, dtype=arithmetic, device=u.device) if need_D else None
    dpregate = _empty(p, p.in_len - P, u) if need_pregate else None
    dpostgate = _empty(p, p.out_len, u) if need_postgate else None
    dhistory = _empty(p, P, history) if need_history and history is not None else None

    for block in _blocks(p):
        rows = (block.samples, block.channels)
        x = _input(p, block.cut(u), block.cut(pregate), block.cut(history))
        dz = block.cut(dy).to(arithmetic)
        if postgate is not None:
            dz = dz * conj(block.cut(postgate))
        filters = None if k is None else block.filters(p, k)
        dx = torch.zeros_like(x)
        z = dz.new_zeros(dz.shape)
        for piece in found:
            if piece.at.empty:
                continue
            spectra = Spectra(p, piece, x=x[..., piece.in_slice], dz=dz[..., piece.out_slice], k=filters)
            if need_postgate:
                z[..., piece.out_slice] = spectra.y()
            if need_x:
                dx[..., piece.in_slice] = spectra.dx()
            if dk is not None:
                dk[block.filter_rows(p)] += spectra.dk(block.groups.stop - block.groups.start)
        v, dv = x[..., P:], dx[..., P:]
        if D is not None:
            _add_skip(p, z, D[block.channels], v)
            dv[..., first:last] += conj(D[block.channels].to(_filter_arithmetic(p))).unsqueeze(-1) * dz[..., skipped]
        if dD is not None:
            dD[block.channels] += (dz[..., skipped] * conj(v[..., first:last])).sum(dim=(0, 2))
        if dpostgate is not None:
            dpostgate[rows] = block.cut(dy).to(arithmetic) * conj(z)
        if dhistory is not None:
            dhistory[rows] = dx[..., :P]
        if dpregate is not None:
            dpregate[rows] = dv * conj(block.cut(u))
        if du is not None:
            du[rows] = dv if pregate is None else dv * conj(block.cut(pregate))

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
        return k[self.filter_rows(p)].to(_filter_arithmetic(p))


def _blocks(p: Problem) -> Iterator[_Block]:
    chosen = plan(p)
    repeats = p.channels // p.groups
    for h in range(0, p.channels, chosen.channels_in_flight):
        channels = slice(h, min(h + chosen.channels_in_flight, p.channels))
        groups = slice(channels.start // repeats, (channels.stop - 1) // repeats + 1)
        for b in range(0, p.batch, chosen.samples_in_flight):
            yield _Block(slice(b, min(b + chosen.samples_in_flight, p.batch)), channels, groups)


def _whole_groups(channels: int, repeats: int) -> int:
    """At most `channels`, as whole groups of `repeats` or a divisor of one: every filter of a block is used equally often."""
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
    out[..., first - p.out_start : last - p.out_start] += D.to(_filter_arithmetic(p)).unsqueeze(-1) * v[..., first:last]


def _empty(p: Problem, length: int, like: Tensor) -> Tensor:
    """Uninitialised (B, H, length) in the result's layout."""
    if p.channels_last:
        return like.new_empty(p.batch, length, p.channels).transpose(1, 2)
    return like.new_empty(p.batch, p.channels, length)


def _filter_shape(p: Problem) -> tuple[int, ...]:
    return (p.batch, p.groups, p.taps) if p.per_sample else (p.groups, p.taps)


def _arithmetic(p: Problem) -> torch.dtype:
    return dtypes.arithmetic(dtypes.named(p.dtype))


def _filter_arithmetic(p: Problem) -> torch.dtype:
    return dtypes.filter_arithmetic(dtypes.named(p.dtype), dtypes.named(p.filter_dtype))
