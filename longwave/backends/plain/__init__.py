"""Long convolutions through `torch.fft`, on every device and dtype that PyTorch transforms: the fallback and the yardstick.

Rows are taken a few at a time, so that the spectra in memory stay small whatever the tensor's size. Backward recomputes
spectra instead of keeping them. The files from the bottom up: rows (which are in flight together), plans, spectra, engine
(from a Problem to results), formula (the same sums as differentiable expressions); short for `short_conv`, stream.
"""

from __future__ import annotations

from longwave.backends.plain.engine import backward as backward
from longwave.backends.plain.engine import forward as forward
from longwave.backends.plain.engine import prepare as prepare
from longwave.backends.plain.formula import formula as formula
from longwave.backends.plain.formula import taps_formula as taps_formula
from longwave.backends.plain.plans import plan as plan
from longwave.backends.plain.short import short_activated as short_activated
from longwave.backends.plain.short import short_backward as short_backward
from longwave.backends.plain.short import short_forward as short_forward
from longwave.backends.plain.short import short_sums as short_sums
from longwave.backends.plain.stream import Memory as open_stream  # noqa: F401  (named by the backends' contract)
from longwave.problem import Problem

PRIORITY = 0
SHORT_DEVICES = None
STREAMS = True


def missing() -> str | None:
    return None


def refuses(problem: Problem) -> str | None:
    return None


def passes(problem: Problem) -> str | None:
    return None


def spectrum_tag(problem: Problem) -> str:
    return f"torch.fft of {plan(problem).N}"
