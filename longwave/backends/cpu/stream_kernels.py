"""The kernel of a stream: a tile of W rows at a time (b, h), each independent of all others, whatever is asked.

The inputs of a tile are rows of a ring, W numbers each, in order of time. Level l of `planner.Schedule` has blocks of n rows; a
window of a block (real) and the one before it (imaginary) is one right-angle transform of n points, whose product with the
spectrum of n taps gives n outputs as real parts. In block b of a level the spectrum of block b-1 and the outputs of block b+1
fall due: `JOBS` pieces of work a tile, that are dealt to the n steps of the block.

With the first of GROUP blocks goes, for the later ones, what is known of their sums by then; so each needs a few products more
when its turn comes, and spectra are read once for all of them.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import stages, steps, stream_steps, words
from longwave.backends.cpu.fused import walk_alone
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.moves import PLANE_BYTES, ROW_BYTES, word
from longwave.backends.cpu.simd import STORED_BYTES, lanes_of, poke
from longwave.backends.cpu.stream_steps import GROUP, QUAD
from longwave.backends.cpu.words import INPUT_IN, INT, SUM_OUT

# What is asked.
ADVANCE, BLOCK, REBUILD, FINISH, SPECTRA, LOAD, READ = range(7)

# The words that tell it. A tensor: its address, strides in bytes (batch, channels, time) and stored type.
OP, LEVEL, CLOCK, AT, COUNT, ANEW = range(6)
X, Y = 6, 11
ADDRESS, STRIDE_B, STRIDE_H, STRIDE_T, STORED = range(5)
# The ring: its address and rows a tile; the taps of the direct sums and D, a row or more a tile; zeros.
RING, RING_ROWS, TAPS, DIRECT, D, ZEROS = range(16, 22)
# Tiles, tiles of one sample of the batch, its rows, the channels (0: rows are those of a sample; else of all samples), for
# every tile the number of its filters, for every tile of filters their rows, and the taps of each.
TILES, PER_SAMPLE, ROWS, CHANNELS, FILTERS, FILTER_ROWS, ALL_TAPS = range(22, 29)
LEVEL_COUNT = 29
HEADER = 32
# Of every level: n as a power of two, parts, slots, spectra of the filters and of the inputs, pending outputs, sums in
# progress (or 0), sums of the later blocks of a group, pieces of work a tile, the block from which on work falls due, the
# blocks from which on groups have sums of pending outputs, or of whole blocks, and the program of its transform.
SHIFT, PARTS, SLOTS, S, LINE, PENDING, SUMS, LATER, JOBS, DUE, GROUPED, GROUPED_WHOLE, PROGRAM, LEVEL_WORDS = range(14)

# Scratch memory: addresses of W rows, rows of a few inputs, rows of outputs, a transform.
FEW_AT = 256
FEW_ROWS = 64
OUT_AT = FEW_AT + FEW_ROWS * PLANE_BYTES


def scratch_bytes(n: int) -> int:
    return OUT_AT + max(n, FEW_ROWS) * PLANE_BYTES + n * ROW_BYTES


@part
def _aim(p: int, x: int, tile: int, table: int, like: Any) -> bool:
    """Write the addresses of a tile's rows in a tensor; whether they are neighbours in memory (then only the first)."""
    W, per_sample, rows, channels = lanes_of(like), word(p, PER_SAMPLE), word(p, ROWS), word(p, CHANNELS)
    start, sb, sh = word(p, x + ADDRESS), word(p, x + STRIDE_B), word(p, x + STRIDE_H)
    b, first = tile // per_sample, tile % per_sample * W
    if channels == 0 and first + W <= rows and sh == STORED_BYTES[word(p, x + STORED)]:
        poke(table, start + b * sb + first * sh)
        return True
    for lane in range(W):
        h = min(first + lane, rows - 1)
        if channels != 0:
            b, h = h // channels, h % channels
        poke(table + lane * INT, start + b * sb + h * sh)
    return False


