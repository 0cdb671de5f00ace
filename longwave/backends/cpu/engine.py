"""From a Problem and its tensors to launches, and back to results: everything about the engine that is not a loop."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from longwave import taps
from longwave.backends.cpu import calls, direct, kept, launches, prepared, strips, threads
from longwave.backends.cpu.layouts import layout, writes_taps
from longwave.backends.cpu.program import form
from longwave.backends.cpu.results import arithmetic, empty
from longwave.documents import cover, documents
from longwave.operands import Operands, cut
from longwave.problem import Problem
from longwave.results import Gradients, fresh_gradients, rounded

# Filters of so many taps beside longer ones have gradients of their own accuracy.
FEW_TAPS = 8


def forward(problem: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor:
    p = problem
    kept.check(p)
    y = empty(p, p.out_len, given.u)
    found = documents(p)
    if not cover(p, found):
        y.zero_()
    for alone, inputs, outputs in found:
        own = given.part(inputs, outputs, alone.history > 0)
        if direct.takes(alone):
            direct.convolve(alone, cut(y, outputs), own)
        else:
            _convolve(alone, cut(y, outputs), own, spectrum)
    return y


def _convolve(p: Problem, y: Tensor, given: Operands, spectrum: Tensor | None) -> None:
    ready, lifts, found = prepared.is_ready(p, spectrum), prepared.lifts(p, spectrum), layout(p)
    if kept.connects_nothing(p, found):
        if given.D is None:
            y.zero_()
        else:
            direct.convolve(direct.one_tap(p), y, _only_skip(given, given.D))
        return
    filters, spectra = (None, spectrum) if ready else (taps.folded(p, found.period, taps.ordered(p, given.taps)), None)
    places = (*given._replace(k=filters), y)
    for part, tensors in strips.parts(p, found, (*places, *[None] * (launches.SPECTRA - len(places)), spectra, None)):
        launch = calls.forward_launch(part, threads.width(), ready, lifts, *map(form, tensors[: launches.DY]))
        launch.run(tensors)


def backward(
    problem: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None
) -> list[Tensor]:
    p = problem
    writes_k = _writes_k(p)
    grads = fresh_gradients(p, needs, given, arithmetic(p), empty, writes_k)
    if grads.D is not None and not (p.segments is None and direct.takes(p)):
        # As one direct sum: as a lag among the filter's, small beside them, it would have their rounding errors.
        direct.differentiate(direct.one_tap(p), Gradients(D=grads.D), dy, _only_skip(given, None))
    for document in documents(p):
        alone, inputs, outputs = document
        own, into = given.part(inputs, outputs, alone.history > 0), grads.of(document)
        if direct.takes(alone):
            direct.differentiate(alone, into if p.segments is None else into._replace(D=None), cut(dy, outputs), own)
        else:
            _differentiate(alone, into, cut(dy, outputs), own, spectrum, writes_k)
    if grads.k is not None and p.rev_taps:
        _sum_few_taps(p, grads.k, dy, given)
    return rounded(p, grads, given.D)


def _writes_k(p: Problem) -> bool:
    """Whether the filters' gradient is written where it stays; or else it is a sum, which begins with zeros."""
    if p.segments is not None or direct.takes(p):
        return False
    found = layout(p)
    return writes_taps(p, found) and not kept.connects_nothing(p, found)


def _differentiate(p: Problem, into: Gradients, dy: Tensor, given: Operands, spectrum: Tensor | None, writes_k: bool) -> None:
    ready, lifts, found = prepared.is_ready(p, spectrum), prepared.lifts(p, spectrum), layout(p)
    if kept.connects_nothing(p, found):
        nothing = (into.u, into.pregate, into.postgate, into.history) if given.D is None else (into.history,)
        for grad in nothing:
            if grad is not None:
                grad.zero_()
        if given.D is not None:
            of_D = into._replace(k=None, D=None, history=None)
            direct.differentiate(direct.one_tap(p), of_D, dy, _only_skip(given, given.D))
        return
    sums: list[Tensor] = []
    if into.k is not None and writes_k:
        last = found.first_tap + found.taps
        into.k[..., : found.first_tap].zero_()
        into.k[..., last:].zero_()
        in_use = into.k[..., found.first_tap : last]
        sums = [in_use if p.per_sample else in_use.unsqueeze(0)]
    elif into.k is not None:  # the second sum is that of a circular convolution's second copy of the taps
        shape = (p.batch if p.per_sample else 1, p.channels, found.taps)
        sums = [dy.new_empty(shape, dtype=arithmetic(p)) for _ in range(1 + bool(found.filter_again))]
    filters = None if given.k is None or ready else taps.folded(p, found.period, taps.ordered(p, given.k))
    places = (
        *given._replace(k=filters), None, dy, into.u, into.pregate, into.postgate, into.history,
        *(total if p.per_sample else total[0] for total in sums), *[None] * (2 - len(sums)),
    )  # fmt: skip
    for part, tensors in strips.parts(p, found, (*places, spectrum if ready else None, None)):
        launch = calls.backward_launch(part, threads.width(), ready, lifts, *map(form, tensors[: launches.SPECTRA]))
        launch.run(tensors)
    if into.k is not None and not writes_k:
        if found.filter_again:
            sums[0][..., 1:] += sums[1][..., 1:]
        taps.add_gradient(p, found.period, found.first_tap, into.k, sums[0])


def _only_skip(given: Operands, D: Tensor | None) -> Operands:
    """The tensors of `direct.one_tap`: D stands for the filters."""
    return given._replace(k=None if D is None else D.unsqueeze(-1), D=None, history=None)


def _sum_few_taps(p: Problem, dk: Tensor, dy: Tensor, given: Operands) -> None:
    """The gradient of a filter of few taps beside another one, as direct sums: spectra of both have rounding errors of the size
    of a whole row's gradient at every lag, and few of them may be anything beside theirs."""
    found = documents(p)
    if p.mask is not None or all(direct.takes(document.problem) for document in found):
        return
    for first, count in {(0, p.rev_taps), (p.rev_taps - 1, p.taps - p.rev_taps + 1)}:
        if count > FEW_TAPS:
            continue
        total = dk[..., first : first + count].zero_()
        part = torch.zeros_like(total, memory_format=torch.contiguous_format)
        only_k = Gradients(k=part)
        for alone, inputs, outputs in found:
            own = given._replace(k=None, D=None).part(inputs, outputs, alone.history > 0)
            low, L = alone.lag0 + first, alone.in_len
            # With a period, a tap has every lag that it is congruent to and that connects two samples.
            turns = range(-((L - 1 + low + count - 1) // L), (L - 1 - low) // L + 1) if alone.circular else range(1)
            for turn in turns:
                taps = replace(alone, taps=count, lag0=low + turn * L, circular=False, skip=False)
                direct.differentiate(taps, only_k, cut(dy, outputs), own)
        total += part
