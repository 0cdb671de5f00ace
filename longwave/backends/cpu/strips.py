"""Strips of neighbouring channels, for long rows of signals whose channels are neighbours in memory (BLH).

A column of one long row would take one number from each cache line that it touches. So a few channels, as many as fill cache
lines, are turned over into rows of their own; the convolution of the strip goes from rows to rows, and
its results are turned back. A channel's bits do not depend on it.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import launches, pages, stages, steps, threads
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.layouts import Layout
from longwave.backends.cpu.moves import PLANE_BYTES, word
from longwave.backends.cpu.program import CODE, address
from longwave.backends.cpu.results import like, streams, width
from longwave.backends.cpu.simd import CACHE_LINE, STORED_BYTES, lanes_of, poke
from longwave.backends.cpu.words import INT
from longwave.problem import Problem

READ = (launches.U, launches.PREGATE, launches.POSTGATE, launches.HISTORY, launches.DY)
SIGNALS = (*READ, launches.Y, launches.DU, launches.DPREGATE, launches.DPOSTGATE, launches.DHISTORY)
# Samples that are turned over together, and those of a unit of work.
PIECE, UNIT = 16, 2048
# Bytes between rows beyond their length, so that neighbours do not share a set of the cache.
PADDING = 2 * CACHE_LINE
# What turning a sample over is expected to take.
SECONDS = 0.5e-9

# Words of a program: a signal's address, strides in bytes along batch and time and stored type; the address of its rows, bytes
# between those of two samples and of two channels; channels, samples, units a sample, the direction, and whether what is
# stored goes past the caches.
FROM, FROM_B, FROM_T, STORED, ROWS, ROWS_B, ROWS_H, CHANNELS, LENGTH, UNITS, BACK, STREAMS, WORDS = range(13)


@part
def _tables_bytes(tiles: int, W: int) -> int:
    """Of the addresses of every tile: that of its channels, and those of its rows."""
    return (tiles * (W + 1) * INT + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE


@kernel
def turn_over(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """Stretches of UNIT samples of all channels of a strip, to rows or back; the last tile and piece overlap those before."""
    W, channels, length, units = lanes_of(like), word(p, CHANNELS), word(p, LENGTH), word(p, UNITS)
    step, code, back = word(p, FROM_T), word(p, STORED), word(p, BACK)
    size = STORED_BYTES[code]
    tiles = -(-channels // W)
    first_stage = scratch + _tables_bytes(tiles, W)
    for unit in range(begin, end):
        b, start = unit // units, unit % units * UNIT
        for tile in range(tiles):
            table, h = scratch + tile * (W + 1) * INT, min(tile * W, channels - W)
            poke(table, word(p, FROM) + b * word(p, FROM_B) + h * size)
            for lane in range(W):
                poke(table + (1 + lane) * INT, word(p, ROWS) + b * word(p, ROWS_B) + (h + lane) * word(p, ROWS_H))
        for piece in range(start, min(start + UNIT, length), PIECE):
            count = min(PIECE, length)
            j = min(piece, length - count)
            for tile in range(tiles):
                table, stage = scratch + tile * (W + 1) * INT, first_stage + tile * PIECE * PLANE_BYTES
                if back == 0:
                    stages.fetch_lanes(like, stage, table, table, 0, code, j * step, step, 0, 0, count, 1)
                else:
                    stages.fetch_rows(like, stage, table + INT, table, 0, code, j * size, count, 1)
            for tile in range(tiles):
                table, stage = scratch + tile * (W + 1) * INT, first_stage + tile * PIECE * PLANE_BYTES
                if back == 0:
                    stages.put_rows(like, stage, table + INT, table, 0, code, j * size, count, 1, 0)
                else:
                    stages.put_lanes(like, stage, table, table, 0, code, j * step, step, 0, 0, count, 1, word(p, STREAMS))
    if word(p, STREAMS) != 0:
        steps.fence(like)


class Strip(NamedTuple):
    """Some neighbouring channels, the filters that they have, and their Problem."""

    problem: Problem
    channels: slice
    filters: slice


def _together(p: Problem, workers: int) -> int:
    """Channels of a strip: whole cache lines of a signal, at least two rows a thread, and whole groups or parts of one."""
    line, repeats = CACHE_LINE // dtypes.named(p.dtype).itemsize, p.channels // p.groups
    wanted = line * -(-2 * workers // (line * p.batch))
    return min(p.channels, wanted if repeats >= wanted else -(-wanted // repeats) * repeats)


@lru_cache(maxsize=256)
def strips(p: Problem, workers: int) -> tuple[Strip, ...]:
    repeats, together = p.channels // p.groups, _together(p, workers)
    inside = repeats >= together
    whole = repeats if inside else p.channels
    found = []
    for group in range(0, p.channels, whole):
        # What is left over for a last strip may be fewer channels than lanes: it goes with the one before.
        cuts = [*range(group, group + whole - min(whole, together) + 1, together), group + whole]
        for start, stop in itertools.pairwise(cuts):
            filters = slice(start // repeats, -(-stop // repeats))
            of_strip = replace(p, channels=stop - start, groups=filters.stop - filters.start)
            found.append(Strip(of_strip, slice(start, stop), filters))
    return tuple(found)


def _are_neighbours(p: Problem, x: Tensor) -> bool:
    """Whether a signal is to be turned over."""
    return x.stride(1) == 1 != x.stride(2) and min(p.channels, x.shape[2]) >= width(p)


def _adds_signals(p: Problem) -> bool:
    """Whether results are stored with signals added to them: D's, beside a mask."""
    return p.mask is not None and p.skip


