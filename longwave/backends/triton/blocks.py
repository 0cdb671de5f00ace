"""Which rows are in flight together, and what they hold: integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from longwave.backends.triton.configurations import CHAIN, ENERGY_SPAN
from longwave.backends.triton.layouts import Layout, is_wide
from longwave.problem import Problem

# What the scratch memory of split rows, and products of spectra that wait to be added up, may hold.
SCRATCH_BYTES = 2**28


class Block(NamedTuple):
    """Channels and samples whose rows are in flight together."""

    channel: int
    channels: int
    sample: int
    samples: int


def item_bytes(p: Problem) -> int:
    """Of an operand."""
    return 4 if is_wide(p) else 2


def in_flight(p: Problem, at: Layout) -> int:
    """Split rows in flight: two complex ones of operands each, and the spectrum of its filter in float32 and as operand."""
    row_bytes = 2 * at.N * (2 * item_bytes(p) + 8)
    return max(1, SCRATCH_BYTES // row_bytes)


def energy_spans(N: int, upper: bool) -> int:
    """Spans of a split row whose squares are added up apart."""
    return -(-(N * (1 + upper)) // ENERGY_SPAN)


def headroom(spans: int) -> int:
    """The exponent that the norm of a split float16 row gets, as far as one span knows it: a product with a spectrum of numbers
    below 2√2 then stays below 65,504."""
    return 13 - ((spans - 1).bit_length() + 1) // 2


def blocks(p: Problem, rows: int) -> Iterator[Block]:
    """All rows, so many at a time: channels in whole groups or in parts of one, then samples."""
    for channel, channels in _channels(p, 0, p.channels, rows):
        samples = max(1, rows // channels)
        for sample in range(0, p.batch, samples):
            yield Block(channel, channels, sample, min(samples, p.batch - sample))


def group_blocks(p: Problem, at: Layout) -> Iterator[tuple[int, int]]:
    """(first, count) of groups whose filters' gradients, in float64, are added up together."""
    row_bytes = 16 * at.N * (p.batch if p.per_sample else 1)
    count = max(1, SCRATCH_BYTES // row_bytes)
    yield from ((first, min(count, p.groups - first)) for first in range(0, p.groups, count))


def channel_blocks(p: Problem, at: Layout, group: int, groups: int) -> Iterator[Block]:
    """The rows of these groups whose products wait to be added up together; all samples of rows in registers."""
    repeats = p.channels // p.groups
    if at.outer:
        rows = in_flight(p, at)
        for channel, channels in _channels(p, group * repeats, groups * repeats, rows):
            yield Block(channel, channels, 0, min(p.batch, CHAIN, max(1, rows // channels)))
        return
    sums = p.batch if p.per_sample else 1
    chains = sums * -(-(p.batch // sums * max(1, at.windows_back)) // CHAIN)
    rows = max(1, SCRATCH_BYTES // (8 * at.N * chains))
    for channel, channels in _channels(p, group * repeats, groups * repeats, rows):
        yield Block(channel, channels, 0, p.batch)


def _channels(p: Problem, start: int, count: int, most: int) -> Iterator[tuple[int, int]]:
    """(first, count) of at most about `most` channels, in whole groups or in parts of one."""
    repeats = p.channels // p.groups
    if repeats <= most:
        step = most // repeats * repeats
        yield from ((first, min(step, start + count - first)) for first in range(start, start + count, step))
        return
    for group in range(start, start + count, repeats):
        yield from ((first, min(most, group + repeats - first)) for first in range(group, group + repeats, most))
