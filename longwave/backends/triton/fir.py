"""The regime `direct` of `long_conv`: few taps are summed as they stand, in one pass, by the kernels of `short_conv`."""

from __future__ import annotations

from torch import Tensor

from longwave.backends.triton.fir_launch import Signal, Taps, add_sums
from longwave.backends.triton.fir_launch import convolve as sum_up
from longwave.backends.triton.fir_plan import reached
from longwave.operands import Operands, cut
from longwave.problem import Problem
from longwave.results import Gradients


def convolve(p: Problem, y: Tensor, given: Operands) -> None:
    """Write y."""
    p, given, _ = _reached(p, given, Gradients())
    _sum_up(p, y, given, times=given.postgate)


def differentiate(p: Problem, into: Gradients, dy: Tensor, given: Operands) -> None:
    """Write the gradients, and add those of k and D."""
    p, given, into = _reached(p, given, into)
    u, _, D, pregate, postgate, _ = given
    signal, dz = _signal(p, given), Signal(dy, postgate, circular=p.circular)
    if into.postgate is not None:
        _sum_up(p, into.postgate, given, times=dy)
    # The result's sample of time t is dz[t - out_start]; taps turned begin with the largest lag.
    if into.u is not None or into.pregate is not None:
        turned, start = _taps(p, given.taps).turned(), p.in_start + p.history
        shift, present = start - p.out_start + p.lags[1], start - p.out_start
        if into.u is not None:
            second = None if into.pregate is None else (into.pregate, u)
            sum_up(into.u, dz, turned, shift=shift, present=present, times=pregate, second=second, skip=D)
        elif into.pregate is not None:
            sum_up(into.pregate, dz, turned, shift=shift, present=present, times=u, skip=D)
    if into.history is not None:
        sum_up(into.history, dz, _taps(p, given.taps).turned(), shift=p.in_start - p.out_start + p.lags[1])
    if into.k is not None:
        add_sums(_taps(p, into.k), dy, postgate, signal, shift=_shift(p))
    if into.D is not None:
        add_sums(Taps(into.D.unsqueeze(1)), dy, postgate, signal._replace(past=None), shift=_present(p))


def _reached(p: Problem, given: Operands, into: Gradients) -> tuple[Problem, Operands, Gradients]:
    """With the taps alone that meet a sample."""
    p, taps = reached(p)
    return p, given._replace(k=cut(given.k, taps)), into._replace(k=cut(into.k, taps))


def _sum_up(p: Problem, y: Tensor, given: Operands, times: Tensor | None) -> None:
    """The result before its gate, times something else."""
    sum_up(y, _signal(p, given), _taps(p, given.taps), shift=_shift(p), present=_present(p), times=times, skip=given.D)


def _signal(p: Problem, given: Operands) -> Signal:
    return Signal(given.u, given.pregate, given.history, p.circular)


def _taps(p: Problem, k: Tensor) -> Taps:
    return Taps(k, falling=p.reverse)


def _present(p: Problem) -> int:
    """The index in u of what has the time of the first result."""
    return p.out_start - p.in_start - p.history


def _shift(p: Problem) -> int:
    """The index in u that the tap with the smallest lag reads for the first result."""
    return _present(p) - p.lags[0]
