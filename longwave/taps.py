"""Filters as the engines' transforms take them: taps in order of rising lag, folded to a period; and their gradients back."""

from __future__ import annotations

import torch
from torch import Tensor

from longwave import dtypes
from longwave.problem import Problem


def ordered(p: Problem, k: Tensor) -> Tensor:
    """The filters with their taps in order of rising lag."""
    return k.flip(-1) if p.reverse else k


def folded(p: Problem, period: int, k: Tensor) -> Tensor:
    """Taps in order of rising lag; with a period L that they exceed, (…, L) with that of lag j modulo L at j."""
    if not period:
        return k
    turns = -(-p.taps // period)
    wide = dtypes.arithmetic(dtypes.named(p.dtype))
    padded = torch.nn.functional.pad(k.to(wide), (0, turns * period - p.taps)).unflatten(-1, (turns, period))
    return in_order(padded.movedim(-2, 0), 0).roll(p.lags[0] % period, dims=-1).contiguous()


def add_gradient(p: Problem, period: int, first_tap: int, total: Tensor, dk: Tensor) -> None:
    """Add the gradient (samples, H or G, taps in use), in order of rising lag, its sums in a fixed order."""
    repeats, taps = dk.shape[1] // p.groups, dk.shape[-1]
    if repeats > 1:
        dk = in_order(dk.unflatten(1, (p.groups, repeats)), 2)
    if not p.per_sample:
        dk = dk[0]
    first, last = first_tap, first_tap + taps
    if period:
        turned = dk.roll(-(p.lags[0] % period), dims=-1)
        dk, first, last = torch.cat([turned] * -(-p.taps // period), dim=-1)[..., : p.taps], 0, p.taps
    if p.reverse:
        dk, first, last = dk.flip(-1), p.taps - last, p.taps - first
    total[..., first:last] += dk


def in_order(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension in float64, one term after the other: `Tensor.sum` may split it by the number of threads."""
    first, *others = x.unbind(dim)
    if not others:
        return first
    total = first.double()
    total = total.clone() if total is first else total
    for term in others:
        total += term
    return total.to(x.dtype)
