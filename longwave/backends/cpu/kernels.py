"""The loops of the engine: what Python calls, compiled by Numba around the traced steps.

A *unit* is W rows (one a lane, neighbouring channels) and a part of the batch. Rows beyond the last one repeat it, and so
compute and store the same bits once more: no lane is masked. `p` is the address of a program's block, `like` a number of the
arithmetic type, `tables` the address of W row addresses for every view.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import steps
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.program import (
    ADD,
    ADDRESS,
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
# Rows that are loaded or stored between two halves of a butterfly pass: whole cache lines of every channel, many at a time
# because their lengths are powers of two and share a set of the cache. Measured: 32, 64 and 128 rows of 64 bytes.
CHUNK = 2**13 // ROW_BYTES
# Between the parts of a thread's scratch memory, so that their equal rows do not share a set of the cache.
GAP_BYTES = 2048
TABLE_BYTES = MAX_VIEWS * INT * 16
PRODUCT, CONJUGATE, ALONE = steps.PRODUCT, steps.CONJUGATE, steps.ALONE


@part
def word(p: int, index: int) -> int:
    return peek(p + index * INT)


@part
def aim(p: int, tables: int, b: int, tile: int, like: Any) -> None:
    """Write the addresses of a unit's rows, for every view."""
    W = lanes_of(like)
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
def transfer(p: int, tables: int, s: int, half: int, i: int, count: int, store: bool, like: Any) -> None:
    """Move `count` rows of one plane from (or to) the samples i … of a segment's tensor, by the widest way there is."""
    W = lanes_of(like)
    view, gate = word(s, VIEW), word(s, GATE)
    v = p + (VIEWS + view * VIEW_WORDS) * INT
    code, stride, sign = word(v, STORED), word(v, STRIDE_T), word(s, SIGN)
    size = STORED_BYTES[code]
    table, gates, gate_stride = tables + view * W * INT, 0, stride
    if gate >= 0:
        gates = tables + gate * W * INT
        gate_stride = word(p, VIEWS + gate * VIEW_WORDS + STRIDE_T)
    gated = 1 if gate >= 0 else 0
    if word(s, ADD) == 0 and stride == gate_stride:
        if stride == size and count >= W:
            if store:
                steps.put_rows(like, half, table, gates, gated, code, i, count, sign)
            else:
                steps.fetch_rows(like, half, table, gates, gated, code, i, count, sign)
            return
        if side_by_side(table, size, W) and (gate < 0 or side_by_side(gates, size, W)):
            if store:
                steps.put_lanes(like, half, table, gates, gated, code, stride, i, count, sign)
            else:
                steps.fetch_lanes(like, half, table, gates, gated, code, stride, i, count, sign)
            return
    if store:
        steps.put_singly(like, half, table, gates, gated, code, stride, gate_stride, i, count, sign)
    else:
        steps.fetch_singly(like, half, table, gates, gated, code, stride, gate_stride, i, count, sign, word(s, ADD))


