"""How wrong a result may be: every error measure and every bound, in one place, with where each number comes from.

Tests, the benchmark's gate and `docs/numerics.md` all read these. Errors are relative and measured in float64 against a
float64 truth: an absolute tolerance passes an all-zeros result as soon as the data are small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longwave.errors import ArgumentError


@dataclass(frozen=True)
class Contract:
    """What a backend promises. The arithmetic is float64 for float64, and float32 for float32 and the 16-bit types.

    - `float64_per_root_log`: relative L2 <= this * sqrt(log2 N), the growth of a transform's rounding error.
    - `float32_short`, `float32_long`: relative L2 to `LONG` samples, and beyond.
    - `rounding_factor`: 16-bit results, in multiples of the error of rounding the exact result.
    - `pointwise_float32`: c in |err_t| <= ulp(y_t)/2 + c * |v|*|k|; float64 takes 2**-29 of it.
    - `operand_rounding`: where 16-bit signals are multiplied as they are (unless precision is "high"), c of a sample is half of
      this * 2**-bits, for each product's operands are rounded. A row of which the filter leaves less than a quarter of |v|*|k|
      is off by at most this * 2**-bits * |v|*|k| in L2, beside `rounding_factor`: what cancels in a sum of rounded products
      leaves their errors. Else 0.
    """

    float64_per_root_log: float
    float32_short: float
    float32_long: float
    rounding_factor: float
    pointwise_float32: float
    operand_rounding: float = 0.0

    @property
    def multiplies_as_given(self) -> bool:
        """16-bit signals, so that a float32 filter's gradient from them is held to the bound of a 16-bit result."""
        return self.operand_rounding > 0


# Beyond this many samples torch.fft's float32 error depends on the machine it runs on.
LONG = 65_536

CONTRACTS = {
    # What torch.fft gives, N(0,1) data, PyTorch 2.13.0. To 64K samples 2.6e-7 to 3.2e-7 on every CPU seen; at 1M 3.3e-7
    # with MKL on an AVX2 EPYC, but 3.0e-6 on an AVX-512 machine; with a mean of 20 up to 9e-7 at 4M. The worst point
    # seen is 1.9e-7 of |v|*|k|, at L = 3: long rows spread |v|*|k| over many points (2e-9 at 1M).
    "plain": Contract(1e-15, 1e-6, 6e-6, 1.5, 1e-6),
    # The two engines' bounds are what the design promises: tighter than torch.fft's wherever that is loose.
    "cpu": Contract(1e-15, 4e-7, 4e-7, 1.5, 1e-6),
    # 16-bit operands are rounded at every product of a transform: a row is off by about 1.2 * 2**-bits * |v|*|k| whatever its
    # filter leaves of it, so that 5 times what rounding costs hold down to a quarter of |v|*|k| (2.2 to 4.2 measured there,
    # 5.5 at a fifth, 23 at a twentieth: float16, every regime, causal rows of N(0,1) and of constants).
    "triton": Contract(1e-15, 1e-6, 1e-6, 5.0, 4e-6, operand_rounding=4.0),
}

# Of fewer different samples the error of rounding is a matter of luck: that of 64 is within a fifth of what is expected, that
# of one, however often it is repeated, may be nothing at all. Results of float32 that are rounded once share the luck; those
# of rounded products do not.
FEW = 64
# Of |v|*|k|, below which a row counts as cancelled; N(0,1) rows keep about 0.7 of it.
_CANCELLED = 0.25
# The significand's bits, the hidden one included: half a unit in the last place is at most 2**-bits of the value.
_BITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}
_REAL = {torch.complex128: torch.float64, torch.complex64: torch.float32}