def _row_bytes(length: int, itemsize: int) -> int:
    return -(-length * itemsize // CACHE_LINE) * CACHE_LINE + PADDING


def scratch(p: Problem, workers: int, backward: bool) -> tuple[Problem, int]:
    """The Problem that is run at a time, and the bytes of the rows of all its signals, each in the layout that p says."""
    if not p.channels_last or p.channels < width(p):
        return p, 0
    inputs, outputs = p.in_len - p.history, p.out_len
    apart = _adds_signals(p)
    lengths = [inputs, outputs] if apart else [max(inputs, outputs)]
    lengths += [inputs] * p.pregate + [outputs] * p.postgate
    if backward:
        lengths = [inputs] * (1 + 2 * p.pregate) + [outputs] * 2 * p.postgate
        lengths += [inputs, outputs] if apart or p.postgate else [max(inputs, outputs)]
    of_strip, item = strips(p, workers)[-1].problem, dtypes.named(p.dtype).itemsize  # the largest strip
    return of_strip, p.batch * of_strip.channels * sum(_row_bytes(length, item) for length in lengths)


def parts(p: Problem, found: Layout, tensors: Sequence[Tensor | None]) -> Iterator[tuple[Problem, launches.Tensors]]:
    """The whole of a call, or its strips one after the other, with rows in place of signals that are turned over."""
    wanted = SIGNALS if found.is_long else ()
    turned = {which: x for which in wanted if (x := tensors[which]) is not None and _are_neighbours(p, x)}
    if not turned:
        yield p, tuple(tensors)
        return
    all_strips = strips(p, threads.width())
    rows = _rows(p, all_strips[-1].problem.channels, turned)
    for strip in all_strips:
        signals = _cut(p, strip, tensors)
        of_strip = [rows[i][:, : strip.problem.channels] if i in turned else x for i, x in enumerate(signals)]
        for which in turned:
            if which in READ:
                _turn(p, signals[which], of_strip[which], back=False)
        yield strip.problem, tuple(of_strip)
        for which in turned:
            if which not in READ:
                _turn(p, signals[which], of_strip[which], back=True)


def _cut(p: Problem, strip: Strip, tensors: Sequence[Tensor | None]) -> launches.Tensors:
    found: list[Tensor | None] = []
    for which, x in enumerate(tensors):
        if x is None:
            found.append(None)
        elif which == launches.K:
            found.append(x[..., strip.filters, :])
        elif which == launches.SKIP:
            found.append(x[strip.channels])
        elif which == launches.SPECTRA:
            found.append(x.view(p.channels, -1)[strip.channels].flatten())
        else:
            found.append(x[..., strip.channels, :])
    return tuple(found)


def _rows(p: Problem, channels: int, signals: dict[int, Tensor]) -> dict[int, Tensor]:
    """Uninitialised (B, channels, length) for each signal, in one piece of scratch memory; a result takes the place of a signal
    whose row is not needed any more when its own is written."""
    over = {} if _adds_signals(p) else {launches.Y: launches.U}
    if over and launches.DPOSTGATE not in signals:
        over[launches.DU] = launches.DY
    places = {which: over[which] if over.get(which) in signals else which for which in signals}
    step: dict[int, int] = {}
    for which, place in places.items():
        step[place] = max(step.get(place, 0), _row_bytes(signals[which].shape[2], signals[which].element_size()))
    sizes = {place: p.batch * channels * size for place, size in step.items()}
    starts = dict(zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False))
    memory = pages.scratch(sum(sizes.values()), purpose="strips")
    rows = {}
    for which, signal in signals.items():
        place, item = places[which], signal.element_size()
        shape, strides = (p.batch, channels, signal.shape[2]), (channels * step[place] // item, step[place] // item, 1)
        rows[which] = memory.view(signal.dtype).as_strided(shape, strides, starts[place] // item)
    return rows


def _turn(p: Problem, signal: Tensor | None, rows: Tensor | None, back: bool) -> None:
    if signal is None or rows is None:
        return
    W, (batch, channels, length) = width(p), rows.shape
    size, units = signal.element_size(), -(-length // UNIT)
    program = (ctypes.c_int64 * WORDS)(
        signal.data_ptr(), signal.stride(0) * size, signal.stride(2) * size, CODE[signal.dtype],
        rows.data_ptr(), rows.stride(0) * size, rows.stride(1) * size,
        channels, length, units, int(back), int(back and streams(p)),
    )  # fmt: skip
    tiles = -(-channels // W)
    each = _tables_bytes(tiles, W) + tiles * PIECE * PLANE_BYTES
    threads.run(turn_over, address(program), like(p), batch * units, SECONDS * rows.numel(), each)
