"""`short_conv` by the kernels of the Triton backend: the operator's own tests, at sizes an interpreter can take."""

from __future__ import annotations

import pytest
import torch
from arguments import short_conv_ref
from devices import here, ones, randn
from test_short_conv import (
    compare,
    compare_bad_row,
    compare_bits,
    test_chunks_with_state_equal_the_whole,  # noqa: F401
    test_gradients_of_some_arguments_are_those_of_all,  # noqa: F401
    test_is_causal_where_a_rival_sees_one_future_token,  # noqa: F401
)

import longwave
from longwave import backends

# bfloat16 has its rounding from the tensors alone: nothing here is multiplied in less than float32.
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.fixture(autouse=True)
def _by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend runs every call, on whatever device there is."""
    triton = backends.load("triton")
    monkeypatch.setattr(backends, "for_short_conv", lambda device: triton)


@pytest.mark.parametrize(("L", "H", "K"), [(1, 3, 1), (9, 5, 4), (150, 3, 9), (600, 2, 3), (40, 2, 65)])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_values_and_gradients_equal_the_direct_sum(L: int, H: int, K: int, layout: str) -> None:
    compare(L, H, K, layout, torch.float32, "silu")


@pytest.mark.parametrize("activation", [None, "silu", "gelu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients_of_every_dtype(dtype: torch.dtype, activation: str | None) -> None:
    compare(70, 3, 4, "BHL", dtype, activation)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("layout", ["BHL", "BLH"])
def test_a_bad_row_reaches_no_other(bad: float, layout: str) -> None:
    compare_bad_row(3, 40, 5, bad, layout)


def test_values_and_gradients_across_spans() -> None:
    """A filter's gradient is summed over spans of 4,096 samples, each in 64 chains."""
    compare(4096 + 65, 1, 2, "BHL", torch.float32, None)


@pytest.mark.parametrize(("L", "K"), [(1, 3), (70, 5)])
def test_a_row_has_the_same_bits_in_any_company(L: int, K: int) -> None:
    compare_bits(3, L, K, widths=(1,))


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_activations_at_infinity_and_nan(activation: str) -> None:
    x = here(torch.tensor([-float("inf"), -200.0, -90.0, -1e-30, 0.0, 90.0, 1e30, float("inf"), float("nan")]))[None, None]
    one = ones(1, 1)
    y, truth = longwave.short_conv(x, one, activation=activation), short_conv_ref(x, one, activation=activation)
    torch.testing.assert_close(y.double(), truth, rtol=1e-6, atol=1e-30, equal_nan=True)


def test_samples_far_apart_and_repeated() -> None:
    """Any strides: of 0, and with other samples in between."""
    w = randn(4, 3)
    row = randn(1, 1, 20)
    assert torch.equal(longwave.short_conv(row.expand(2, 4, 20), w), longwave.short_conv(row.repeat(2, 4, 1), w))
    wide = here(torch.full((2, 9, 50), float("nan")))
    wide[:, 1::2, 3:43:2] = randn(2, 4, 20)
    x = wide[:, 1::2, 3:43:2]
    assert torch.equal(longwave.short_conv(x, w), longwave.short_conv(x.contiguous(), w))