def relative_l2(got: Tensor, truth: Tensor, *, dim: int | tuple[int, ...] | None = None) -> float:
    """|got - truth| / |truth| in float64, over everything or, with `dim`, the worst of the rows along it.

    - `got`: any shape and floating or complex dtype. `truth`: the same shape; float64 or complex128 to mean anything.
    - `dim`: the axis (or axes) summed over; `dim=-1` gives the worst row of a `(B, H, L)` result, so that one wrong
      channel is not averaged away by many right ones, or by one that is louder.

    Returns a float: 0 where both are zero (or empty), infinity where only the truth is zero or anything is NaN or Inf.
    Raises ArgumentError for shapes that differ (broadcasting would compare the wrong things).
    """
    if got.shape != truth.shape:
        raise ArgumentError(
            f"relative_l2 compares equal shapes; got {tuple(got.shape)} and {tuple(truth.shape)}: reshape one of them"
        )
    if got.numel() == 0:
        return 0.0
    exact = torch.complex128 if got.is_complex() or truth.is_complex() else torch.float64
    wanted = truth.detach().to(exact)
    error = got.detach().to(exact) - wanted
    axes = tuple(range(error.ndim)) if dim is None else dim
    error_norm = torch.linalg.vector_norm(error, dim=axes)
    truth_norm = torch.linalg.vector_norm(wanted, dim=axes)
    ratio = torch.where(error_norm == 0, 0.0, error_norm / truth_norm)
    return torch.nan_to_num(ratio, nan=math.inf, posinf=math.inf).max().item()


def rounding_error(truth: Tensor, io_dtype: torch.dtype) -> float:
    """The relative L2 error of the exact result rounded once to `io_dtype`: nothing stored can do better.

    - `truth`: float64 or complex128, any shape.

    Returns a float (no unit).
    """
    return relative_l2(truth.to(io_dtype), truth)


def expected_rounding(truth: Tensor, io_dtype: torch.dtype) -> float:
    """The relative L2 error of rounding once where every error within half a unit in the last place is as likely: a unit over
    the root of 12 for each sample. That of a few samples, as `rounding_error` finds it, may happen to be next to nothing.

    - `truth`: float64 or complex128, any shape; 0 where all of it is zero or there is none.

    Returns a float (no unit).
    """
    parts = torch.view_as_real(truth) if truth.is_complex() else truth
    size = torch.linalg.vector_norm(parts).item()
    return torch.linalg.vector_norm(_unit(parts, _real(io_dtype))).item() / math.sqrt(12) / size if size else 0.0


def bound(io_dtype: torch.dtype, length: int, backend: str = "plain", *, truth: Tensor | None = None) -> float:
    """The largest relative L2 error a result may have.

    - `io_dtype`: the dtype of the result itself (a float32 filter's gradient is float32 although `u` is bfloat16).
    - `length`: samples that meet in one output: L, or L+K-1 for `full`.
    - `backend`: a key of `CONTRACTS`.
    - `truth`: the exact result, float64. 16-bit types only: the bound is then the contract, a multiple of
      `rounding_error(truth)`, or, where 16-bit signals are multiplied as they are and fewer than `FEW` samples differ, of
      `expected_rounding(truth)` if that is more. Without it the bound is what rounding can cost at most (half a unit in the
      last place of every sample), which float16 results below 6e-5 (subnormal) may miss.

    Returns a float (no unit). Raises ArgumentError for a dtype or backend without a bound, or a length below 1.
    Source: the numbers stand, each with its origin, at `CONTRACTS`.
    """
    contract, real = _contract(backend), _real(io_dtype)
    if length < 1:
        raise ArgumentError(f"bound needs a length of at least 1 sample; got {length}: pass L, or L+K-1 for `full`")
    if real == torch.float64:
        return contract.float64_per_root_log * math.sqrt(max(1.0, math.log2(length)))
    arithmetic = contract.float32_short if length <= LONG else contract.float32_long
    if real == torch.float32:
        return arithmetic
    if truth is None:
        # 1.5 is what the contracts of the exact backends allow, and it is covered by the worst case itself: rounding
        # errors are spread evenly below half a unit, 0.43 of the worst case in L2 for N(0,1) data.
        return max(1.0, contract.rounding_factor / 1.5) * 2.0 ** -_BITS[real] + arithmetic
    rounding = rounding_error(truth, io_dtype)
    if contract.multiplies_as_given and truth.to(torch.float32).unique().numel() < FEW:  # repeated ones differ in float64
        rounding = max(rounding, expected_rounding(truth, io_dtype))
    return contract.rounding_factor * rounding + arithmetic


