"""The correctness gate: no time without a right answer at that very shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from longwave.bench.cases import BACKWARD, Case
from longwave.bench.tolerances import CONTRACTS, bound, relative_l2


@dataclass(frozen=True)
class Verdict:
    """Relative L2 errors and bounds by result name, and in words what is wrong (empty: passed)."""

    errors: dict[str, float]
    bounds: dict[str, float]
    failure: str

    @property
    def passed(self) -> bool:
        return not self.failure


def judge(case: Case, results: Mapping[str, Tensor], truth: Mapping[str, Tensor], backend: str = "plain") -> Verdict:
    """Compares every result of a case with its float64 truth.

    - `results`, `truth`: tensors by name (`y`, `du`, `dk`, …) of equal shapes; the truth is float64 on the CPU.
    - `backend`: whose bounds hold (a key of `tolerances.CONTRACTS`).

    Returns a Verdict; a missing result, another shape or dtype, a NaN and an error above its bound all fail.
    """
    if set(results) != set(truth):
        return Verdict({}, {}, f"gives {', '.join(sorted(results)) or 'nothing'} instead of {', '.join(sorted(truth))}")
    errors, bounds, failures = {}, {}, []
    for name, exact in truth.items():
        got, wanted = results[name], getattr(torch, case.parameter_dtype if name in ("dk", "dD") else case.dtype)
        if got.shape != exact.shape or got.dtype != wanted:
            failures.append(f"{name} is {got.dtype} {tuple(got.shape)} instead of {wanted} {tuple(exact.shape)}")
            continue
        errors[name] = relative_l2(got.cpu(), exact)
        bounds[name] = bound(_judged(case, wanted, backend), _terms(case, name), backend, truth=exact)
        if not errors[name] <= bounds[name]:
            failures.append(f"{name} is off by {errors[name]:.1e}, above {bounds[name]:.1e}")
    return Verdict(errors, bounds, "; ".join(failures))


def _judged(case: Case, wanted: torch.dtype, backend: str) -> torch.dtype:
    """The dtype whose bound holds: a float32 filter has a gradient of 16-bit products where those are multiplied as given."""
    signal: torch.dtype = getattr(torch, case.dtype)
    return signal if CONTRACTS[backend].multiplies_as_given and signal.itemsize == 2 else wanted


def _terms(case: Case, name: str) -> int:
    """How many samples meet in one number of this result."""
    if name in ("dk", "dD") and case.direction == BACKWARD:
        return case.B * case.out_length
    return case.out_length
