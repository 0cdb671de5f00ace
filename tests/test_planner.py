"""Placements and plans: integers that can be checked without a transform."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import longwave
from longwave import backends
from longwave.planner import next_fast_len, place


def test_next_fast_len_is_the_smallest_smooth_number() -> None:
    def smooth(n: int) -> bool:
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    for n in (*range(1, 700), 14113, 28225, 2**20 - 1, 2**20 + 1):
        found = next_fast_len(n)
        assert found >= n
        assert smooth(found)
        assert not any(smooth(m) for m in range(n, found))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(-20, 20), st.integers(1, 20), st.integers(-20, 20), st.integers(1, 20), st.integers(-30, 30), st.integers(1, 30)
)
def test_a_placement_is_free_of_wrap_around(
    in_start: int, in_len: int, out_start: int, out_len: int, lag: int, taps: int
) -> None:
    at = place(in_start, in_len, out_start, out_len, lag, lag + taps - 1, False)
    wanted = {
        (t, i)
        for t in range(out_start, out_start + out_len)
        for i in range(in_start, in_start + in_len)
        if lag <= t - i < lag + taps
    }
    if at.empty:
        assert not wanted
        return
    kept = {(at.lag + s) % at.N for s in range(at.tap_stop - at.tap_start)}
    reached = {
        (t, i)
        for t in range(out_start, out_start + out_len)
        for i in range(in_start, in_start + in_len)
        if (at.out_at + t - out_start - at.in_at - i + in_start) % at.N in kept
    }
    assert reached == wanted
    assert at.in_at + in_len <= at.N
    assert at.out_at + out_len <= at.N


def test_any_length_at_its_own_cost() -> None:
    """14,113 samples take a transform of their own size, not of the next power of two."""
    assert next_fast_len(2 * 14113 - 1) == 28800
    assert longwave.plan((1, 1, 14113), (1, 14113), backend="plain").N == 28800
    assert next_fast_len(14113 + 99) == longwave.plan((1, 1, 14113), (1, 100), backend="plain").N
    assert longwave.plan((1, 1, 14400), (1, 14400), mode="circular", backend="plain").N == 14400


def test_a_plan_explains_itself_and_says_what_it_holds() -> None:
    options = {"D": True, "pregate": True, "dtype": torch.bfloat16, "history": 5, "backend": "plain"}
    plan = longwave.plan((4, 768, 4096), (768, 4096), **options)
    text = str(plan)
    for part in (
        "B=4 H=768 L=4,096",
        "bfloat16",
        "lags 0 … 4,095",
        "skip, pregate, history of 5",
        "plain",
        "N = 8,192",
        "24 MiB",
    ):
        assert part in text
    assert plan.result_bytes == 4 * 768 * 4096 * 2
    assert plan.bytes == plan.result_bytes + plan.scratch_bytes
    assert plan.predicted_ms is not None
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan == longwave.plan((4, 768, 4096), (768, 4096), **options)
    assert hash(plan.problem) == hash(longwave.plan((4, 768, 4096), (768, 4096), **options).problem)


@pytest.mark.parametrize(
    "kwargs", [{"mode": "full", "postgate": True}, {"cu_seqlens": (0, 100, 1000)}, {"k_rev_shape": (1, 77)}]
)
def test_plans_of_every_kind_print(kwargs: dict) -> None:
    for layout, u_shape in (("BHL", (1, 6, 1000)), ("BLH", (1, 1000, 6)), ("BHL", (6, 1000))):
        assert "long convolution of B=1 H=6 L=1,000" in str(longwave.plan(u_shape, (6, 300), layout=layout, **kwargs))


def test_backends_are_found_by_being_there() -> None:
    assert "plain" in backends.names()
    assert backends.available()["plain"] is None
    for name in backends.names():
        backend = backends.load(name)
        for part in ("PRIORITY", "missing", "refuses", "passes", "plan", "forward", "backward", "prepare", "spectrum_tag"):
            assert hasattr(backend, part), f"backend {name} lacks {part}"
