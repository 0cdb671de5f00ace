"""The regime `direct` of `long_conv`: few taps are summed as they stand, in one pass, by the kernels of `short_conv`."""

from __future__ import annotations

from torch import Tensor

from longwave.backends.triton.fir_launch import Signal, Taps, add_sums
from longwave.backends.triton.fir_launch import convolve as sum_up
from longwave.problem import Problem
from longwave.results import Gradients


def convolve(
    p: Problem,
    y: Tensor,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> None:
    """Write y."""
    signal = _signal(p, u, pregate, history)
    sum_up(y, signal, _taps(p, k), shift=_shift(p), present=_present(p), times=postgate, skip=D)


def differentiate(
    p: Problem,
    into: Gradients,
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> None:
    """Write the gradients, and add those of k and D."""
    signal, dz = _signal(p, u, pregate, history), Signal(dy, postgate, circular=p.circular)
    if into.postgate is not None and k is not None:
        sum_up(into.postgate, signal, _taps(p, k), shift=_shift(p), present=_present(p), times=dy, skip=D)
    # The result's sample of time t is dz[t - out_start]; taps turned begin with the largest lag.
    if k is not None and (into.u is not None or into.pregate is not None):
        turned, start = _taps(p, k).turned(), p.in_start + p.history
        shift, present = start - p.out_start + p.lags[1], start - p.out_start
        if into.u is not None:
            second = None if into.pregate is None else (into.pregate, u)
            sum_up(into.u, dz, turned, shift=shift, present=present, times=pregate, second=second, skip=D)
        elif into.pregate is not None:
            sum_up(into.pregate, dz, turned, shift=shift, present=present, times=u, skip=D)
    if k is not None and into.history is not None:
        sum_up(into.history, dz, _taps(p, k).turned(), shift=p.in_start - p.out_start + p.lags[1])
    if into.k is not None:
        add_sums(_taps(p, into.k), dy, postgate, signal, shift=_shift(p))
    if into.D is not None:
        add_sums(Taps(into.D.unsqueeze(1)), dy, postgate, signal._replace(past=None), shift=_present(p))


def _signal(p: Problem, u: Tensor, pregate: Tensor | None, history: Tensor | None) -> Signal:
    return Signal(u, pregate, history, p.circular)


def _taps(p: Problem, k: Tensor) -> Taps:
    return Taps(k, falling=p.reverse)


def _present(p: Problem) -> int:
    """The index in u of what has the time of the first result."""
    return p.out_start - p.in_start - p.history


def _shift(p: Problem) -> int:
    """The index in u that the tap with the smallest lag reads for the first result."""
    return _present(p) - p.lags[0]