@part
def _fetch(p: int, x: int, tile: int, to: int, count: int, table: int, like: Any) -> None:
    """Samples of a tile's rows to rows of the arithmetic type, by the widest way there is."""
    neighbours = _aim(p, x, tile, table, like)
    code, stride = word(p, x + STORED), word(p, x + STRIDE_T)
    if neighbours:
        stages.fetch_lanes(like, to, table, 0, 0, code, 0, stride, 0, 0, count, 1)
    elif stride == STORED_BYTES[code] and count >= lanes_of(like):
        stages.fetch_rows(like, to, table, 0, 0, code, 0, count, 1)
    else:
        stages.fetch_singly(like, to, table, 0, 0, code, 0, stride, 0, 0, count, 1, 0, lanes_of(like), 0)


@part
def _put(p: int, x: int, tile: int, rows: int, count: int, table: int, like: Any) -> None:
    """The way back."""
    neighbours = _aim(p, x, tile, table, like)
    code, stride = word(p, x + STORED), word(p, x + STRIDE_T)
    if neighbours:
        stages.put_lanes(like, rows, table, 0, 0, code, 0, stride, 0, 0, count, 1, 0)
    elif stride == STORED_BYTES[code] and count >= lanes_of(like):
        stages.put_rows(like, rows, table, 0, 0, code, 0, count, 1, 0)
    else:
        stages.put_singly(like, rows, table, 0, 0, code, 0, stride, 0, 0, count, 1, 0, lanes_of(like))


@part
def _ring(p: int, tile: int, clock: int) -> int:
    rows = word(p, RING_ROWS)
    return word(p, RING) + (tile * rows + clock % rows) * PLANE_BYTES


@part
def _level(p: int, number: int) -> int:
    return p + (HEADER + number * LEVEL_WORDS) * INT


@part
def _pending(level: int, tile: int, block: int) -> int:
    return word(level, PENDING) + ((tile * 3 + block % 3) << word(level, SHIFT)) * PLANE_BYTES


@part
def _transform(p: int, level: int, tile: int, c: int, x: int, scratch: int, like: Any) -> None:
    """The spectrum of the window of block c, to its slot."""
    n, q, slots = 1 << word(level, SHIFT), word(level, PROGRAM), word(level, SLOTS)
    re = _ring(p, tile, c * n)
    im = _ring(p, tile, (c - 1) * n) if c > 0 else re
    stream_steps.enter(
        like, x, re, im, n, word(q, words.LEVELS + 1), word(q, words.WEIGHTS), word(q, words.LEVELS + 2), 2 if c > 0 else 1
    )
    walk_alone(q, x, INPUT_IN, scratch, like)
    line = word(level, LINE) + tile * slots * n * ROW_BYTES
    stream_steps.spread(like, x, line + c % slots * QUAD * ROW_BYTES, slots * QUAD * ROW_BYTES, n)


@part
def _combine(p: int, level: int, tile: int, out: int, first: int, since: int, x: int, begin: int, end: int, like: Any) -> None:
    """The sum of the products for block `out` under the parts from `first` on, blocks begin … end - 1 of its frequencies; in
    groups that begin at block `since` or later."""
    shift, parts, slots = word(level, SHIFT), word(level, PARTS), word(level, SLOTS)
    filters, place, newest = word(word(p, FILTERS), tile), out % GROUP, out - first
    s = word(level, S) + (((filters * parts) << shift) + first * QUAD) * ROW_BYTES
    line = word(level, LINE) + ((tile * slots) << shift) * ROW_BYTES
    later, apart = word(level, LATER) + ((tile * (GROUP - 1)) << shift) * ROW_BYTES, ROW_BYTES << shift
    known = max(0, min(parts - first, newest + 1))
    if out - place < since:
        stream_steps.combine(like, x, 0, 0, s, parts, line, slots, newest % slots, known, begin, end)
    elif place == 0:
        stream_steps.combine_group(
            like, x, later, apart, s, parts, line, slots, newest % slots, newest + 1, parts - first, begin, end
        )
    else:
        start = later + (place - 1) * apart
        stream_steps.combine(like, x, start, 1, s, parts, line, slots, newest % slots, min(place, known), begin, end)


