"""The sums of `forward` as differentiable PyTorch expressions, for the transforms (`vmap`, `jvp`, `func.grad`) that must see
through them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longwave import dtypes, masked, planner
from longwave.backends.plain.rows import input_of, overlap
from longwave.backends.plain.spectra import Spectra, span
from longwave.operands import Operands
from longwave.problem import Problem


def formula(problem: Problem, given: Operands) -> Tensor:
    """`forward` as one expression of differentiable PyTorch operators, without blocks or writes in place."""
    p = problem
    if p.mask is not None:
        return masked.formula(formula, p, given)
    u, D, postgate = given.u, given.D, given.postgate
    x = input_of(p, given)
    filters = given.taps.to(dtypes.filter_arithmetic(u.dtype, given.taps.dtype))
    outputs = {}
    for piece in planner.pieces(p):
        part = span(x, piece.in_slice)
        spectra = Spectra(p, piece, x=part, k=filters)
        zero = part.new_zeros(*part.shape[:2], spectra.out_len)
        outputs[piece.out_slice.start] = zero if piece.at.empty else spectra.y()
    y = torch.cat([outputs[start] for start in sorted(outputs)], dim=-1)
    if D is not None:
        first, last = overlap(p)
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
