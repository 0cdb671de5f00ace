"""The loops of the engine: what Python calls, compiled by Numba around the traced steps.

A *unit* is W rows (one a lane, neighbouring channels) and a part of the batch. Rows beyond the last one repeat it, and so
compute and store the same bits once more: no lane is masked. `p` is the address of a program's block, `like` a number of the
arithmetic type.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import steps
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.program import (
    ADD,
    ADDRESS,
    AHEAD,
    AHEAD_LINES,
    BASE,
    BATCH,
    CHANNELS,
    CHUNKS,
    COUNT,
    DEPTH,
    DK,
    DPOSTGATE,
    DX,
    DZ,
    FIRST,
    GATE,
    INPUT,
    INT,
    LEVEL_WORDS,
    LEVELS,
    LIST_WORDS,
    LISTS,
    MAX_SEGMENTS,
    MAX_VIEWS,
    OUTPUT,
    PLANE,
    REPEATS,
    ROW,
    ROWS,
    SCALED,
    SEGMENT_WORDS,
    SEGMENTS,
    SIGN,
    STORED,
    STRIDE_B,
    STRIDE_H,
    STRIDE_T,
    TAPS,
    VIEW,
    VIEW_COUNT,
    VIEW_WORDS,
    VIEWS,
    WEIGHTS,
    N,
)  # fmt: skip
from longwave.backends.cpu.simd import STORED_BYTES, lanes_of, peek, poke, vector_bytes

# A row of scratch memory: W real parts and W imaginary parts, in either arithmetic type.
ROW_BYTES = 2 * vector_bytes()
PLANE_BYTES = vector_bytes()
CACHE_LINE = 64
# Between the parts of a thread's scratch memory, so that their equal rows do not share a set of the cache.
GAP_BYTES = 2048
# How an entry's samples travel: W rows that are contiguous in time, W neighbouring channels, one sample at a time, or zeros.
BY_ROWS, BY_LANES, SINGLY, ZEROS = range(4)
# Words of an entry: what one point of the butterfly of the first or last pass exchanges with one tensor, for a run of j.
WAY, STAGE, TABLE, GATES, GATED, CODE, STRIDE, GATE_STRIDE, INDEX, FACTOR, ONTO, ENTRY_WORDS = range(12)
# What comes first there: the addresses of W rows for every view, the entries of a piece, and its stage.
TABLES_AT = 0
ENTRIES_AT = TABLES_AT + MAX_VIEWS * INT * 16
STAGE_AT = ENTRIES_AT + max(steps.RADICES) * MAX_SEGMENTS * ENTRY_WORDS * INT
PARTS_AT = STAGE_AT + 2 * max(steps.RADICES) * steps.STAGED * PLANE_BYTES
PRODUCT, CONJUGATE, ALONE = steps.PRODUCT, steps.CONJUGATE, steps.ALONE


@part
def word(p: int, index: int) -> int:
    return peek(p + index * INT)


@part
def aim(p: int, scratch: int, b: int, tile: int, like: Any) -> None:
    """Write the addresses of a unit's rows, for every view."""
    W, tables = lanes_of(like), scratch + TABLES_AT
    H, rows = word(p, CHANNELS), word(p, ROWS)
    for view in range(word(p, VIEW_COUNT)):
        v = p + (VIEWS + view * VIEW_WORDS) * INT
        start, sb, sh, repeats = word(v, ADDRESS), word(v, STRIDE_B), word(v, STRIDE_H), word(v, REPEATS)
        for lane in range(W):
            h, sample = min(tile * W + lane, rows - 1), b
            if h >= H:
                sample, h = b + h // H, h % H
            if repeats != 1:
                h = h // repeats
            poke(tables + (view * W + lane) * INT, start + sample * sb + h * sh)


@part
def side_by_side(table: int, size: int, W: int) -> bool:
    """Whether the W rows of a view are neighbours in memory."""
    start, lane = peek(table), 1
    while lane < W and peek(table + lane * INT) == start + lane * size:
        lane += 1
    return lane == W


