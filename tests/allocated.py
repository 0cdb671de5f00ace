"""What PyTorch's allocator had given out at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch

import longwave


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that a call held on the CPU beyond what was held before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    held = peak = 0
    assert profiler.profiler is not None
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def gated_scratch_bytes(channels: int, length: int) -> int:
    """What the backward of a gated convolution of some rows takes beside the gradients: a thread's own memory, which goes with
    the width of its vectors."""
    shapes = (1, channels, length), (channels, length)
    plan = longwave.plan(*shapes, D=True, pregate=True, postgate=True)
    return plan.backward_bytes - 4 * (4 * channels * length + channels)  # of u, both gates, k and D
