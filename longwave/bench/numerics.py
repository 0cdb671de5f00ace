"""How exact: the error of every result by dtype, length and kind of input, beside torch.fft and beside rounding itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longwave.bench.cases import BACKWARD, Case
from longwave.bench.contestants import FLOOR, Contestant, contestants
from longwave.bench.formula import Arrays, Transform, forward_backward
from longwave.bench.mutants import MUTANTS, truth
from longwave.bench.tolerances import bound, pointwise_bound, relative_l2, rounding_error
from longwave.bench.truth import exact, make_arrays
from longwave.errors import MissingDependencyError

DTYPES = ("float64", "float32", "bfloat16", "float16")
# 2^8 - 1, 2^3·5^3, 2^12 + 1 (a prime factor of 241), 11·1,283, and three powers of two.
LENGTHS = (255, 1_000, 4_097, 14_113, 65_536, 1_048_576, 4_194_304)
KIND_LENGTHS = (4_097, 1_048_576)
MUTANT_LENGTHS = (255, 1_000, 4_096)
# On the `cpu` backend the first goes as direct sums, and the others in windows where the signal is long.
SHORT_FILTERS = (16, 256, 1_024)
QUANTITIES = ("y", "du", "dk", "dD", "dpregate", "dpostgate")
_SMALL = 65_536  # to this length two batches of two channels, beyond it one row


def _decaying(x: Arrays) -> Arrays:
    K = x.k.shape[-1]
    k = x.k * torch.exp(torch.arange(K, dtype=x.k.dtype) * (-50.0 / K))
    return x._replace(k=k / k.norm(dim=-1, keepdim=True))  # of norm one again: D·v must not drown the convolution


def _with_mean(x: Arrays) -> Arrays:
    # A gate of mean zero would take the mean out again.
    return x._replace(u=x.u + 20, pregate=None if x.pregate is None else 1 + 0.1 * x.pregate)


def _scaled(scale: float) -> Callable[[Arrays], Arrays]:
    def change(x: Arrays) -> Arrays:
        return x._replace(u=x.u * scale, k=x.k * scale, D=None if x.D is None else x.D * scale)

    return change


PLAIN_KIND = "N(0,1)"
# The operands are N(0,1), the filter divided by sqrt(K); each kind changes one thing.
KINDS: dict[str, Callable[[Arrays], Arrays]] = {
    PLAIN_KIND: lambda x: x,
    "filter decays to e^-50": _decaying,
    "u has mean 20": _with_mean,
    "u, k, D times 1e-2": _scaled(1e-2),
    "u, k, D times 1e-3": _scaled(1e-3),
} | {f"{taps:,} taps": lambda x: x for taps in SHORT_FILTERS}
TAPS = {f"{taps:,} taps": taps for taps in SHORT_FILTERS}


@dataclass(frozen=True)
class Row:
    """The errors of one side (a backend, `torch.fft`, or `rounding`) at one shape and kind of input.

    - `errors`: relative L2 by quantity. `worst`: the largest error over its bound. `worst_point`: the same for the
      samples of `y` against `pointwise_bound`. Both None where nothing is promised.
    """

    length: int
    dtype: str
    kind: str
    side: str
    errors: dict[str, float]
    worst: float | None = None
    worst_point: float | None = None


@dataclass(frozen=True)
class MutantRow:
    """A broken operator: its relative L2 error by length, and how many times that misses each dtype's bound at the last."""

    name: str
    quantity: str
    errors: dict[int, float]
    misses: dict[str, float]


