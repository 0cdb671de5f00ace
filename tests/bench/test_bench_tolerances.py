"""The error measures: what is zero, what is infinite, and what a right rounding costs."""

from __future__ import annotations

import math

import pytest
import torch

from longwave.bench.tolerances import (
    CONTRACTS,
    FEW,
    LONG,
    bound,
    cancellation_bound,
    expected_rounding,
    pointwise_bound,
    relative_l2,
    rounding_error,
)
from longwave.errors import ArgumentError

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def test_relative_l2_by_hand() -> None:
    truth = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    got = torch.tensor([[3.0, 4.5], [0.0, 0.5]])
    assert relative_l2(got, truth) == pytest.approx(math.sqrt(0.5 / 26))
    assert relative_l2(got, truth, dim=-1) == pytest.approx(0.5)  # the worst row, which the louder one hides above
    assert relative_l2(torch.zeros(2, 2), truth) == 1.0
    assert relative_l2(torch.tensor([1j]), torch.tensor([2j], dtype=torch.complex128)) == pytest.approx(0.5)


def test_relative_l2_of_zero_truth_and_of_what_is_not_finite() -> None:
    zero, one = torch.zeros(3), torch.ones(3, dtype=torch.float64)
    assert relative_l2(zero, zero) == 0.0
    assert relative_l2(torch.empty(0), torch.empty(0)) == 0.0
    assert relative_l2(one, zero) == math.inf
    for bad in (math.nan, math.inf):
        got = one.clone()
        got[1] = bad
        assert relative_l2(got, one) == math.inf
        assert relative_l2(got, got) == math.inf


def test_relative_l2_does_not_broadcast() -> None:
    with pytest.raises(ArgumentError, match="equal shapes"):
        relative_l2(torch.zeros(1, 3), torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_rounding_is_within_every_bound_and_a_sloppy_one_is_not(dtype: torch.dtype) -> None:
    truth = torch.randn(4, 1_000, dtype=torch.float64)
    rounded = truth.to(dtype)
    for backend in CONTRACTS:
        for limit in (bound(dtype, 1_000, backend), bound(dtype, 1_000, backend, truth=truth)):
            assert relative_l2(rounded, truth) <= limit
            assert not relative_l2(torch.zeros_like(rounded), truth) <= limit
    error = (rounded.double() - truth).abs()
    assert (error <= pointwise_bound(truth, 0.0, dtype)).all()
    if dtype != torch.float64:
        coarser = (truth.to(dtype) * (1 + 2 * torch.finfo(dtype).eps)).to(dtype)
        assert ((coarser.double() - truth).abs() > pointwise_bound(truth, 0.0, dtype)).any()


def test_16_bit_bounds_follow_the_truth_down_to_subnormal_numbers() -> None:
    truth = torch.randn(1_000, dtype=torch.float64) * 1e-7
    assert rounding_error(truth, torch.float16) > 0.1
    assert relative_l2(truth.half(), truth) <= bound(torch.float16, 1_000, truth=truth)
    assert ((truth.half().double() - truth).abs() <= pointwise_bound(truth, 0.0, torch.float16)).all()
    assert (pointwise_bound(torch.zeros(1), 2.0, torch.float32) > 1e-6).all()  # the arithmetic's share alone


def test_few_samples_are_held_to_what_rounding_is_expected_to_cost() -> None:
    """And not to the luck of one that is next to a number of the type; of ordinary rows no bound is looser."""
    lucky = torch.full((1,), 1.0 + 2.0**-30, dtype=torch.float64)
    half = torch.float16
    assert rounding_error(lucky, half) < 1e-8
    assert expected_rounding(lucky, half) == pytest.approx(2.0**-10 / math.sqrt(12))
    assert 1e-3 < bound(half, 1, "triton", truth=lucky) < 5 * 2.0**-11
    repeated = (lucky * (1 + 2.0**-52 * torch.arange(3))).repeat(100)
    assert bound(half, 1, "triton", truth=repeated) == pytest.approx(bound(half, 1, "triton", truth=lucky))
    for exact in ("cpu", "plain"):  # what is rounded once has the same luck
        assert bound(half, 1, exact, truth=lucky) < 2e-6
    assert bound(half, 1, "triton", truth=torch.zeros(1, dtype=torch.float64)) < 1e-5
    assert expected_rounding(1j * lucky.to(torch.complex128), half) == pytest.approx(expected_rounding(lucky, half), rel=1e-3)
    for samples in (FEW, 1000):
        row = torch.randn(samples, dtype=torch.float64)
        assert bound(half, samples, "triton", truth=row) == 5 * rounding_error(row, half) + 1e-6
        assert expected_rounding(row, half) == pytest.approx(rounding_error(row, half), rel=0.35)
    for _ in range(20):  # the actual error where it is more: an exact result that is rounded once passes
        one = torch.randn(1, dtype=torch.float64)
        assert relative_l2(one.to(half), one) <= bound(half, 1, "cpu", truth=one)


def test_bounds_grow_with_length_and_tighten_with_the_engine() -> None:
    assert bound(torch.float32, LONG) < bound(torch.float32, LONG + 1)
    assert bound(torch.float64, 2) < bound(torch.float64, 2**20)
    assert bound(torch.float32, 2**20, "cpu") == 4e-7
    assert bound(torch.complex64, 100) == bound(torch.float32, 100)


def test_only_a_cancelled_row_of_16_bit_operands_gets_more_than_rounding() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4]], dtype=torch.float64)  # of norms 10: half of it, a twentieth of it
    assert cancellation_bound(rows, 10.0, torch.float16, "triton").tolist() == [0.0, 4 * 2**-11 * 10]
    assert not cancellation_bound(rows, 10.0, torch.float32, "triton").any()
    assert not cancellation_bound(rows, 10.0, torch.bfloat16, "cpu").any()


def test_bound_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ArgumentError, match="backend 'abacus'"):
        bound(torch.float32, 10, "abacus")
    with pytest.raises(ArgumentError, match=r"torch\.int32"):
        bound(torch.int32, 10)
    with pytest.raises(ArgumentError, match="at least 1"):
        bound(torch.float32, 0)
