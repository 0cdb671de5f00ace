"""Exact long convolutions on CPUs at about the cost of moving the tensor: right-angle transforms in Numba.

Few taps are summed as they stand (`direct`, with `fir`, `fir_program`, `fir_kernels`; `short` and `functions` for
`short_conv`). Everything else is the algorithm `fused`: a tile of channels, one a vector lane, is loaded (times its gate),
transformed, multiplied by the spectrum of its filters, transformed back and stored (times its gate) while it is in the
caches. The algebra:

    with w[n] = exp(-iπn/2N), A(z) = DFT(w·z) maps products of real polynomials modulo x^2N + 1 to products in C^N,
    with x^N = -i,

so 2N real samples are N complex ones and nothing is padded to 2L. The files from the bottom up: simd (vectors),
butterflies, steps (what loops do), kernels (the loops), tables and ring (constants and places), program (what a kernel is
told), engine (from a Problem to programs), threads and pages (who runs, on what memory), jit (the cache).
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from longwave.planner import Plan
from longwave.problem import Problem, ShortCall

PRIORITY = 10
SHORT_DEVICES = ("cpu",)

LONGEST_FUSED = 2**20
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
    """A transform of 2^22 points of one row took 789 ms forward and 1,764 with backward where torch.fft took 335 and 783
    (`longwave bench --cases lengths --samples 22`, two threads of an AMD EPYC 7003): the row leaves every cache."""
    N = plan(problem).N
    if N > LONGEST_FUSED:
        return f"its one algorithm is slower than torch.fft beyond {LONGEST_FUSED:,} points, and N would be {N:,}"
    return None


def plan(problem: Problem) -> Plan:
    from longwave.backends.cpu import engine

    return engine.plan(problem)


def forward(
    problem: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> Tensor:
    from longwave.backends.cpu import engine

    return engine.forward(problem, u, k, D, pregate, postgate, history)


def backward(
    problem: Problem,
    needs: tuple[bool, ...],
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> list[Tensor]:
    from longwave.backends.cpu import engine

    return engine.backward(problem, needs, dy, u, k, D, pregate, postgate, history)


def short_forward(call: ShortCall) -> Tensor:
    from longwave.backends.cpu import short

    return short.forward(call)


def short_backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    from longwave.backends.cpu import short

    return short.backward(needs, dy, call)


def cache_folder() -> Path:
    """Where the compiled engine is kept, for `longwave doctor`; it may not exist yet."""
    from longwave.backends.cpu import jit

    return jit.cache_folder()