@part
def describe(p: int, scratch: int, s: int, row: int, j: int, entry: int, stage: int, like: Any) -> None:
    """Write the entry for the segment at s, of which the sample at `row` stands at j."""
    W = lanes_of(like)
    tables = scratch + TABLES_AT
    view, gate = word(s, VIEW), word(s, GATE)
    v = p + (VIEWS + view * VIEW_WORDS) * INT
    code, stride = word(v, STORED), word(v, STRIDE_T)
    size = STORED_BYTES[code]
    table, gates, gate_stride = tables + view * W * INT, 0, stride
    if gate >= 0:
        gates = tables + gate * W * INT
        gate_stride = word(p, VIEWS + gate * VIEW_WORDS + STRIDE_T)
    way = SINGLY
    if word(s, ADD) == 0 and stride == gate_stride:
        if stride == size:
            way = BY_ROWS
        elif side_by_side(table, size, W) and (gate < 0 or side_by_side(gates, size, W)):
            way = BY_LANES
    poke(entry + WAY * INT, way)
    poke(entry + STAGE * INT, stage)
    poke(entry + TABLE * INT, table)
    poke(entry + GATES * INT, gates)
    poke(entry + GATED * INT, 1 if gate >= 0 else 0)
    poke(entry + CODE * INT, code)
    poke(entry + STRIDE * INT, stride)
    poke(entry + GATE_STRIDE * INT, gate_stride)
    poke(entry + INDEX * INT, word(s, FIRST) + row - word(s, ROW) - j)
    poke(entry + FACTOR * INT, word(s, SIGN))
    poke(entry + ONTO * INT, word(s, ADD))


@part
def piece(p: int, scratch: int, which: int, j: int, m: int, radix: int, store: bool, like: Any) -> tuple[int, int]:
    """Write the entries that hold from row j of every point of the butterfly on; their number, and the j where they end."""
    about = LISTS + which * LIST_WORDS
    first, segments, planes = word(p, about), word(p, about + 1), word(p, about + 2)
    entries, stage, end = 0, scratch + STAGE_AT, m
    for plane in range(planes):
        for q in range(radix):
            row = q * m + j
            covered = store
            for add in range(2):
                for i in range(first, first + segments):
                    s = p + (SEGMENTS + i * SEGMENT_WORDS) * INT
                    start = word(s, ROW)
                    stop = start + word(s, COUNT)
                    if word(s, PLANE) == plane and row < stop:
                        end = min(end, j + (stop if start <= row else start) - row)
                        if start <= row and word(s, ADD) == add:
                            describe(p, scratch, s, row, j, scratch + ENTRIES_AT + entries * ENTRY_WORDS * INT, stage, like)
                            entries += 1
                            covered = True
                if not covered:
                    entry = scratch + ENTRIES_AT + entries * ENTRY_WORDS * INT
                    poke(entry + WAY * INT, ZEROS)
                    poke(entry + STAGE * INT, stage)
                    entries += 1
                    covered = True
            stage += steps.STAGED * PLANE_BYTES
    return entries, end


@part
def exchange(scratch: int, entries: int, j: int, count: int, store: bool, like: Any) -> None:
    """Fetch the samples of all entries for j … j + count - 1 to the stage (or store them), each by the widest way there is."""
    for number in range(entries):
        e = scratch + ENTRIES_AT + number * ENTRY_WORDS * INT
        way, stage = word(e, WAY), word(e, STAGE)
        if way == ZEROS:
            steps.clear(like, stage, count)
            continue
        table, gates, gated, code, sign = word(e, TABLE), word(e, GATES), word(e, GATED), word(e, CODE), word(e, FACTOR)
        stride, i = word(e, STRIDE), word(e, INDEX) + j
        if way == BY_ROWS and count >= lanes_of(like):
            if store:
                steps.put_rows(like, stage, table, gates, gated, code, i, count, sign)
            else:
                steps.fetch_rows(like, stage, table, gates, gated, code, i, count, sign)
        elif way == BY_LANES:
            if store:
                steps.put_lanes(like, stage, table, gates, gated, code, stride, i, count, sign)
            else:
                steps.fetch_lanes(like, stage, table, gates, gated, code, stride, i, count, sign)
        elif store:
            steps.put_singly(like, stage, table, gates, gated, code, stride, word(e, GATE_STRIDE), i, count, sign)
        else:
            steps.fetch_singly(
                like, stage, table, gates, gated, code, stride, word(e, GATE_STRIDE), i, count, sign, word(e, ONTO)
            )