@part
def _invert(level: int, x: int, to: int, scratch: int, like: Any) -> None:
    q = word(level, PROGRAM)
    walk_alone(q, x, SUM_OUT, scratch, like)
    stream_steps.leave(
        like, x, to, 1 << word(level, SHIFT), word(q, words.LEVELS + 1), word(q, words.WEIGHTS), word(q, words.LEVELS + 2)
    )


@part
def _outputs(p: int, level: int, tile: int, out: int, first: int, since: int, x: int, to: int, scratch: int, like: Any) -> None:
    """The outputs of block `out`, n rows."""
    _combine(p, level, tile, out, first, since, x, 0, (1 << word(level, SHIFT)) // QUAD, like)
    _invert(level, x, to, scratch, like)


@part
def _jobs(p: int, level: int, tile: int, clock: int, count: int, x: int, scratch: int, like: Any) -> None:
    """What of a tile's work falls due in `count` steps from `clock` on, all in one block."""
    shift, each = word(level, SHIFT), word(level, JOBS)
    b = clock >> shift
    if b < max(1, word(level, DUE)):
        return
    q, total, n = clock - (b << shift), word(p, TILES) * each, 1 << shift
    begin = max((q * total) >> shift, tile * each) - tile * each
    end = min(((q + count) * total) >> shift, (tile + 1) * each) - tile * each
    if begin >= end:
        return
    to = _pending(level, tile, b + 1)
    if each == 1:
        _transform(p, level, tile, b - 1, x, scratch, like)
        _outputs(p, level, tile, b + 1, 2, word(level, GROUPED), x, to, scratch, like)
        return
    # Between steps the sum stays where it is: doing a piece once more, after a step back, changes nothing.
    sums = word(level, SUMS) + ((tile * ROW_BYTES) << shift)
    for i in range(begin, end):
        if i == 0:
            _transform(p, level, tile, b - 1, x, scratch, like)
        elif i < each - 1:
            first, last = n // QUAD * (i - 1) // (each - 2), n // QUAD * i // (each - 2)
            _combine(p, level, tile, b + 1, 2, word(level, GROUPED), sums, first, last, like)
        else:
            steps.copy(like, x, sums, n)
            _invert(level, x, to, scratch, like)


@part
def _advance(p: int, scratch: int, tile: int, x: int, like: Any) -> None:
    count, clock, held, direct = word(p, COUNT), word(p, CLOCK), word(p, RING_ROWS), word(p, DIRECT)
    ring, few, out = word(p, RING) + tile * held * PLANE_BYTES, scratch + FEW_AT, scratch + OUT_AT
    taps = word(p, TAPS) + word(word(p, FILTERS), tile) * direct * PLANE_BYTES
    skip, here = word(p, D), word(p, AT)
    _fetch(p, X, tile, few, count, scratch, like)
    for i in range(count):
        t, row, to = clock + i, ring + here * PLANE_BYTES, out + i * PLANE_BYTES
        stream_steps.move(like, row, few + i * PLANE_BYTES)
        start = word(p, ZEROS)
        if skip != 0:
            stream_steps.times(like, to, row, skip + tile * PLANE_BYTES)
            start = to
        reach = min(direct, t + 1)
        near = min(reach, here + 1)
        stream_steps.weigh(like, to, start, taps, row, near)
        if near < reach:
            stream_steps.weigh(like, to, to, taps + near * PLANE_BYTES, ring + (held - 1) * PLANE_BYTES, reach - near)
        for number in range(word(p, LEVEL_COUNT)):
            level = _level(p, number)
            shift = word(level, SHIFT)
            b = t >> shift
            if b == 0:
                break
            if b >= 2:
                steps.add(like, to, _pending(level, tile, b) + (t - (b << shift)) * PLANE_BYTES, 1)
            _jobs(p, level, tile, t, 1, x, scratch, like)
        here = here + 1 if here + 1 < held else 0
    _put(p, Y, tile, out, count, scratch, like)


@part
def _block(p: int, scratch: int, tile: int, x: int, like: Any) -> None:
    number, clock, out = word(p, LEVEL), word(p, CLOCK), scratch + OUT_AT
    level = _level(p, number)
    shift = word(level, SHIFT)
    n, c, rows = 1 << shift, clock >> shift, _ring(p, tile, clock)
    _fetch(p, X, tile, rows, n, scratch, like)
    if c > 0 and word(level, DUE) <= c:
        _transform(p, level, tile, c - 1, x, scratch, like)
    _transform(p, level, tile, c, x, scratch, like)
    _outputs(p, level, tile, c, 0, word(level, GROUPED_WHOLE), x, out, scratch, like)
    if word(p, D) != 0:
        stream_steps.skip(like, out, rows, word(p, D) + tile * PLANE_BYTES, n)
    for larger in range(number + 1, word(p, LEVEL_COUNT)):
        level = _level(p, larger)
        shift = word(level, SHIFT)
        b = clock >> shift
        if b == 0:
            break
        if b >= 2:
            steps.add(like, out, _pending(level, tile, b) + (clock - (b << shift)) * PLANE_BYTES, n)
        _jobs(p, level, tile, clock, n, x, scratch, like)
    _put(p, Y, tile, out, n, scratch, like)


@part
def _rebuild(p: int, scratch: int, tile: int, x: int, like: Any) -> None:
    level = _level(p, word(p, LEVEL))
    b = word(p, CLOCK) >> word(level, SHIFT)
    if word(p, ANEW) != 0:
        for c in range(max(0, b - word(level, PARTS)), b):
            _transform(p, level, tile, c, x, scratch, like)
    for out in range(max(2, b), b + 2):
        _outputs(p, level, tile, out, 2, out + 1, x, _pending(level, tile, out), scratch, like)


@part
def _spectra(p: int, scratch: int, filters: int, x: int, like: Any) -> None:
    """Of a tile of filters, whose taps stand in rows of a contiguous tensor."""
    level = _level(p, word(p, LEVEL))
    shift, parts, q, taps = word(level, SHIFT), word(level, PARTS), word(level, PROGRAM), word(p, ALL_TAPS)
    n, out, W, size = 1 << shift, scratch + OUT_AT, lanes_of(like), PLANE_BYTES // lanes_of(like)
    s = word(level, S) + ((filters * parts) << shift) * ROW_BYTES
    for number in range(parts):
        count = min(n, taps - number * n)
        for lane in range(W):
            row = word(word(p, FILTER_ROWS), filters * W + lane)
            poke(scratch + lane * INT, word(p, X + ADDRESS) + (row * taps + number * n) * size)
        steps.clear(like, out, n)
        stages.fetch_singly(like, out, scratch, 0, 0, word(p, X + STORED), 0, size, 0, 0, count, 1, 0, W, 0)
        stream_steps.enter(like, x, out, out, n, word(q, words.LEVELS + 1), word(q, words.SCALED), word(q, words.LEVELS + 2), 1)
        walk_alone(q, x, INPUT_IN, scratch, like)
        stream_steps.spread(like, x, s + number * QUAD * ROW_BYTES, parts * QUAD * ROW_BYTES, n)


@kernel
def stream(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """What OP asks for, of the tiles begin … end - 1."""
    op, most = word(p, OP), FEW_ROWS
    if word(p, LEVEL_COUNT) > 0:
        most = max(most, 1 << word(_level(p, word(p, LEVEL_COUNT) - 1), SHIFT))
    x = scratch + OUT_AT + most * PLANE_BYTES
    for tile in range(begin, end):
        if op == ADVANCE:
            _advance(p, scratch, tile, x, like)
        elif op == BLOCK:
            _block(p, scratch, tile, x, like)
        elif op == REBUILD:
            _rebuild(p, scratch, tile, x, like)
        elif op == FINISH:
            level = _level(p, word(p, LEVEL))
            _jobs(p, level, tile, word(p, CLOCK), 1 << word(level, SHIFT), x, scratch, like)
        elif op == SPECTRA:
            _spectra(p, scratch, tile, x, like)
        elif op == LOAD:
            _fetch(p, X, tile, _ring(p, tile, word(p, CLOCK)), word(p, COUNT), scratch, like)
        else:
            _put(p, Y, tile, _ring(p, tile, word(p, CLOCK)), word(p, COUNT), scratch, like)
