"""Timing: contestants take turns in one process, so that whatever slows the machine down slows all of them."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from longwave.errors import ArgumentError

MIN_ROUNDS = 5
MAX_ROUNDS = 100
# A much shorter call is repeated within one reading: the clock and the loop then cost below a tenth of a percent.
READING_SECONDS = 2e-3


class Timer(Protocol):
    """How seconds are read on a device."""

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        """Seconds per call over `repeats` calls."""

    def now(self) -> float:
        """Seconds since some fixed moment, for the budget."""


@dataclass(frozen=True)
class WallTimer:
    """Reads a clock around the calls, waiting for the device before each reading."""

    synchronize: Callable[[], None] | None = None
    clock: Callable[[], float] = time.perf_counter

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        start = self.now()
        result = None
        for _ in range(repeats):
            result = call()
        stop = self.now()
        del result  # given back after the clock has stopped
        return (stop - start) / repeats

    def now(self) -> float:
        if self.synchronize is not None:
            self.synchronize()
        return self.clock()


@dataclass(frozen=True)
class EventTimer:
    """Reads the device's own clock: an event before the calls and one behind them, in their stream.

    - `event`: makes a `torch.cuda.Event` that keeps time. `synchronize`: waits for the device.
    """

    event: Callable[[], Any]
    synchronize: Callable[[], None]
    clock: Callable[[], float] = time.perf_counter

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        start, stop = self.event(), self.event()
        self.synchronize()
        start.record()
        for _ in range(repeats):
            call()
        stop.record()
        self.synchronize()
        milliseconds: float = start.elapsed_time(stop)
        return milliseconds / 1e3 / repeats

    def now(self) -> float:
        self.synchronize()
        return self.clock()


def timer_for(device: str) -> Timer:
    """The timer of a device, of several GPUs the current one. Raises ArgumentError for a device that PyTorch does not have
    here, and for one with an index: events would be recorded on the current one."""
    if device == "cpu":
        return WallTimer()
    if device.startswith("cuda:"):
        raise ArgumentError(f"--device {device} is one of several; use cuda, and CUDA_VISIBLE_DEVICES to say which GPU that is")
    if device == "cuda" and torch.cuda.is_available():
        return EventTimer(lambda: torch.cuda.Event(enable_timing=True), torch.cuda.synchronize)
    raise ArgumentError(f"--device {device} is not on this machine; use cpu, or cuda where PyTorch finds a GPU")


@dataclass(frozen=True)
class Spread:
    """Order statistics of one contestant's rounds; seconds."""

    median: float
    low: float
    high: float
    iqr: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0], 0.0)
        lower, middle, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(middle, min(seconds), max(seconds), upper - lower)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times faster `ours` is: the median over rounds of theirs/ours, each round its own ratio."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def alternate(
    calls: Mapping[str, Callable[[], Any]], timer: Timer, *, rounds: int = MIN_ROUNDS, seconds: float = 0.0
) -> dict[str, list[float]]:
    """Times the calls in turn (A B C, A B C, …) after a warm-up.

    - `rounds`: at least so many. `seconds`: more rounds, to `MAX_ROUNDS`, while the budget lasts.

    Returns seconds per call, one number a round, by name: entry i of each list is from the same round.
    Raises ArgumentError for fewer than MIN_ROUNDS rounds: a median needs them.
    """
    if rounds < MIN_ROUNDS:
        raise ArgumentError(f"rounds={rounds} is too few for a median with its spread; use at least {MIN_ROUNDS}")
    readings: dict[str, list[float]] = {name: [] for name in calls}
    started = timer.now()
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would land on whoever runs when it is due
    try:
        repeats = {name: _warm_up(call, timer) for name, call in calls.items()}
        for done in range(max(rounds, MAX_ROUNDS)):
            if done >= rounds and timer.now() - started >= seconds:
                break
            for name, call in calls.items():
                readings[name].append(timer.seconds(call, repeats[name]))
    finally:
        if collecting:
            gc.enable()
    return readings


def _warm_up(call: Callable[[], Any], timer: Timer) -> int:
    """Runs the call until it is warm, and finds how often it must be repeated for one reading."""
    timer.seconds(call, 1)
    once = timer.seconds(call, 1)
    return max(1, math.ceil(READING_SECONDS / max(once, 1e-7)))
