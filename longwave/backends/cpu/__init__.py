"""Exact long convolutions on CPUs at about the cost of moving the tensor: right-angle transforms in Numba.

Few taps are summed as they stand: `direct`, with `fir`, `fir_program`, `fir_kernels` (`short` and `functions` for
`short_conv`). `fused`: a tile of channels, one a vector lane, is loaded (times its gate), transformed, multiplied by the
spectrum of its filters, transformed back and stored (times its gate) while it is in the caches. `six_step`: a long row is
taken apart into a matrix, its columns in the lanes. `windows`: a filter much shorter than the signal, in overlapping
stretches. The algebra:

    with w[n] = exp(-iπn/2N), A(z) = DFT(w·z) maps products of real polynomials modulo x^2N + 1 to products in C^N,
    with x^N = -i,

so 2N real samples are N complex ones and nothing is padded to 2L. The files from the bottom up: jit (compiling and its
cache), simd (the CPU's vectors), lanes (a vector type), butterflies, stages and steps (what loops do), words (what a kernel is
told), moves and transform (the loops), fused and six_step (the kernels), crossovers, costs, tables, kept and row_fft
(constants, masks), threads and pages (who runs, on what memory), results, program (making the words), layouts (where a
Problem stands in its transforms), launches (kernels with their programs), tilings and long_rows (how rows are dealt), strips
(channels of BLH that become rows), calls (from a Problem to
launches), prepared (spectra for calls to come), plans, engine (from a Problem to results); and for streams
stream_steps, stream_kernels and stream.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longwave import masked
from longwave.operands import Operands
from longwave.planner import Plan, Schedule
from longwave.problem import Problem, ShortCall

if TYPE_CHECKING:
    from longwave.backends import StreamMemory

PRIORITY = 10
SHORT_DEVICES = ("cpu",)
STREAMS = True

SIGNALS = ("float32", "float64", "bfloat16", "float16")


@lru_cache(maxsize=1)
def missing() -> str | None:
    if importlib.util.find_spec("numba") is None or importlib.util.find_spec("numpy") is None:
        return "it needs Numba and NumPy: pip install 'longwave[cpu]'"
    from longwave.backends.cpu import simd

    return simd.lacks()


def refuses(problem: Problem) -> str | None:
    if problem.device != "cpu":
        return f"it runs on CPUs, and the tensors are on {problem.device}"
    if problem.dtype not in SIGNALS or problem.filter_dtype not in SIGNALS:
        return f"it takes {', '.join(SIGNALS)}, and u is {problem.dtype} with filters of {problem.filter_dtype}"
    return None


def passes(problem: Problem) -> str | None:
    return None


def plan(problem: Problem) -> Plan:
    from longwave.backends.cpu import kept, plans

    if problem.mask is None or kept.takes(problem):
        return plans.plan(problem)
    return masked.plan(plans.plan, problem)


def _project(projection: masked.Projection, k: Tensor) -> Tensor:
    """Filters onto the frequencies that a mask keeps, each with the bits that it has alone."""
    from longwave.backends.cpu import row_fft

    return projection.by_transforms(k, row_fft)


def forward(problem: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor:
    from longwave.backends.cpu import engine, kept, prepared

    p = problem
    if p.mask is None or kept.takes(p) or prepared.is_ready(p, spectrum):
        return engine.forward(p, given, spectrum)
    if spectrum is not None and spectrum.is_floating_point():
        return engine.forward(masked.whole(p), given._replace(k=spectrum))
    return masked.forward(engine.forward, p, given, _project)


def backward(
    problem: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None
) -> list[Tensor]:
    from longwave.backends.cpu import engine, kept, prepared

    p = problem
    if p.mask is None or kept.takes(p) or prepared.is_ready(p, spectrum):
        return engine.backward(p, needs, dy, given, spectrum)
    if spectrum is not None and spectrum.is_floating_point() and not needs[1]:
        return engine.backward(masked.whole(p), needs, dy, given._replace(k=spectrum))
    return masked.backward(engine.backward, p, needs, dy, given, _project)


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra; or the effective filters, where the mask is not for the engine's own transforms."""
    from longwave.backends.cpu import kept, prepared

    if problem.mask is None or kept.takes(problem):
        return prepared.prepare(problem, k)
    return masked.unmasked(problem, k, _project)[1]


def spectrum_tag(problem: Problem) -> str:
    from longwave.backends.cpu import kept, prepared

    return prepared.spectrum_tag(problem) if problem.mask is None or kept.takes(problem) else "effective taps"


def short_forward(call: ShortCall) -> Tensor:
    from longwave.backends.cpu import short

    return short.forward(call)


def short_backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    from longwave.backends.cpu import short

    return short.backward(needs, dy, call)


def open_stream(
    k: Tensor, D: Tensor | None, batch: int, channels: int, schedule: Schedule, ring: int, dtype: torch.dtype
) -> StreamMemory:
    from longwave.backends.cpu import stream

    return stream.Memory(k, D, batch, channels, schedule, ring, dtype)


def warm() -> int:
    """Compile everything, for `longwave warm`; the number of kernels."""
    from longwave.backends.cpu import engine, jit, short, stream  # noqa: F401  (what they import defines the kernels)

    return jit.warm()


def cache_folder() -> Path:
    """Where the compiled engine is kept, for `longwave doctor`; it may not exist yet."""
    from longwave.backends.cpu import jit

    return jit.cache_folder()