@part
def ends(p: int, scratch: int, which: int, x: int, weights: int, store: bool, like: Any) -> None:
    """The first pass on the samples of a list, or the last one and storing them: through a stage in the first cache."""
    n, radix, twiddles = word(p, LEVELS), word(p, LEVELS + 1), word(p, LEVELS + 2)
    planes = word(p, LISTS + which * LIST_WORDS + 2)
    W, m, begin = lanes_of(like), n // radix, 0
    while begin < m:
        entries, end = piece(p, scratch, which, begin, m, radix, store, like)
        j = begin
        while j < end:
            # The last rows of a piece are done with those before them, twice, where they would not fill a vector.
            if end - j < W and end - begin >= W:
                j = end - W
            count = min(end - j, steps.STAGED)
            if store:
                steps.last(like, x, scratch + STAGE_AT, j, count, n, radix, weights, twiddles, planes)
                exchange(scratch, entries, j, count, True, like)
            else:
                exchange(scratch, entries, j, count, False, like)
                steps.first(like, x, scratch + STAGE_AT, j, count, n, radix, weights, twiddles, planes)
            j += count
        begin = end


@part
def enter(p: int, scratch: int, which: int, x: int, weights: int, like: Any) -> None:
    ends(p, scratch, which, x, weights, False, like)


@part
def leave(p: int, scratch: int, which: int, x: int, weights: int, like: Any) -> None:
    ends(p, scratch, which, x, weights, True, like)


# What a walk through the frequencies does.
MULTIPLY, TRANSFORM, INVERT = 0, 1, 2


@part
def walk(p: int, x: int, s: int, kind: int, how: int, scratch: int, ahead: int, like: Any) -> None:
    """All passes but the first and the last, block by block: what a block needs is done while a cache holds it.

    The blocks of BASE rows come in order. Before one, the `dif` passes of all larger blocks that begin there are made, from
    the largest; after one, the `dit` passes of those that end there, from the smallest. What memory is idle for meanwhile: to
    bring the rows that lie `ahead` bytes further than those of the view AHEAD (with 0, nothing is asked for).
    """
    depth, base, points = word(p, DEPTH), word(p, BASE), word(p, N)
    radix = word(p, LEVELS + (depth - 1) * LEVEL_WORDS + 1)
    lines = word(p, AHEAD_LINES) if ahead != 0 else 0
    table = scratch + TABLES_AT + word(p, AHEAD) * lanes_of(like) * INT
    for row in range(0, points, base):
        at, spectrum = x + row * ROW_BYTES, s + row * ROW_BYTES
        if kind != INVERT:
            for level in range(1, depth - 1):
                v = p + (LEVELS + level * LEVEL_WORDS) * INT
                n = word(v, 0)
                if lines > 0 and n <= base:
                    steps.ahead(like, table, ahead, lines)
                    ahead += lines * CACHE_LINE
                if n <= base or row % n == 0:
                    steps.dif(like, at, max(n, base), n, word(v, 1), word(v, 2))
        if kind == MULTIPLY:
            steps.middle(like, at, spectrum, base, radix)
        elif kind == TRANSFORM:
            steps.innermost(like, at, base, radix)
        else:
            steps.inverse(like, at, spectrum, base, radix, how)
        if kind != TRANSFORM:
            for level in range(depth - 2, 0, -1):
                v = p + (LEVELS + level * LEVEL_WORDS) * INT
                n = word(v, 0)
                if n <= base:
                    if lines > 0:
                        steps.ahead(like, table, ahead, lines)
                        ahead += lines * CACHE_LINE
                    steps.dit(like, at, base, n, word(v, 1), word(v, 2))
                elif (row + base) % n == 0:
                    steps.dit(like, x + (row + base - n) * ROW_BYTES, n, n, word(v, 1), word(v, 2))