def cancellation_bound(truth: Tensor, norms: Tensor | float, io_dtype: torch.dtype, backend: str) -> Tensor:
    """The largest L2 error of each row that its filter cancels, from operands of 16 bits; 0 for every other row.

    - `truth`: the exact rows, `(..., L)`, float64 or complex128.
    - `norms`: |v| * |k| of what each row, of a result or of a gradient, convolves; float64, broadcastable to those rows.
    - `io_dtype`, `backend`: as in `bound`.

    Returns float64 of shape `truth.shape[:-1]`, in the unit of `truth`. Raises ArgumentError as `bound` does.
    """
    norms = torch.as_tensor(norms, dtype=torch.float64)
    cancelled = torch.linalg.vector_norm(truth.detach(), dim=-1) < _CANCELLED * norms
    return torch.where(cancelled, _operand_part(io_dtype, backend) * norms, 0.0)


def pointwise_bound(truth: Tensor, norms: Tensor | float, io_dtype: torch.dtype, backend: str = "plain") -> Tensor:
    """The largest error of each sample: ulp(y_t)/2 of the stored type plus c * |v| * |k|, c of the arithmetic and its operands.

    - `truth`: float64 or complex128, any shape.
    - `norms`: |v| * |k|, the L2 norms of the two convolved rows, float64, broadcastable to `truth` (`(B, H, 1)` for
      `(B, H, L)`). With gates multiply by |postgate|, with `D` add |D * v|; for a gradient take the norms of what *it*
      convolves.
    - `io_dtype`, `backend`: as in `bound`.

    Returns float64 of `truth`'s shape, in the unit of `truth`. Raises ArgumentError as `bound` does.
    """
    contract, real = _contract(backend), _real(io_dtype)
    c = contract.pointwise_float32 * (2.0**-29 if real == torch.float64 else 1.0) + _operand_part(io_dtype, backend) / 2
    return 0.5 * _unit(truth, real) + c * torch.as_tensor(norms, dtype=torch.float64)


def _unit(truth: Tensor, real: torch.dtype) -> Tensor:
    """The unit in the last place of each sample as a number of this type."""
    finest = torch.finfo(real).smallest_normal * 2.0 ** (1 - _BITS[real])  # the spacing below the normal numbers
    magnitude = truth.detach().abs().to(torch.float64)
    _, exponent = torch.frexp(magnitude)  # magnitude = m * 2**exponent with m in [1/2, 1)
    return torch.where(magnitude > 0, torch.ldexp(torch.ones_like(magnitude), exponent - _BITS[real]), 0.0).clamp_min(finest)


def _operand_part(io_dtype: torch.dtype, backend: str) -> float:
    """`operand_rounding` in parts of |v|*|k|; 0 for types of more than 16 bits."""
    contract, real = _contract(backend), _real(io_dtype)
    return contract.operand_rounding * 2.0 ** -_BITS[real] if real.itemsize == 2 else 0.0


def _contract(backend: str) -> Contract:
    if backend not in CONTRACTS:
        raise ArgumentError(f"no error bound is written for backend {backend!r}; there are {', '.join(CONTRACTS)}: add one")
    return CONTRACTS[backend]


def _real(dtype: torch.dtype) -> torch.dtype:
    real = _REAL.get(dtype, dtype)
    if real not in _BITS:
        raise ArgumentError(f"no error bound is written for {dtype}; there are {', '.join(map(str, [*_BITS, *_REAL]))}")
    return real
