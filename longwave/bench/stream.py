"""Streams: steps beside the direct sum over a cache, chunks beside one full call, generation at growing contexts, a reverb.

Everything is right first: each stream's results are held against the truth of the bench at the shape that is timed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

import longwave
from longwave import backends as engines
from longwave.bench.timer import MIN_ROUNDS
from longwave.bench.tolerances import CONTRACTS, relative_l2
from longwave.errors import ArgumentError, DataError
from longwave.planner import schedule

SCHEMA, SUFFIX = "longwave stream 2", "stream"
T, H = 65_536, 256
CHUNKS, WIDTHS = (4_096, 1_024, 256), (8, 64, 256)
CONTEXTS = (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
# Channels at a context: as many as fit into a few GiB with everything that is held.
MANY, FEW, FEW_FROM = 256, 32, 262_144
PASSES = 3
STEPS = 2_000  # at least; else as many as the largest block has samples
# A hall's response of 2.35 s, in stereo, by blocks as a sound card asks for them.
RATE, HALL, AUDIO_BLOCK, AUDIO_SECONDS = 48_000, 112_561, 128, 10


def about() -> dict[str, Any]:
    """What every row has in common."""
    return {"B": 1, "dtype": "float32", "threads": torch.get_num_threads()}


@dataclass(frozen=True)
class Steps:
    """T steps from nothing under a filter of T taps, in PASSES passes: the total of the fastest in seconds, its steps in
    microseconds, and the total of a direct sum over cached inputs, measured at positions apart and added up. A step that waits
    for another process is slow in one pass, one with much to do in all of them: `slowest_always_us` is the slowest when each
    step counts with its least time.
    """

    backend: str
    samples: int
    channels: int
    total_s: float
    median_us: float
    p99_us: float
    p999_us: float
    slowest_us: float
    slowest_always_us: float
    direct_total_s: float
    nbytes: int
    error: float

    @property
    def line(self) -> str:
        return (
            f"{self.backend:<6s} {self.samples:,} steps, H={self.channels}: {self.total_s:.2f} s, "
            f"median {self.median_us:.1f} us, 99 % {self.p99_us:.0f}, 99.9 % {self.p999_us:.0f}, slowest {self.slowest_us:.0f} "
            f"({self.slowest_us / self.median_us:.0f} x; in all passes {self.slowest_always_us:.0f}, "
            f"{self.slowest_always_us / self.median_us:.0f} x); direct cached sum {self.direct_total_s:.0f} s "
            f"({self.direct_total_s / self.total_s:.0f} x); {self.nbytes / 2**20:,.0f} MiB; error {self.error:.1e}"
        )


@dataclass(frozen=True)
class Chunks:
    """Chunks of one length under a filter of T taps, beside one call of `long_conv` over T samples: nanoseconds a sample and
    channel, the best of the rounds."""

    backend: str
    channels: int
    chunk: int
    ns: float
    full_ns: float
    error: float
    raw_seconds: list[float]

    @property
    def line(self) -> str:
        return (
            f"{self.backend:<6s} extend by {self.chunk:<6,d} H={self.channels:<4d} {self.ns:7.2f} ns a sample, one full call "
            f"{self.full_ns:.2f}: {self.full_ns / self.ns:.0%} of its throughput, error {self.error:.1e}"
        )


@dataclass(frozen=True)
class Generation:
    """Steps a second at a context: of a stream, of one that convolves everything anew, and of a direct sum over a cache."""

    backend: str
    channels: int
    context: int
    steps_a_second: float
    recomputing: float
    direct: float
    nbytes: int

    @property
    def line(self) -> str:
        return (
            f"{self.backend:<6s} context {self.context:<10,d}H={self.channels:<4d}{self.steps_a_second:>9,.0f} steps/s; "
            f"recomputing {self.recomputing:,.1f} ({self.steps_a_second / self.recomputing:,.0f} x), "
            f"direct cached sum {self.direct:,.1f} ({self.steps_a_second / self.direct:,.1f} x); {self.nbytes / 2**20:,.0f} MiB"
        )


@dataclass(frozen=True)
class Reverb:
    """A stereo signal through a hall's response in real time, on one thread: the share of a core, and the slowest block (as in
    `Steps`)."""

    backend: str
    taps: int
    block: int
    share: float
    slowest_share: float
    slowest_always_share: float
    error: float

    @property
    def line(self) -> str:
        return (
            f"{self.backend:<6s} reverb of {self.taps:,} taps, stereo at {RATE / 1000:g} kHz in blocks of {self.block}: "
            f"{self.share:.1%} of one core, the slowest block {self.slowest_share:.0%} of its time, "
            f"in all passes {self.slowest_always_share:.0%}, error {self.error:.1e}"
        )


Row = Steps | Chunks | Generation | Reverb


def measure(backends: Sequence[str], rounds: int, seconds: float) -> Iterator[Row]:
    """Every row. Raises DataError where a result is outside of its bound, ArgumentError where nothing is left to measure."""
    del seconds  # a stream's rounds are whole passes
    # `plain` would take hours over so many steps.
    able = [name for name in backends if name != "plain" and engines.load(name).STREAMS]
    if not able:
        raise ArgumentError(f"--stream does not measure {' or '.join(backends)}, whose steps take too long; name --backend cpu")
    for backend in able:
        yield _steps(backend)
        for width in WIDTHS:
            for chunk in CHUNKS:
                yield _chunks(backend, width, chunk, max(MIN_ROUNDS, rounds))
        for context in CONTEXTS:
            yield _generation(backend, context)
        yield _reverb(backend)


def _filters(channels: int, taps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    k = torch.randn(channels, taps, generator=generator) / taps**0.5
    return k, torch.randn(channels, generator=generator)


def _error(y: Tensor, u: Tensor, k: Tensor, D: Tensor, backend: str) -> float:
    """Of a few channels, against float64. Raises DataError beyond the bound."""
    some = torch.linspace(0, u.shape[1] - 1, min(4, u.shape[1])).long()
    truth = longwave.long_conv(u[:, some].double(), k[some].double(), D[some].double(), backend="plain")
    error = relative_l2(y[:, some], truth)
    if error > CONTRACTS[backend].float32_short:
        raise DataError(f"backend {backend} streams wrongly (error {error:.1e}): nothing is measured")
    return error


def _direct_seconds(k: Tensor, position: int) -> float:
    """One step as a sum over the cached inputs, the best of a few; `bmm` is the fastest way to it (einsum takes 1.6 times as
    long, a product and its sum 3 times)."""
    cache, flipped = torch.randn(k.shape[0], 1, position), k[:, :position].flip(-1).unsqueeze(-1)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.bmm(cache, flipped)
        best = min(best, time.perf_counter() - start)
    return best


def _passes(
    opened: Callable[[], longwave.Stream], call: Callable[[longwave.Stream, Tensor], Tensor], inputs: Sequence[Tensor]
) -> tuple[list[list[float]], list[Tensor], int]:
    """The seconds of every call in PASSES passes, each of a stream of its own; results, and the bytes that a stream held."""
    passes: list[list[float]] = []
    results: list[Tensor] = []
    nbytes = 0
    # Python's garbage collector walks all results so far every some hundred of them: milliseconds that are no call's.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(PASSES):
            stream, times, results = opened(), [], []
            for x in inputs:
                start = time.perf_counter()
                y = call(stream, x)
                times.append(time.perf_counter() - start)
                results.append(y)
            passes.append(times)
            nbytes = stream.nbytes
    finally:
        if collecting:
            gc.enable()
    return passes, results, nbytes


def _slowest_always(passes: list[list[float]]) -> float:
    """The slowest call when each counts with its least time: what it does, and not what it waits for."""
    return max(map(min, zip(*passes, strict=True)))


def _steps(backend: str) -> Steps:
    k, D = _filters(H, T)
    u = torch.randn(1, H, T)
    inputs = list(u.permute(2, 0, 1).contiguous())
    longwave.Stream(k, D, batch_size=1, backend=backend).step(inputs[0])  # compiled, before anything is timed
    passes, y, nbytes = _passes(
        lambda: longwave.Stream(k, D, batch_size=1, max_length=T, backend=backend), longwave.Stream.step, inputs
    )
    positions = torch.linspace(1, T, 33).long().tolist()
    direct = [_direct_seconds(k, position) for position in positions]
    fastest = min(passes, key=sum)
    ordered = [1e6 * t for t in sorted(fastest)]
    return Steps(
        backend=backend,
        samples=T,
        channels=H,
        total_s=sum(fastest),
        median_us=median(ordered),
        p99_us=ordered[T * 99 // 100],
        p999_us=ordered[T * 999 // 1000],
        slowest_us=ordered[-1],
        slowest_always_us=1e6 * _slowest_always(passes),
        direct_total_s=sum(direct) / len(direct) * T,
        nbytes=nbytes,
        error=_error(torch.stack(y, dim=-1), u, k, D, backend),
    )


def _chunks(backend: str, width: int, chunk: int, rounds: int) -> Chunks:
    k, D = _filters(width, T)
    u = torch.randn(1, width, T)
    stream = longwave.Stream(k, D, batch_size=1, backend=backend)
    error = _error(torch.cat([stream.extend(x) for x in u.split(chunk, dim=-1)], dim=-1), u, k, D, backend)
    # The stream has met as many samples as it has taps: from here on every four blocks of the largest level cost the same.
    count, times, full = max(1, 4 * schedule(T).grain // chunk), [], []
    for _ in range(rounds):
        start = time.perf_counter()
        longwave.long_conv(u, k, D, backend=backend)
        full.append(time.perf_counter() - start)
        parts = u[..., : count * chunk].split(chunk, dim=-1)
        start = time.perf_counter()
        for x in parts:
            stream.extend(x)
        times.append(time.perf_counter() - start)
    ns = 1e9 / width
    return Chunks(backend, width, chunk, min(times) * ns / (count * chunk), min(full) * ns / T, error, times)


def _generation(backend: str, context: int) -> Generation:
    channels = FEW if context >= FEW_FROM else MANY
    # What is pending after a prompt was made with the first step: the block after that one pays for itself.
    grain = schedule(4 * context).grain
    steps = -(-STEPS // grain) * grain
    k, D = _filters(channels, context + grain + steps)
    prompt = torch.randn(1, channels, context)
    stream = longwave.Stream(k, D, batch_size=1, max_length=k.shape[1], backend=backend)
    stream.prefill(prompt)
    x = torch.randn(1, channels)
    for _ in range(grain):
        stream.step(x)
    start = time.perf_counter()
    for _ in range(steps):
        stream.step(x)
    seconds = (time.perf_counter() - start) / steps
    again = []
    for _ in range(3):
        start = time.perf_counter()
        longwave.long_conv(prompt, k[:, :context], D, backend=backend)
        again.append(time.perf_counter() - start)
    return Generation(backend, channels, context, 1 / seconds, 1 / min(again), 1 / _direct_seconds(k, context), stream.nbytes)


def _reverb(backend: str) -> Reverb:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        k, D = _filters(2, HALL)
        u = torch.randn(1, 2, AUDIO_SECONDS * RATE // AUDIO_BLOCK * AUDIO_BLOCK)
        passes, y, _ = _passes(
            lambda: longwave.Stream(k, D, batch_size=1, max_length=u.shape[-1], backend=backend),
            longwave.Stream.extend,
            u.split(AUDIO_BLOCK, dim=-1),
        )
        error = _error(torch.cat(y, dim=-1), u, k, D, backend)
    finally:
        torch.set_num_threads(threads)
    allowed = AUDIO_BLOCK / RATE
    fastest = min(passes, key=sum)
    share, slowest, always = sum(fastest) / len(fastest), max(fastest), _slowest_always(passes)
    return Reverb(backend, HALL, AUDIO_BLOCK, share / allowed, slowest / allowed, always / allowed, error)