def rows(
    backends: Sequence[str] = (),
    *,
    max_length: int = LENGTHS[-1],
    dtypes: Sequence[str] = DTYPES,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Measures every dtype, length and kind: all lengths with N(0,1) data, all kinds at `KIND_LENGTHS`.

    - `backends`: names; none given means all that can run. `max_length`: longer ones are left out.
    - `progress`: is told what is being measured.

    Returns a list of Row. Raises ArgumentError for a backend that is unknown or cannot run, MissingDependencyError
    without scipy (whose extended precision is float64's truth).
    """
    field = [one for one in contestants(backends)[0] if one.kind != FLOOR and one.name not in ("scipy.fft", "ducc0")]
    plan = [(length, PLAIN_KIND) for length in LENGTHS if length <= max_length]
    plan += [(length, kind) for length in KIND_LENGTHS if length <= max_length for kind in KINDS if kind != PLAIN_KIND]
    found = []
    for dtype in dtypes:
        for length, kind in plan:
            progress(f"{dtype}, {length:,} samples, {kind}")
            found += _measure(field, dtype, length, kind)
    return found


def _measure(field: Sequence[Contestant], dtype: str, length: int, kind: str) -> list[Row]:
    B, H = (2, 2) if length <= _SMALL else (1, 1)
    case = Case(B=B, H=H, L=length, K=TAPS.get(kind, length), dtype=dtype, gated=True, skip=True, direction=BACKWARD)
    # Drawn and changed in float64, rounded once: every dtype sees the same numbers as nearly as it can.
    wide = KINDS[kind](make_arrays(replace(case, dtype="float64")))
    signal = _dtype_of(case, "u")
    named = zip(Arrays._fields, _present(wide), strict=True)
    x = Arrays(*(t.to(_dtype_of(case, name)) for name, t in named))
    high = _extended(case, x) if dtype == "float64" else exact(case, x)
    low = _remainder(high) if dtype == "float64" else None
    reference = {name: _as_float64(value) for name, value in high.items()}
    found = []
    for one in field:
        results = one.bind(case, x)()
        # (got - high) is exact where got is nearly right, so subtracting the rest measures below float64's own rounding.
        differences = {
            name: results[name].double() - reference[name] - (0.0 if low is None else low[name]) for name in QUANTITIES
        }
        errors = {name: _relative(differences[name], reference[name]) for name in QUANTITIES}
        limits = {name: bound(results[name].dtype, B * length, one.backend, truth=reference[name]) for name in QUANTITIES}
        points = differences["y"].abs() / pointwise_bound(reference["y"], _norms(x), signal, one.backend)
        worst = max(errors[name] / limits[name] for name in QUANTITIES)
        found.append(Row(length, dtype, kind, one.name, errors, worst, points.nan_to_num(nan=math.inf).max().item()))
    if signal.itemsize == 2:
        rounded = {name: rounding_error(reference[name], _dtype_of(case, name)) for name in QUANTITIES}
        found.append(Row(length, dtype, kind, "rounding", rounded))
    return found


def _relative(difference: Tensor, reference: Tensor) -> float:
    ratio = (difference.norm() / reference.norm()).item()
    return ratio if math.isfinite(ratio) else math.inf


def _norms(x: Arrays) -> Tensor:
    """|postgate|·(|v|·|k| + |D·v|) of each sample: what `pointwise_bound` scales with."""
    u, k, D, pregate, postgate = (t.double() for t in _present(x)[:5])
    v = u * pregate
    return postgate.abs() * (v.norm(dim=-1, keepdim=True) * k.norm(dim=-1)[:, None] + (D[:, None] * v).abs())


def _present(x: Arrays) -> tuple[Tensor, ...]:
    """The operands without their None, of which these cases have none: every option is on."""
    return tuple(t for t in x if t is not None)


def _dtype_of(case: Case, name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, case.parameter_dtype if name in ("k", "D", "dk", "dD") else case.dtype)
    return dtype


def _extended(case: Case, x: Arrays) -> dict[str, Any]:
    """The exact results in the platform's extended precision (64 bits of significand on x86)."""
    try:
        import numpy as np
        import scipy.fft
    except ImportError as error:
        raise MissingDependencyError("the truth of float64 needs scipy; pip install 'longwave[bench]'") from error
    arrays = Arrays(*(t.numpy().astype(np.longdouble) for t in _present(x)))
    fft = Transform(
        rfft=lambda a, n, axis: scipy.fft.rfft(a, n, axis=axis), irfft=lambda a, n, axis: scipy.fft.irfft(a, n, axis=axis)
    )
    return forward_backward(case, arrays, fft)


def _as_float64(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(value.astype("float64"))


def _remainder(high: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy((value - value.astype("float64")).astype("float64")) for name, value in high.items()}


def mutant_rows(lengths: Sequence[int] = MUTANT_LENGTHS, dtypes: Sequence[str] = DTYPES) -> list[MutantRow]:
    """How far each broken operator is from the truth, and by how much the loosest backend's bound refuses it.

    Returns a list of MutantRow; N(0,1) data, two rows.
    """
    found = []
    for mutant in MUTANTS:
        errors = {}
        for length in lengths:
            generator = torch.Generator().manual_seed(length)
            x, k = torch.randn(2, 2, length, generator=generator, dtype=torch.float64)
            right = truth(mutant.quantity, x, k)
            errors[length] = relative_l2(mutant.result(x, k), right)
        misses = {name: errors[length] / bound(getattr(torch, name), length, truth=right) for name in dtypes}
        found.append(MutantRow(mutant.name, mutant.quantity, errors, misses))
    return found
