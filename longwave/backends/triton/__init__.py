"""Exact long convolutions on the matrix units of GPUs: right-angle transforms as products of small DFT matrices, in Triton.

`fused`: a row is loaded (times its gate), transformed, multiplied by the spectrum of its filter, transformed back and stored
(times its gate) without leaving the registers. The algebra is that of the backend `cpu`: 2N real samples are N complex ones,

    with w[n] = exp(-iπn/2N), A(z) = DFT(w·z) maps products of real polynomials modulo x^2N + 1 to products in C^N,
    with x^N = -i.

16-bit signals are multiplied as such, with float32 sums, unitary DFT matrices, a power of two for each filter and, in float16,
one for each row, so that neither its scale nor that of the row beside it matters; precision="high" goes, as float32 does, by
three products of TF32.

The files from the bottom up: moves (how samples enter and leave the ring), stages (the products), fused and split (the
kernels), shapes (which matrices a length is), tables (what they hold), layouts (where a Problem stands in its transforms),
windows (when), blocks (which rows are in flight), plans, launch_table (how kernels are launched), configurations (their
constants, and which a GPU has passed), launches, engine (from a Problem to results), projection (of filters onto a mask's
frequencies). Few taps are summed as they stand: fir_plan, fir_kernels, fir_launch, fir, and short for `short_conv`; ahead
(kernels compiled without a GPU), cost (what a call should take on one).
"""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache

import torch
from torch import Tensor

from longwave import masked
from longwave.errors import ArgumentError
from longwave.operands import Operands
from longwave.planner import Plan
from longwave.problem import Problem, ShortCall

PRIORITY = 20
# Types of device whose short convolutions come here: none before a stamped run on a GPU has passed.
SHORT_DEVICES: tuple[str, ...] = ()
STREAMS = False

SIGNALS = ("float32", "bfloat16", "float16")
# That multiplies bfloat16 and TF32.
CAPABILITY = (8, 0)


def interprets() -> bool:
    """Whether Triton runs its kernels in Python, on any tensor: for tests of their arithmetic."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on")


def missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "it needs Triton: pip install 'longwave[gpu]'"
    if not torch.cuda.is_available() and not interprets():
        return "it needs an NVIDIA GPU, and PyTorch sees none"
    return None


def refuses(problem: Problem) -> str | None:
    p = problem
    if p.device != "cuda" and not interprets():
        return f"it runs on GPUs, and the tensors are on {p.device}; backend='cpu' or 'plain' takes them"
    if p.dtype not in SIGNALS or p.filter_dtype not in SIGNALS:
        given = f"u is {p.dtype} with filters of {p.filter_dtype}"
        return f"it takes {', '.join(SIGNALS)}, and {given}; backend='plain' takes them"
    return (_garbled(p) if interprets() else _too_old(p.device_index)) or _too_long(p)


def _garbled(p: Problem) -> str | None:
    """Triton's interpreter holds bfloat16 as integers, and multiplies matrices of those; sums are in float32."""
    from longwave.backends.triton import plans

    if p.dtype != "bfloat16" or p.precision == "high" or {plans.regime(part) for part in plans.parts(p)} <= {"direct"}:
        return None
    return (
        "Triton's interpreter (TRITON_INTERPRET) multiplies no matrices of bfloat16; a GPU does, float16, float32 and "
        "precision='high' go here too, and backend='plain' takes them"
    )


def _too_old(index: int | None) -> str | None:
    """Of the GPU that the tensors are on, or the current one. Asked where a tensor is on a GPU, and not before: the answer
    needs a CUDA context."""
    if torch.version.hip is not None:
        return "its kernels have been compiled for NVIDIA GPUs alone, and these are AMD's; backend='plain' takes them"
    capability = _capability(torch.cuda.current_device() if index is None else index)
    if capability >= CAPABILITY:
        return None
    wanted, given = (".".join(map(str, version)) for version in (CAPABILITY, capability))
    return f"it needs GPUs of compute capability {wanted}, and this one has {given}; backend='plain' runs on it"


@lru_cache(maxsize=16)
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def _too_long(p: Problem) -> str | None:
    from longwave.backends.triton import plans

    parts = plans.parts(p)
    try:
        for part in parts:
            plans.regime(part)
    except ArgumentError as error:
        return str(error)
    return None


def passes(problem: Problem) -> str | None:
    from longwave.backends.triton import plans
    from longwave.backends.triton.configurations import PASSED

    missing = {plans.regime(part) for part in plans.parts(problem)} - PASSED.keys()
    if not missing:
        return None
    kernels = ", ".join(f"'{regime}'" for regime in sorted(missing))
    return f"its kernels of {kernels} have not been verified on a GPU yet; name backend='triton' to use them"


def plan(problem: Problem) -> Plan:
    from longwave.backends.triton import plans

    return plans.plan(problem)


def forward(problem: Problem, given: Operands, spectrum: Tensor | None = None) -> Tensor:
    from longwave.backends.triton import engine, projection

    if problem.mask is not None and spectrum is not None:
        problem = masked.whole(problem)
    if problem.mask is None:
        return engine.forward(problem, given, spectrum)
    return masked.forward(engine.forward, problem, given, projection.project)


def backward(
    problem: Problem, needs: tuple[bool, ...], dy: Tensor, given: Operands, spectrum: Tensor | None = None
) -> list[Tensor]:
    from longwave.backends.triton import engine, projection

    if problem.mask is not None and spectrum is not None and not needs[1]:
        problem = masked.whole(problem)
    if problem.mask is None:
        return engine.backward(problem, needs, dy, given, spectrum)
    return masked.backward(engine.backward, problem, needs, dy, given, projection.project)


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra; behind a mask those of the effective filters."""
    from longwave.backends.triton import engine, projection

    if problem.mask is not None:
        problem, k = masked.unmasked(problem, k, projection.project)
    return engine.prepare(problem, k)


def spectrum_tag(problem: Problem) -> str:
    from longwave.backends.triton import engine

    return engine.spectrum_tag(problem if problem.mask is None else masked.whole(problem))


def short_forward(call: ShortCall) -> Tensor:
    from longwave.backends.triton import short

    return short.forward(call)


def short_backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    from longwave.backends.triton import short

    return short.backward(needs, dy, call)
