"""From a Problem and its tensors to results, some rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from longwave import dtypes, masked, planner
from longwave.backends.plain.plans import plan
from longwave.backends.plain.rows import (
    arithmetic,
    channel_blocks,
    input_of,
    inputs,
    longest,
    outputs,
    overlap,
    runs,
    scatter,
)
from longwave.backends.plain.spectra import FilterGradient, Spectra
from longwave.dtypes import cast, conj
from longwave.operands import Operands
from longwave.problem import Problem
from longwave.results import empty, fresh_gradients, rounded


def forward(problem: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor:
    p = problem
    if p.mask is not None and spectrum is not None:
        p = masked.whole(p)
    elif p.mask is not None:
        return masked.forward(forward, p, given)
    D, found = given.D, planner.pieces(p)
    together = runs(p, found, plan(p).channels_in_flight)
    y = empty(p, p.out_len, given.u)
    for channels in channel_blocks(p, plan(p)):
        last: Spectra | None = None
        for block in channels:
            own = block.of(given)
            x = input_of(p, own)
            whole = len(found) == 1 and not found[0].at.empty
            out = None if whole else x.new_zeros(x.shape[0], x.shape[1], p.out_len)
            for run in together:
                # Blocks of samples share the filters' spectrum, and so do documents of one placement, which come together.
                S = None if p.per_sample or last is None or last.at != run[0].at else last.S
                S = S if spectrum is None else spectrum[block.groups]
                last = Spectra(
                    p, longest(run), x=inputs(run, x), k=None if S is not None else block.filters(p, given.taps), S=S
                )
                if out is None:
                    out = last.y()
                else:
                    scatter(last.y(), out, [piece.out_slice for piece in run])
            if out is None:
                raise RuntimeError("a placement that is not empty gave no result")
            if D is not None:
                _add_skip(p, out, D[block.channels], x[..., p.history :])
            if own.postgate is not None:
                out *= own.postgate
            y[block.rows] = out
    return y


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra, (G, frequencies)."""
    p = problem
    if p.mask is not None:
        p, k = masked.unmasked(p, k)
    (piece,) = planner.pieces(p)
    return Spectra(p, piece, k=k.to(dtypes.filter_arithmetic(dtypes.named(p.dtype), k.dtype))).S


def backward(
    problem: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None
) -> list[Tensor]:
    p = problem
    if p.mask is not None and spectrum is not None and not needs[1]:
        p = masked.whole(p)
    elif p.mask is not None:
        return masked.backward(backward, p, needs, dy, given)
    D, wide, P = given.D, arithmetic(p), p.history
    grads = fresh_gradients(p, needs, given, wide)
    need_x = any(grad is not None for grad in (grads.u, grads.pregate, grads.history))
    together = runs(p, planner.pieces(p), plan(p).channels_in_flight)
    first, last = overlap(p)
    skipped = slice(first - p.out_start, last - p.out_start)  # the outputs that D reaches

    for channels in channel_blocks(p, plan(p)):
        taps = None if grads.k is None else FilterGradient()
        shared: Spectra | None = None
        for block in channels:
            own, dz = block.of(given), dy[block.rows].to(wide)
            x = input_of(p, own)
            dz = dz if own.postgate is None else dz * conj(own.postgate)
            dx = torch.zeros_like(x) if need_x else None
            z = None if grads.postgate is None else torch.zeros_like(dz)
            for run in together:
                spectra = Spectra(p, longest(run), x=inputs(run, x), dz=outputs(run, dz))
                if need_x or z is not None:
                    if spectrum is not None:
                        spectra.S = spectrum[block.groups]
                    elif shared is not None and shared.at == spectra.at and not p.per_sample:
                        spectra.S = shared.S
                    else:
                        spectra.k = block.filters(p, given.taps)
                    shared = spectra
                if z is not None:
                    scatter(spectra.y(), z, [piece.out_slice for piece in run])
                if dx is not None:
                    scatter(spectra.dx(), dx, [piece.in_slice for piece in run])
                if grads.k is not None and taps is not None:
                    taps.add(grads.k[block.filter_rows(p)], spectra, spectra.W(block.groups.stop - block.groups.start))
            v = x[..., P:]
            skip = None if D is None else D[block.channels].to(dtypes.filter_arithmetic(own.u.dtype, D.dtype)).unsqueeze(-1)
            if grads.D is not None:
                grads.D[block.channels] += (dz[..., skipped] * conj(v[..., first:last])).sum(dim=(0, 2))
            if grads.postgate is not None and z is not None:
                if skip is not None:
                    z[..., skipped] += skip * v[..., first:last]
                grads.postgate[block.rows] = dy[block.rows].to(wide) * conj(z)
            if dx is None:
                continue
            dv = dx[..., P:]
            if skip is not None:
                dv[..., first:last] += conj(skip) * dz[..., skipped]
            if grads.history is not None:
                grads.history[block.rows] = cast(dx[..., :P], grads.history.dtype)
            if grads.pregate is not None:
                grads.pregate[block.rows] = dv * conj(own.u)
            if grads.u is not None:
                grads.u[block.rows] = dv if own.pregate is None else dv * conj(own.pregate)
        if taps is not None:
            taps.flush()

    return rounded(p, grads, D)


def _add_skip(p: Problem, out: Tensor, D: Tensor, v: Tensor) -> None:
    first, last = overlap(p)
    skip = D.to(dtypes.filter_arithmetic(dtypes.named(p.dtype), D.dtype)).unsqueeze(-1)
    out[..., first - p.out_start : last - p.out_start] += skip * v[..., first:last]
