"""Turns, rounds, repeats and statistics, on a clock that the test winds."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch

from longwave.bench.memory import peak_extra_bytes
from longwave.bench.timer import MAX_ROUNDS, READING_SECONDS, Spread, WallTimer, alternate, ratio, timer_for
from longwave.errors import ArgumentError


class Clock:
    """Stands still but for the calls that move it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.order = ""

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        turns = iter(seconds)
        last = seconds[-1]

        def run() -> None:
            self.now += next(turns, last)
            self.order += name

        return run


def test_contestants_take_turns_after_a_warm_up() -> None:
    clock = Clock()
    # Two calls of warm-up, the first of them slow as a first call is, then five rounds.
    calls = {"A": clock.call("A", 9.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0), "B": clock.call("B", 0.5)}
    readings = alternate(calls, WallTimer(clock=clock))
    assert clock.order == "AABB" + "AB" * 5
    assert readings["A"] == pytest.approx([1, 2, 3, 4, 5])
    assert readings["B"] == pytest.approx([0.5] * 5)


def test_short_calls_are_repeated_within_a_reading() -> None:
    clock = Clock()
    readings = alternate({"A": clock.call("A", READING_SECONDS / 10)}, WallTimer(clock=clock))
    assert readings["A"] == pytest.approx([READING_SECONDS / 10] * 5)
    assert len(clock.order) in (2 + 5 * 10, 2 + 5 * 11)  # the clock's own rounding decides


def test_the_budget_adds_rounds_but_never_takes_the_first_away() -> None:
    clock = Clock()
    assert len(alternate({"A": clock.call("A", 1.0)}, WallTimer(clock=clock), seconds=0.0)["A"]) == 5
    assert len(alternate({"A": clock.call("A", 1.0)}, WallTimer(clock=clock), seconds=12.0)["A"]) == 10  # 2 of warm-up
    assert len(alternate({"A": clock.call("A", 1.0)}, WallTimer(clock=clock), rounds=7)["A"]) == 7
    assert len(alternate({"A": clock.call("A", 1.0)}, WallTimer(clock=clock), seconds=1e9)["A"]) == MAX_ROUNDS


def test_the_collector_rests_while_timing_and_wakes_after_an_error() -> None:
    seen = []
    alternate({"A": lambda: seen.append(gc.isenabled())}, WallTimer())
    assert not any(seen)
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        alternate({"A": lambda: 1 / 0}, WallTimer())
    assert gc.isenabled()


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(ArgumentError, match="rounds=4 is too few"):
        alternate({}, WallTimer(), rounds=4)


def test_spread_and_ratio_by_hand() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(median=3.0, low=1.0, high=5.0, iqr=2.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 0.0)
    # Round by round: 2, 2, 8. The medians alone (2 and 4) would say the same, the means would not.
    assert ratio([1.0, 2.0, 4.0], [2.0, 4.0, 32.0]) == 2.0
    # A machine that slows down in the middle leaves each round's ratio alone.
    assert ratio([1.0, 1.0, 50.0], [3.0, 3.0, 150.0]) == 3.0


def test_the_timer_waits_for_the_device() -> None:
    waits: list[int] = []
    timer = WallTimer(lambda: waits.append(1))
    timer.seconds(lambda: None, 3)
    assert len(waits) == 2


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ArgumentError, match="--device abacus is not on this machine"):
        timer_for("abacus")
    with pytest.raises(ArgumentError, match="--device cuda:1 is one of several; use cuda, and CUDA_VISIBLE_DEVICES"):
        timer_for("cuda:1")


def test_peak_memory_is_what_a_call_takes() -> None:
    """64 MiB at the peak, of which 16 MiB come back as the result."""

    def call() -> torch.Tensor:
        large = torch.ones(3 * 2**22)
        return large[: 2**22].clone()

    call()
    found = peak_extra_bytes(call)
    if found is None:
        pytest.skip("this system does not tell the peak of a process's memory")
    assert 0.9 * 2**26 < found < 1.2 * 2**26
    small = peak_extra_bytes(lambda: None)
    assert small is not None
    assert small < 2**22
