"""Between tensors and scratch memory: where W rows stand, which samples a pass needs next, and the widest way to move them.

A *unit* of `fused` has W rows (one a lane, neighbouring channels); rows beyond the last one repeat it, and so compute and
store the same bits once more: no lane is masked. A unit of `six_step` has W neighbouring columns of one row that is laid out
as a matrix, n = n1·COLUMNS + n2.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import stages, steps, words
from longwave.backends.cpu.jit import part
from longwave.backends.cpu.simd import STORED_BYTES, lanes_of, peek, poke, vector_bytes
from longwave.backends.cpu.words import INT

# A row of scratch memory: W real parts and W imaginary parts, in either arithmetic type.
PLANE_BYTES = vector_bytes()
ROW_BYTES = 2 * PLANE_BYTES

# How an entry's samples travel: W rows that are contiguous in time, W neighbours in memory, one sample at a time, or zeros.
BY_ROWS, BY_LANES, SINGLY, ZEROS = range(4)
# Words of an entry: what one point of the butterfly of the first or last pass exchanges with one tensor, for a run of j.
(
    WAY, STAGE, TABLE, GATES, GATED, CODE, STRIDE, GATE_STRIDE, OFFSET, GATE_OFFSET, FACTOR, ONTO, LANE_START, LANE_STOP,
    SCALED, ENTRY_WORDS,
) = range(16)  # fmt: skip
# Words of a run: the segment, its rows, and the lanes that it has there.
SEGMENT, START, STOP, RUN_LANE_START, RUN_LANE_STOP, RUN_WORDS = range(6)

# What a thread's scratch memory begins with, for every side of a unit: the unit's first column, the samples that its window is
# moved by, the addresses of the filters whose spectrum is known, those of W rows for every view, the runs of a list, the
# entries of a piece, the stage, and what is to be scaled: rows of one plane, and a row of their factors.
COLUMN_AT, SHIFT_AT = 0, 8
KNOWN_AT = 64
TABLES_AT = KNOWN_AT + words.MAX_SEGMENTS * INT * 16
RUNS_AT = TABLES_AT + words.MAX_VIEWS * INT * 16
ENTRIES_AT = RUNS_AT + 3 * words.MAX_SEGMENTS * RUN_WORDS * INT
STAGE_AT = ENTRIES_AT + max(steps.RADICES) * 3 * words.MAX_SEGMENTS * ENTRY_WORDS * INT
UNSCALED_AT = STAGE_AT + 2 * max(steps.RADICES) * stages.STAGED * PLANE_BYTES
FACTORS_AT = UNSCALED_AT + stages.STAGED * PLANE_BYTES
PARTS_AT = FACTORS_AT + PLANE_BYTES


@part
def word(p: int, index: int) -> int:
    return peek(p + index * INT)


@part
def aim(p: int, scratch: int, b: int, tile: int, like: Any) -> None:
    """Write the addresses of W rows, for every view; `b` counts samples and their windows."""
    W, tables = lanes_of(like), scratch + TABLES_AT
    H, rows, in_loop, in_lanes = (
        word(p, words.CHANNELS), word(p, words.ROWS), word(p, words.LOOP_WINDOWS), word(p, words.LANE_WINDOWS),
    )  # fmt: skip
    shift = 0
    for view in range(word(p, words.VIEW_COUNT)):
        v = p + (words.VIEWS + view * words.VIEW_WORDS) * INT
        start, sb, sh = word(v, words.ADDRESS), word(v, words.STRIDE_B), word(v, words.STRIDE_H)
        repeats, moves = word(v, words.REPEATS), word(v, words.MOVES) * word(v, words.STRIDE_T)
        for lane in range(W):
            h, sample, window = min(tile * W + lane, rows - 1), b, 0
            if in_loop != 1:
                sample, window = b // in_loop, b % in_loop
            if in_lanes != 1:
                h, window = h // in_lanes, h % in_lanes
            if h >= H:
                sample, h = sample + h // H, h % H
            if repeats != 1:
                h = h // repeats
            shift = (word(p, words.FIRST_WINDOW) + window) * word(p, words.HOP)
            poke(tables + (view * W + lane) * INT, start + sample * sb + h * sh + shift * moves)
    poke(scratch + COLUMN_AT, 0)
    poke(scratch + SHIFT_AT, shift)


@part
def is_known(p: int, scratch: int, like: Any) -> bool:
    """Whether the filters (and what is added to them) are those of the last time; they are from now on."""
    W, same, known = lanes_of(like), True, scratch + KNOWN_AT
    for which in (words.TAPS, words.LIFT):
        about = words.LISTS + which * words.LIST_WORDS
        for i in range(word(p, about + 1)):
            segment = p + (words.SEGMENTS + (word(p, about) + i) * words.SEGMENT_WORDS) * INT
            table = scratch + TABLES_AT + word(segment, words.VIEW) * W * INT
            for lane in range(W):
                same = same and peek(known + lane * INT) == peek(table + lane * INT)
                poke(known + lane * INT, peek(table + lane * INT))
            known += W * INT
    return same


@part
def aim_at_columns(p: int, scratch: int, b: int, h: int, tile: int, like: Any) -> None:
    """Write the addresses of W neighbouring columns of one row, for every view."""
    W, tables = lanes_of(like), scratch + TABLES_AT
    poke(scratch + COLUMN_AT, tile * W)
    for view in range(word(p, words.VIEW_COUNT)):
        v = p + (words.VIEWS + view * words.VIEW_WORDS) * INT
        start = word(v, words.ADDRESS) + b * word(v, words.STRIDE_B) + h // word(v, words.REPEATS) * word(v, words.STRIDE_H)
        for lane in range(W):
            poke(tables + (view * W + lane) * INT, start + (tile * W + lane) * word(v, words.STRIDE_T))


@part
def runs(p: int, scratch: int, which: int, like: Any) -> int:
    """Write the runs of a list: its segments, cut where not all lanes have a sample in a row of the matrix; their number."""
    W, columns, column, count = lanes_of(like), word(p, words.COLUMNS), peek(scratch + COLUMN_AT), 0
    about = words.LISTS + which * words.LIST_WORDS
    for i in range(word(p, about), word(p, about) + word(p, about + 1)):
        s = p + (words.SEGMENTS + i * words.SEGMENT_WORDS) * INT
        begin, skipped, length = word(s, words.ROW), 0, word(s, words.COUNT)
        if word(s, words.HIGH) > 0:
            first = word(s, words.FIRST) + peek(scratch + SHIFT_AT)
            skipped, length = max(0, word(s, words.LOW) - first), min(length, word(s, words.HIGH) - first)
        begin, end = begin + skipped, begin + length
        if columns == 0:
            count = _add_run(scratch, count, s, begin, end, 0, W)
            continue
        begin, end = begin - column, end - column  # of lane 0
        some, every = max(0, -((W - 1 - begin) // columns)), max(0, -(-begin // columns))
        last_every, last_some = max(0, -((W - 1 - end) // columns)), max(0, -(-end // columns))
        count = _add_run(scratch, count, s, every, last_every, 0, W)
        for start, stop in ((some, min(every, last_some)), (max(every, last_every), last_some)):
            low, high = max(0, begin - start * columns), min(W, end - start * columns)
            count = _add_run(scratch, count, s, start, stop, low, high)
    return count


@part
def _add_run(scratch: int, count: int, s: int, start: int, stop: int, low: int, high: int) -> int:
    if start >= stop or low >= high:
        return count
    run = scratch + RUNS_AT + count * RUN_WORDS * INT
    poke(run + SEGMENT * INT, s)
    poke(run + START * INT, start)
    poke(run + STOP * INT, stop)
    poke(run + RUN_LANE_START * INT, low)
    poke(run + RUN_LANE_STOP * INT, high)
    return count + 1


@part
def side_by_side(table: int, size: int, W: int) -> bool:
    """Whether the W rows of a view are neighbours in memory."""
    start, lane = peek(table), 1
    while lane < W and peek(table + lane * INT) == start + lane * size:
        lane += 1
    return lane == W


@part
def _describe(p: int, scratch: int, run: int, base: int, entry: int, stage: int, like: Any) -> None:
    """Write the entry for a run; `base` is the row of j = 0."""
    W, s = lanes_of(like), word(run, SEGMENT)
    view, gate = word(s, words.VIEW), word(s, words.GATE)
    v = p + (words.VIEWS + view * words.VIEW_WORDS) * INT
    code, sample = word(v, words.STORED), word(v, words.STRIDE_T)
    gate_sample = sample if gate < 0 else word(p, words.VIEWS + gate * words.VIEW_WORDS + words.STRIDE_T)
    rows = max(1, word(p, words.COLUMNS))
    size, before = STORED_BYTES[code], word(s, words.FIRST) - word(s, words.ROW)
    table, gates = scratch + TABLES_AT + view * W * INT, scratch + TABLES_AT + gate * W * INT
    way, scale = SINGLY, word(s, words.SCALE)
    if scale >= 0:
        factors, stored = scratch + TABLES_AT + scale * W * INT, word(p, words.VIEWS + scale * words.VIEW_WORDS + words.STORED)
        steps.a_number_a_lane(like, scratch + FACTORS_AT, factors, stored)
    if (word(s, words.ADD) == 0 or scale >= 0) and word(run, RUN_LANE_STOP) - word(run, RUN_LANE_START) == W:
        if sample * rows == size and sample == gate_sample:
            way = BY_ROWS
        elif side_by_side(table, size, W) and (gate < 0 or side_by_side(gates, size, W)):
            way = BY_LANES
    poke(entry + WAY * INT, way)
    poke(entry + STAGE * INT, stage)
    poke(entry + TABLE * INT, table)
    poke(entry + GATES * INT, gates)
    poke(entry + GATED * INT, 1 if gate >= 0 else 0)
    poke(entry + CODE * INT, code)
    poke(entry + STRIDE * INT, rows * sample)
    poke(entry + GATE_STRIDE * INT, rows * gate_sample)
    poke(entry + OFFSET * INT, (before + base * rows) * sample)
    poke(entry + GATE_OFFSET * INT, (before + base * rows) * gate_sample)
    poke(entry + FACTOR * INT, word(s, words.SIGN))
    poke(entry + ONTO * INT, word(s, words.ADD))
    poke(entry + LANE_START * INT, word(run, RUN_LANE_START))
    poke(entry + LANE_STOP * INT, word(run, RUN_LANE_STOP))
    poke(entry + SCALED * INT, 1 if scale >= 0 else 0)


@part
def piece(
    p: int, scratch: int, count: int, planes: int, j: int, m: int, radix: int, stage: int, store: bool, like: Any
) -> tuple[int, int]:
    """Write the entries that hold from row j of every point of the butterfly on; their number, and the j where they end."""
    entries, end = 0, m
    for plane in range(planes):
        for q in range(radix):
            row = q * m + j
            covered = store
            # First the runs that fill their rows, or zeros; then those that add something or have some of the lanes. What is
            # added to results is so before they are stored.
            for later in range(2):
                for i in range(count):
                    run = scratch + RUNS_AT + i * RUN_WORDS * INT
                    s, start, stop = word(run, SEGMENT), word(run, START), word(run, STOP)
                    if word(s, words.PLANE) == plane and row < stop:
                        end = min(end, j + (stop if start <= row else start) - row)
                        whole, adds = word(run, RUN_LANE_STOP) - word(run, RUN_LANE_START) == lanes_of(like), word(s, words.ADD)
                        if start <= row and (adds != 0 if store else whole and adds == 0) == (later == 0):
                            entry = scratch + ENTRIES_AT + entries * ENTRY_WORDS * INT
                            _describe(p, scratch, run, q * m, entry, stage, like)
                            entries += 1
                            covered = True
                if not covered:
                    entry = scratch + ENTRIES_AT + entries * ENTRY_WORDS * INT
                    poke(entry + WAY * INT, ZEROS)
                    poke(entry + STAGE * INT, stage)
                    entries += 1
                    covered = True
            stage += stages.STAGED * PLANE_BYTES
    return entries, end


@part
def exchange(scratch: int, entries: int, j: int, count: int, store: bool, streams: int, like: Any) -> None:
    """Fetch the samples of all entries for j … j + count - 1 to the stage (or store them, but for those that are added to it),
    each by the widest way there is, and past the caches if it `streams`."""
    for number in range(entries):
        e = scratch + ENTRIES_AT + number * ENTRY_WORDS * INT
        way, stage = word(e, WAY), word(e, STAGE)
        if way == ZEROS:
            steps.clear(like, stage, count)
            continue
        table, gates, gated, code, sign = word(e, TABLE), word(e, GATES), word(e, GATED), word(e, CODE), word(e, FACTOR)
        stride, gate_stride = word(e, STRIDE), word(e, GATE_STRIDE)
        offset, gate_offset = word(e, OFFSET) + j * stride, word(e, GATE_OFFSET) + j * gate_stride
        onto, scaled, to = word(e, ONTO), word(e, SCALED) != 0, stage
        puts = store and onto == 0
        if scaled:
            to, onto = scratch + UNSCALED_AT, 0
        if way == BY_ROWS and count >= lanes_of(like):
            if puts:
                stages.put_rows(like, stage, table, gates, gated, code, offset, count, sign, streams)
            else:
                stages.fetch_rows(like, to, table, gates, gated, code, offset, count, sign)
        elif way == BY_LANES:
            if puts:
                stages.put_lanes(
                    like, stage, table, gates, gated, code, offset, stride, gate_offset, gate_stride, count, sign, streams
                )
            else:
                stages.fetch_lanes(like, to, table, gates, gated, code, offset, stride, gate_offset, gate_stride, count, sign)
        else:
            start, stop = word(e, LANE_START), word(e, LANE_STOP)
            if puts:
                stages.put_singly(
                    like, stage, table, gates, gated, code, offset, stride, gate_offset, gate_stride, count, sign, start, stop
                )
            else:
                if scaled:
                    steps.clear(like, to, count)
                stages.fetch_singly(
                    like, to, table, gates, gated, code, offset, stride, gate_offset, gate_stride, count, sign, start, stop,
                    onto,
                )  # fmt: skip
        if scaled:
            steps.add_scaled(like, stage, to, scratch + FACTORS_AT, count)
