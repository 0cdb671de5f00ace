"""Properties over all options at once: random cases against the direct sum, linearity, causality, isolation."""

from __future__ import annotations

import pytest
import torch
from arguments import Case, backends_here, compare
from devices import here, randn
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from random_cases import cases

import longwave
from longwave.errors import UnsupportedError


def _compare(case: Case, backend: str) -> None:
    try:
        compare(case, backend)
    except UnsupportedError:
        reject()


@pytest.mark.parametrize("backend", backends_here())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_any_combination_of_options_equals_the_direct_sum(backend: str, case: Case) -> None:
    _compare(case, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("block", range(5))
@settings(max_examples=500, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_thousands_of_combinations_equal_the_direct_sum(block: int, backend: str, case: Case) -> None:
    """With those of the `cpu` engine, ten thousand cases. One that fails is printed as `Case(…)`: `@example` runs it again."""
    _compare(case, backend)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 300), st.integers(1, 300), st.integers(0, 10**6))
def test_causal_changes_nothing_before_and_something_after(L: int, K: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = randn(1, 2, L, dtype=torch.float64, generator=generator)
    k = randn(2, K, dtype=torch.float64, generator=generator)
    t = int(torch.randint(L, (1,), generator=generator))
    changed = u.clone()
    changed[..., t] += 100.0
    difference = (longwave.long_conv(changed, k) - longwave.long_conv(u, k)).abs()
    assert difference[..., :t].numel() == 0 or difference[..., :t].max() < 1e-9
    assert difference[..., t].max() > 1e-3  # the control: k[0] · 100 is seen
    assert difference[..., t + K :].numel() == 0 or difference[..., t + K :].max() < 1e-9


def test_prefixes_agree_whatever_the_length() -> None:
    """The outputs of the first samples do not depend on how many follow: a rival's do."""
    u, k = randn(1, 3, 700, dtype=torch.float64), randn(3, 900, dtype=torch.float64)
    full = longwave.long_conv(u, k)
    for L in (1, 2, 13, 255, 256, 257, 699):
        torch.testing.assert_close(longwave.long_conv(u[..., :L], k), full[..., :L], rtol=1e-11, atol=1e-11)


def test_chunks_with_history_equal_the_whole() -> None:
    u, k = randn(2, 3, 100, dtype=torch.float64), randn(3, 64, dtype=torch.float64)
    full = longwave.long_conv(u, k)
    for at in (1, 37, 99):
        tail = longwave.long_conv(u[..., at:], k, history=u[..., :at])
        torch.testing.assert_close(tail, full[..., at:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
def test_one_bad_row_stays_in_its_row(bad: float) -> None:
    u, k = randn(3, 4, 50), randn(4, 50)
    clean = longwave.long_conv(u, k)
    u[1, 2, 7] = bad
    y = longwave.long_conv(u, k)
    others = here(torch.ones(3, 4, dtype=torch.bool))
    others[1, 2] = False
    torch.testing.assert_close(y[others], clean[others])
    assert not torch.allclose(y[1, 2], clean[1, 2])


def test_float16_does_not_overflow_inside() -> None:
    """Sums beyond 65,504 on the way to a small result are no trouble for float32 arithmetic."""
    u = here(torch.full((1, 1, 64), 300.0, dtype=torch.float16))
    k = here(torch.full((1, 64), 300.0, dtype=torch.float16))
    k[0, 32:] = -300.0
    y = longwave.long_conv(u, k, postgate=torch.full_like(u, 0.001))
    assert y.isfinite().all()
    assert y.abs().max() > 1000
