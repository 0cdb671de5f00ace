"""From a Problem and its tensors to launches, and back to results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.triton import fir, fir_plan
from longwave.backends.triton.launch_table import on
from longwave.backends.triton.launches import (
    Side,
    convolve,
    filter_gradient,
    in_order,
    operand,
    packed,
    skip_gradient,
    spectra,
    there_and_back,
    unpacked,
    view,
)
from longwave.backends.triton.layouts import layout
from longwave.backends.triton.words import Results, Signal
from longwave.documents import cover, documents
from longwave.operands import Operands, cut
from longwave.problem import Problem
from longwave.results import Gradients, empty, fresh_gradients, rounded


def forward(p: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor:
    y = empty(p, p.out_len, given.u)
    found = documents(p)
    if not cover(p, found):
        y.zero_()
    with on(given.u.device):
        for alone, inputs, outputs in found:
            own = given.part(inputs, outputs, alone.history > 0)
            if fir_plan.takes(alone):
                fir.convolve(alone, cut(y, outputs), own)
            else:
                _convolve(alone, cut(y, outputs), own, spectrum if p.segments is None else None)
    return y


def _convolve(p: Problem, y: Tensor, given: Operands, spectrum: Tensor | None) -> None:
    at = layout(p)
    if at.empty:
        y.zero_()
        return
    signal = _signal(given)
    results = Results(view(y), view(given.postgate), **_skip(given.D, at.shift))
    source, target = Side(signal, at.source, at.source_upper), Side(results, at.target, at.target_upper)
    convolve(p, at, source, target, unpacked(p, at, spectrum) or in_order(p, at, given.taps), False)


def backward(p: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None) -> list[Tensor]:
    grads = fresh_gradients(p, needs, given._replace(D=None), torch.float32)
    with on(given.u.device):
        if needs[2] and given.D is not None:
            grads = grads._replace(D=skip_gradient(p, dy, given))
        for document in documents(p):
            alone, inputs, outputs = document
            own, into = given.part(inputs, outputs, alone.history > 0), grads.of(document)._replace(D=None)
            if fir_plan.takes(alone):
                fir.differentiate(alone, into, cut(dy, outputs), own)
            else:
                _differentiate(alone, into, cut(dy, outputs), own, spectrum if p.segments is None else None)
    return rounded(p, grads, given.D)


def _differentiate(p: Problem, into: Gradients, dy: Tensor, given: Operands, spectrum: Tensor | None) -> None:
    """Write the gradients that are wanted, and add that of the filters."""
    at = layout(p)
    du, dk, _, dpregate, dpostgate, dhistory = into
    grads = (du, dpregate, dpostgate, dhistory)
    if at.empty:
        for grad in grads:
            if grad is not None:
                grad.zero_()
        return
    signal, upstream = _signal(given), Signal(view(dy), view(given.postgate))
    filters: Any = unpacked(p, at, spectrum)
    if filters is None and any(grad is not None for grad in grads):
        filters = in_order(p, at, given.taps)
        filters = filters if at.outer else spectra(p, at, filters)
    if du is not None or dpregate is not None or dhistory is not None:
        ways = [(view(grad), by) for grad, by in ((du, signal.gate), (dpregate, signal.x)) if grad is not None]
        (y, gate), (y2, gate2) = (*ways, (None, None), (None, None))[:2]
        results = Results(y, gate, y2, gate2, view(dhistory), **_skip(given.D, -at.shift))
        convolve(p, at, Side(upstream, at.dz, at.dz_upper), Side(results, at.dx, at.dx_upper), filters, True)
    if dpostgate is not None:
        results = Results(view(dpostgate), upstream.x, **_skip(given.D, at.shift))
        source, target = Side(signal, at.source, at.source_upper), Side(results, at.target, at.target_upper)
        convolve(p, at, source, target, filters, False)
    del filters
    if dk is not None and at.taps:
        filter_gradient(p, at, dk, Side(signal, at.dx, at.dx_upper), Side(upstream, at.dz, at.dz_upper))


def spectrum_tag(p: Problem) -> str:
    """Everything that spectra depend on, but the taps; "" where there are none."""
    if fir_plan.takes(p):
        return ""
    at = layout(p)
    places = f"{at.outer} {at.shape} taps {at.first_tap} to {at.first_tap + at.taps} at {tuple(at.filter)}"
    return f"triton {at.N} of {places} {dtypes.name(operand(p))} by {there_and_back(p, at):.7g}"


def prepare(p: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra, for calls to come with `spectrum`; None where they are one a sample, or documents', or taps are
    summed as they stand."""
    if p.per_sample or p.segments is not None or fir_plan.takes(p):
        return None
    at = layout(p)
    with on(k.device):
        return None if at.empty else packed(spectra(p, at, in_order(p, at, k)))


def _signal(given: Operands) -> Signal:
    return Signal(view(given.u), view(given.pregate), view(given.history))


def _skip(D: Tensor | None, shift: int) -> dict[str, Any]:
    """How D enters `Results`."""
    return {} if D is None else {"skip": D, "step": D.stride(0), "shift": shift}