@part
def move(p: int, tables: int, which: int, x: int, row: int, count: int, store: bool, like: Any) -> None:
    """Fetch (or store) the rows row … row + count - 1 of scratch memory x through the segments of a list."""
    about = LISTS + which * LIST_WORDS
    first, segments, planes = word(p, about), word(p, about + 1), word(p, about + 2)
    for plane in range(planes):
        half = x + row * ROW_BYTES + plane * (ROW_BYTES // 2)
        if not store:
            covered = False
            for i in range(first, first + segments):
                s = p + (SEGMENTS + i * SEGMENT_WORDS) * INT
                start = word(s, ROW)
                if word(s, PLANE) == plane and word(s, ADD) == 0 and start <= row and row + count <= start + word(s, COUNT):
                    covered = True
            if not covered:
                steps.clear(like, half, count)
        for i in range(first, first + segments):
            s = p + (SEGMENTS + i * SEGMENT_WORDS) * INT
            start = word(s, ROW)
            low, high = max(row, start), min(row + count, start + word(s, COUNT))
            if word(s, PLANE) == plane and low < high:
                to = half + (low - row) * ROW_BYTES
                transfer(p, tables, s, to, word(s, FIRST) + low - start, high - low, store, like)


@part
def enter(p: int, tables: int, which: int, x: int, weights: int, like: Any) -> None:
    """Fetch a list's samples into x and make the first pass on them while they are in the first cache."""
    n, radix, twiddles = word(p, LEVELS), word(p, LEVELS + 1), word(p, LEVELS + 2)
    planes = word(p, LISTS + which * LIST_WORDS + 2)
    m, j = n // radix, 0
    while j < m:
        end = m if m - j < 2 * CHUNK else j + CHUNK
        for q in range(radix):
            move(p, tables, which, x, q * m + j, end - j, False, like)
        steps.first(like, x, j, end, n, radix, weights, twiddles, planes)
        j = end


@part
def leave(p: int, tables: int, which: int, x: int, weights: int, like: Any) -> None:
    """Make the last pass on x and store a list's samples while they are in the first cache."""
    n, radix, twiddles = word(p, LEVELS), word(p, LEVELS + 1), word(p, LEVELS + 2)
    planes = word(p, LISTS + which * LIST_WORDS + 2)
    m, j = n // radix, 0
    while j < m:
        end = m if m - j < 2 * CHUNK else j + CHUNK
        steps.last(like, x, j, end, n, radix, weights, twiddles, planes)
        for q in range(radix):
            move(p, tables, which, x, q * m + j, end - j, True, like)
        j = end


# What a walk through the frequencies does.
MULTIPLY, TRANSFORM, INVERT = 0, 1, 2


@part
def walk(p: int, x: int, s: int, kind: int, how: int, like: Any) -> None:
    """All passes but the first and the last, block by block: what a block needs is done while a cache holds it.

    The blocks of BASE rows come in order. Before one, the `dif` passes of all larger blocks that begin there are made, from
    the largest; after one, the `dit` passes of those that end there, from the smallest.
    """
    depth, base, points = word(p, DEPTH), word(p, BASE), word(p, N)
    radix = word(p, LEVELS + (depth - 1) * LEVEL_WORDS + 1)
    for row in range(0, points, base):
        at, spectrum = x + row * ROW_BYTES, s + row * ROW_BYTES
        if kind != INVERT:
            for level in range(1, depth - 1):
                v = p + (LEVELS + level * LEVEL_WORDS) * INT
                n = word(v, 0)
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
                    steps.dit(like, at, base, n, word(v, 1), word(v, 2))
                elif (row + base) % n == 0:
                    steps.dit(like, x + (row + base - n) * ROW_BYTES, n, n, word(v, 1), word(v, 2))


@part
def spectrum(p: int, tables: int, which: int, x: int, weights: int, like: Any) -> None:
    enter(p, tables, which, x, weights, like)
    walk(p, x, x, TRANSFORM, 0, like)


def scratch_bytes(points: int, parts: int) -> int:
    """The scratch memory of one thread: address tables, and `parts` transforms of `points` rows."""
    return TABLE_BYTES + parts * (points * ROW_BYTES + GAP_BYTES)


@part
def scratch_part(scratch: int, number: int, points: int) -> int:
    return scratch + TABLE_BYTES + number * (points * ROW_BYTES + GAP_BYTES)


@kernel
def forward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The convolution of the units begin … end - 1."""
    points, batch, chunks = word(p, N), word(p, BATCH), word(p, CHUNKS)
    x, s = scratch_part(scratch, 0, points), scratch_part(scratch, 1, points)
    known = -1
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        for b in range(batch * chunk // chunks, batch * (chunk + 1) // chunks):
            aim(p, scratch, b, tile, like)
            if known != tile:
                spectrum(p, scratch, TAPS, s, word(p, SCALED), like)
                known = tile
            enter(p, scratch, INPUT, x, word(p, WEIGHTS), like)
            walk(p, x, s, MULTIPLY, 0, like)
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
                    steps.clear(like, total, points)
                    steps.clear(like, total + ROW_BYTES // 2, points)
            if need_k or need_y:
                spectrum(p, scratch, INPUT, x, word(p, WEIGHTS), like)
            if need_k or need_x:
                spectrum(p, scratch, DZ, z, word(p, WEIGHTS), like)
            if need_k:
                steps.accumulate(like, total, z, x, points)
            if need_x:
                walk(p, z, s, INVERT, CONJUGATE, like)
                leave(p, scratch, DX, z, word(p, WEIGHTS), like)
            if need_y:
                walk(p, x, s, INVERT, PRODUCT, like)
                leave(p, scratch, DPOSTGATE, x, word(p, WEIGHTS), like)
        if need_k:  # 1/N came with the filter's spectrum so far
            walk(p, total, total, INVERT, ALONE, like)
            leave(p, scratch, DK, total, word(p, SCALED), like)