@part
def spectrum(p: int, scratch: int, which: int, x: int, weights: int, like: Any) -> None:
    enter(p, scratch, which, x, weights, like)
    walk(p, x, x, TRANSFORM, 0, scratch, 0, like)


def scratch_bytes(points: int, parts: int) -> int:
    """The scratch memory of one thread: what comes first, and `parts` transforms of `points` rows."""
    return PARTS_AT + parts * (points * ROW_BYTES + GAP_BYTES)


@part
def scratch_part(scratch: int, number: int, points: int) -> int:
    return scratch + PARTS_AT + number * (points * ROW_BYTES + GAP_BYTES)


@kernel
def forward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The convolution of the units begin … end - 1."""
    points, batch, chunks = word(p, N), word(p, BATCH), word(p, CHUNKS)
    x, s = scratch_part(scratch, 0, points), scratch_part(scratch, 1, points)
    known = -1
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        last = batch * (chunk + 1) // chunks
        for b in range(batch * chunk // chunks, last):
            aim(p, scratch, b, tile, like)
            if known != tile:
                spectrum(p, scratch, TAPS, s, word(p, SCALED), like)
                known = tile
            enter(p, scratch, INPUT, x, word(p, WEIGHTS), like)
            next_sample = word(p, VIEWS + word(p, AHEAD) * VIEW_WORDS + STRIDE_B) if b + 1 < last else 0
            walk(p, x, s, MULTIPLY, 0, scratch, next_sample, like)
            leave(p, scratch, OUTPUT, x, word(p, WEIGHTS), like)


@kernel
def backward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The gradients of the units begin … end - 1: those whose lists are not empty."""
    points, batch, chunks = word(p, N), word(p, BATCH), word(p, CHUNKS)
    x, s = scratch_part(scratch, 0, points), scratch_part(scratch, 1, points)
    z, total = scratch_part(scratch, 2, points), scratch_part(scratch, 3, points)
    need_x = word(p, LISTS + DX * LIST_WORDS + 1) > 0
    need_k = word(p, LISTS + DK * LIST_WORDS + 1) > 0
    need_y = word(p, LISTS + DPOSTGATE * LIST_WORDS + 1) > 0
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        low, high = batch * chunk // chunks, batch * (chunk + 1) // chunks
        for b in range(low, high):
            aim(p, scratch, b, tile, like)
            if b == low:
                if need_x or need_y:
                    spectrum(p, scratch, TAPS, s, word(p, SCALED), like)
                if need_k:
                    steps.clear(like, total, 2 * points)
            if need_k or need_y:
                spectrum(p, scratch, INPUT, x, word(p, WEIGHTS), like)
            if need_k or need_x:
                spectrum(p, scratch, DZ, z, word(p, WEIGHTS), like)
            if need_k:
                steps.accumulate(like, total, z, x, points)
            if need_x:
                walk(p, z, s, INVERT, CONJUGATE, scratch, 0, like)
                leave(p, scratch, DX, z, word(p, WEIGHTS), like)
            if need_y:
                walk(p, x, s, INVERT, PRODUCT, scratch, 0, like)
                leave(p, scratch, DPOSTGATE, x, word(p, WEIGHTS), like)
        if need_k:  # 1/N came with the filter's spectrum so far
            walk(p, total, total, INVERT, ALONE, scratch, 0, like)
            leave(p, scratch, DK, total, word(p, SCALED), like)
