"""Long convolutions on GPUs, in Triton.

Direct sums so far: `fir_kernels` (the kernels), `fir_launch` (from tensors to launches), `short` (`short_conv`) and `fir`
(the regime of `long_conv` with few taps).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longwave.errors import UnsupportedError
from longwave.planner import Plan
from longwave.problem import Problem, ShortCall

PRIORITY = 20
# Types of device whose short convolutions come here: none before a stamped run on a GPU has passed.
SHORT_DEVICES: tuple[str, ...] = ()


def missing() -> str | None:
    return "its long convolutions are not finished"


def refuses(problem: Problem) -> str | None:
    return None


def passes(problem: Problem) -> str | None:
    return None


def plan(problem: Problem) -> Plan:
    raise UnsupportedError(f"backend='triton' cannot plan this call: {missing()}; use backend='plain'")


def forward(problem: Problem, u: Tensor, *arguments: Any, spectrum: Tensor | None = None) -> Tensor:
    raise UnsupportedError(f"backend='triton' cannot run this call: {missing()}; use backend='plain'")


def backward(problem: Problem, needs: tuple[bool, ...], *arguments: Any, spectrum: Tensor | None = None) -> list[Tensor]:
    raise UnsupportedError(f"backend='triton' cannot run this call: {missing()}; use backend='plain'")


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    return None


def spectrum_tag(problem: Problem) -> str:
    return "nothing"


def short_forward(call: ShortCall) -> Tensor:
    from longwave.backends.triton import short

    return short.forward(call)


def short_backward(needs: tuple[bool, ...], dy: Tensor, call: ShortCall) -> list[Tensor]:
    from longwave.backends.triton import short

    return short.backward(needs, dy, call)
