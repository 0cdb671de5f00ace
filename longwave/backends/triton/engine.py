"""From a Problem and its tensors to launches, and back to results."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.triton import fir, fir_plan
from longwave.backends.triton.launches import (
    Side,
    convolve,
    filter_gradient,
    in_order,
    operand,
    packed,
    skip_gradient,
    spectra,
    unpacked,
    view,
)
from longwave.backends.triton.layouts import layout
from longwave.backends.triton.words import Results, Signal
from longwave.documents import cover, documents
from longwave.problem import Problem


def forward(
    p: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None = None,
) -> Tensor:
    y = _empty(p, p.out_len, u)
    found = documents(p)
    if not cover(p, found):
        y.zero_()
    with _on(u.device):
        for alone, inputs, outputs in found:
            past = history if alone.history else None
            tensors = (_cut(u, inputs), k, D, _cut(pregate, inputs), _cut(postgate, outputs), past)
            if fir_plan.takes(alone):
                fir.convolve(alone, _cut(y, outputs), *tensors)
            else:
                _convolve(alone, _cut(y, outputs), *tensors, spectrum if p.segments is None else None)
    return y


def _convolve(
    p: Problem,
    y: Tensor,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None,
) -> None:
    at = layout(p)
    if at.empty:
        y.zero_()
        return
    signal = Signal(view(u), view(pregate), view(history))
    results = Results(view(y), view(postgate), **_skip(D, at.shift))
    source, target = Side(signal, at.source, at.source_upper), Side(results, at.target, at.target_upper)
    convolve(p, at, source, target, unpacked(p, at, spectrum) or in_order(p, at, k), False)


def backward(
    p: Problem,
    needs: tuple[bool, ...],
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None = None,
) -> list[Tensor]:
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    L = p.in_len - p.history
    du = _empty(p, L, u) if need_u else None
    dpregate = _empty(p, L, u) if need_pregate else None
    dpostgate = _empty(p, p.out_len, u) if need_postgate else None
    dhistory = _empty(p, p.history, history) if need_history and history is not None else None
    dk = u.new_zeros(p.filter_shape, dtype=torch.float32) if need_k else None
    dD = None
    found = documents(p)
    if not cover(p, found):
        for grad in (du, dpregate, dpostgate):
            if grad is not None:
                grad.zero_()
    if dhistory is not None and not any(document.problem.history for document in found):
        dhistory.zero_()
    with _on(u.device):
        if need_D and D is not None:
            dD = skip_gradient(p, dy, u, pregate, postgate)
        for alone, inputs, outputs in found:
            grads = (_cut(du, inputs), _cut(dpregate, inputs), _cut(dpostgate, outputs), dhistory if alone.history else None)
            past = history if alone.history else None
            tensors = (_cut(dy, outputs), _cut(u, inputs), k, D, _cut(pregate, inputs), _cut(postgate, outputs), past)
            if fir_plan.takes(alone):
                of_u, of_pregate, of_postgate, of_history = grads
                fir.differentiate(alone, fir.Gradients(of_u, dk, None, of_pregate, of_postgate, of_history), *tensors)
                continue
            _differentiate(alone, grads, dk, *tensors, spectrum if p.segments is None else None)
    dk = None if dk is None else dk.to(dtypes.named(p.filter_dtype))
    dD = None if dD is None or D is None else dD.to(D.dtype)
    return [grad for grad in (du, dk, dD, dpregate, dpostgate, dhistory) if grad is not None]


def _differentiate(
    p: Problem,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    dk: Tensor | None,
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None,
) -> None:
    """Write the gradients (of u, pregate, postgate, history) that are wanted, and add that of the filters to `dk`."""
    at = layout(p)
    du, dpregate, dpostgate, dhistory = grads
    if at.empty:
        for grad in grads:
            if grad is not None:
                grad.zero_()
        return
    signal = Signal(view(u), view(pregate), view(history))
    upstream = Signal(view(dy), view(postgate))
    filters: Any = unpacked(p, at, spectrum)
    if filters is None and k is not None and any(grad is not None for grad in grads):
        filters = in_order(p, at, k) if at.outer else spectra(p, at, in_order(p, at, k))
    if du is not None or dpregate is not None or dhistory is not None:
        ways = [(view(grad), by) for grad, by in ((du, signal.gate), (dpregate, signal.x)) if grad is not None]
        (y, gate), (y2, gate2) = (*ways, (None, None), (None, None))[:2]
        results = Results(y, gate, y2, gate2, view(dhistory), **_skip(D, -at.shift))
        convolve(p, at, Side(upstream, at.dz, at.dz_upper), Side(results, at.dx, at.dx_upper), filters, True)
    if dpostgate is not None:
        results = Results(view(dpostgate), upstream.x, **_skip(D, at.shift))
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
    return f"triton {at.N} of {places} {dtypes.name(operand(p))}"


def prepare(p: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra, for calls to come with `spectrum`; None where they are one a sample, or documents', or taps are
    summed as they stand."""
    if p.per_sample or p.segments is not None or fir_plan.takes(p):
        return None
    at = layout(p)
    with _on(k.device):
        return None if at.empty else packed(spectra(p, at, in_order(p, at, k)))


def _empty(p: Problem, length: int, beside: Tensor) -> Tensor:
    """Uninitialised (B, H, length) in the result's layout, of the dtype of `beside`."""
    if p.channels_last:
        return beside.new_empty(p.batch, length, p.channels).transpose(1, 2)
    return beside.new_empty(p.batch, p.channels, length)


def _skip(D: Tensor | None, shift: int) -> dict[str, Any]:
    """How D enters `Results`."""
    return {} if D is None else {"skip": D, "step": D.stride(0), "shift": shift}


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Kernels go to the current device: make it the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _cut(x: Any, samples: slice) -> Any:
    return x if x is None or samples.stop - samples.start == x.shape[-1] else x[..., samples]
