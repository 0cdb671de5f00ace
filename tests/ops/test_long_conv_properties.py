"""Properties over all options at once: random cases against the direct sum, linearity, causality, isolation."""

from __future__ import annotations

import pytest
import torch
from arguments import Case, arguments, backends_here, check, floating, truth_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import longwave
from longwave.errors import UnsupportedError
from longwave.masks import FrequencyMask
from longwave.problem import MODES


@st.composite
def cases(draw: st.DrawFn) -> Case:
    mode = draw(st.sampled_from(sorted(MODES)))
    allowed = MODES[mode]
    L, K = draw(st.integers(1, 40)), draw(st.integers(1, 50))
    packed = allowed.cu_seqlens and draw(st.booleans())
    documents = None
    if packed:
        cuts = sorted(draw(st.lists(st.integers(0, L), max_size=5)))
        documents = (0, *cuts, L)
    batched = draw(st.booleans())
    dtype = draw(
        st.sampled_from([torch.float64, torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex128])
    )
    filters = ["channel", "shared", "group"] + ["sample"] * batched
    low, width = draw(st.floats(0, 0.4)), draw(st.floats(0.3, 0.5))
    bands = FrequencyMask.from_bands([(low, min(0.5, low + width))], leaks_future=True)
    # Even a grid of one or two frequencies keeps something of it: |f| = 1/8, 1/4 and 3/8, or 0 and 1/2.
    whole = FrequencyMask.from_bands([(0.0, 0.26)], leaks_future=True)
    return Case(
        mask=draw(st.sampled_from([None, None, whole if documents is None else bands])),
        mode=mode,
        B=1 if packed or not batched else draw(st.integers(1, 3)),
        H=draw(st.sampled_from([2, 4, 6])),
        L=L,
        K=K,
        filters=draw(st.sampled_from(filters)),
        K_rev=draw(st.integers(0, 30)) if allowed.k_rev else 0,
        P=draw(st.integers(0, 30)) if allowed.history else 0,
        documents=documents,
        D=draw(st.booleans()),
        pregate=draw(st.booleans()),
        postgate=draw(st.booleans()),
        layout=draw(st.sampled_from(["BHL", "BLH"])),
        batched=batched,
        strides=draw(st.sampled_from(["contiguous", "cut", "expanded", "reversed_axes"])),
        dtype=dtype,
        filter_dtype=draw(st.sampled_from([None, torch.float32])),
        seed=draw(st.integers(0, 1000)),
    )


def _agrees(case: Case, backend: str) -> None:
    kwargs = arguments(case)
    try:
        y = longwave.long_conv(**kwargs, backend=backend)
    except UnsupportedError:
        return  # refused in a sentence, which is no wrong answer
    truth = truth_of(kwargs)
    # A one-sample result may cancel: the bound is relative to the row, so give it rows to be relative to.
    if truth.abs().max() > 1e-2 and truth.numel() >= 16:
        check(y.detach(), truth.detach(), case, "y")
    else:
        assert (y - truth).abs().max() <= 0.05
    inputs = floating(kwargs)
    if case.dtype.itemsize < 8:
        return
    dy = torch.randn(truth.shape, dtype=truth.dtype)
    got = torch.autograd.grad(y, list(inputs.values()), dy)
    want = torch.autograd.grad(truth, list(inputs.values()), dy, materialize_grads=True)
    for name, a, b in zip(inputs, got, want, strict=True):
        rtol = 1e-10 if a.dtype.itemsize >= 8 else 1e-5  # a float32 filter beside a float64 signal
        scale = max(1.0, b.abs().max().item())
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n} in {case}: {m}")


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(["auto", *backends_here()]))
def test_any_combination_of_options_equals_the_direct_sum(case: Case, backend: str) -> None:
    _agrees(case, backend)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from(["auto", *backends_here()]))
def test_thousands_of_combinations_equal_the_direct_sum(case: Case, backend: str) -> None:
    _agrees(case, backend)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 300), st.integers(1, 300), st.integers(0, 10**6))
def test_causal_changes_nothing_before_and_something_after(L: int, K: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(1, 2, L, dtype=torch.float64, generator=generator)
    k = torch.randn(2, K, dtype=torch.float64, generator=generator)
    t = int(torch.randint(L, (1,), generator=generator))
    changed = u.clone()
    changed[..., t] += 100.0
    difference = (longwave.long_conv(changed, k) - longwave.long_conv(u, k)).abs()
    assert difference[..., :t].numel() == 0 or difference[..., :t].max() < 1e-9
    assert difference[..., t].max() > 1e-3  # the control: k[0] · 100 is seen
    assert difference[..., t + K :].numel() == 0 or difference[..., t + K :].max() < 1e-9


def test_prefixes_agree_whatever_the_length() -> None:
    """The outputs of the first samples do not depend on how many follow: a rival's do."""
    u, k = torch.randn(1, 3, 700, dtype=torch.float64), torch.randn(3, 900, dtype=torch.float64)
    full = longwave.long_conv(u, k)
    for L in (1, 2, 13, 255, 256, 257, 699):
        torch.testing.assert_close(longwave.long_conv(u[..., :L], k), full[..., :L], rtol=1e-11, atol=1e-11)


def test_chunks_with_history_equal_the_whole() -> None:
    u, k = torch.randn(2, 3, 100, dtype=torch.float64), torch.randn(3, 64, dtype=torch.float64)
    full = longwave.long_conv(u, k)
    for at in (1, 37, 99):
        tail = longwave.long_conv(u[..., at:], k, history=u[..., :at])
        torch.testing.assert_close(tail, full[..., at:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e20])
def test_one_bad_row_stays_in_its_row(bad: float) -> None:
    u, k = torch.randn(3, 4, 50), torch.randn(4, 50)
    clean = longwave.long_conv(u, k)
    u[1, 2, 7] = bad
    y = longwave.long_conv(u, k)
    others = torch.ones(3, 4, dtype=torch.bool)
    others[1, 2] = False
    torch.testing.assert_close(y[others], clean[others])
    assert not torch.allclose(y[1, 2], clean[1, 2])


def test_float16_does_not_overflow_inside() -> None:
    """Sums beyond 65,504 on the way to a small result are no trouble for float32 arithmetic."""
    u = torch.full((1, 1, 64), 300.0, dtype=torch.float16)
    k = torch.full((1, 64), 300.0, dtype=torch.float16)
    k[0, 32:] = -300.0
    y = longwave.long_conv(u, k, postgate=torch.full_like(u, 0.001))
    assert y.isfinite().all()
    assert y.abs().max() > 1000
