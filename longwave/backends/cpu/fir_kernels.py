"""The loops of the direct sums: what Python calls, compiled by Numba around the traced steps of `fir`.

A strip of channels is fetched for a chunk of time (times its gate, zeros where there is nothing), summed over the taps row by
row while it is in the caches, and stored. Gradients of filters are sums over time: each unit adds its own, for a span of
time that depends on nothing but the problem, and `gather` adds those in order.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import fir
from longwave.backends.cpu.fir_program import (
    ACTIVATION,
    ADDRESS,
    BATCH,
    BIAS,
    CHANNELS,
    CHUNK,
    DBIAS,
    DPAST,
    DPOSTGATE,
    DPREGATE,
    DSKIP,
    DTAPS,
    DU,
    DY,
    FALLING,
    FIRST,
    GROUPS,
    HEADER,
    IN_FIRST,
    IN_LAST,
    INT,
    LAST,
    LOW,
    OUT_FIRST,
    OUT_LAST,
    OUT_START,
    PARTIAL_ROW,
    PARTIALS,
    PAST,
    PAST_START,
    PER_SAMPLE,
    POSTGATE,
    PREGATE,
    REPEATS,
    ROW,
    SKIP,
    SPAN,
    SPANS,
    STORED,
    STRIDE_B,
    STRIDE_H,
    STRIDE_T,
    STRIP,
    SUM_LANES,
    TABLE_ROW,
    TAP_COUNT,
    TAPS,
    U_START,
    VIEW_WORDS,
    U,
    Y,
)  # fmt: skip
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.simd import STORED_BYTES, lanes_of, peek, vector_bytes

VECTOR_BYTES = vector_bytes()


@part
def word(p: int, index: int) -> int:
    return peek(p + index * INT)


@part
def about(p: int, which: int, what: int) -> int:
    return peek(p + (HEADER + which * VIEW_WORDS + what) * INT)


@part
def given(p: int, which: int) -> bool:
    return about(p, which, ADDRESS) != 0


@part
def move(
    p: int, which: int, origin: int, first: int, last: int, b: int, h: int, n: int, start: int, count: int, buffer: int,
    store: bool, like: Any,
) -> None:  # fmt: skip
    """The samples of a tensor at the times start … start + count - 1, of n channels, as far as they are in first … last - 1:
    to the buffer, whose rows begin at `start`, or from it."""
    low, high = max(start, first), min(start + count, last)
    if not given(p, which) or low >= high:
        return
    W, row = lanes_of(like), word(p, ROW)
    rows, times, code = about(p, which, STRIDE_H), about(p, which, STRIDE_T), about(p, which, STORED)
    size, number = STORED_BYTES[code], high - low
    x = about(p, which, ADDRESS) + b * about(p, which, STRIDE_B) + h * rows + (low - origin) * times
    at = buffer + (low - start) * (VECTOR_BYTES // W)
    if times == size:
        if store:
            fir.store_rows(like, at, row, n, x, rows, code, number)
        else:
            fir.load_rows(like, at, row, n, x, rows, code, number)
    elif rows == size and n >= W and number >= W:
        if store:
            fir.store_tiles(like, at, row, n, x, times, code, number)
        else:
            fir.load_tiles(like, at, row, n, x, times, code, number)
    elif store:
        fir.store_singly(like, at, row, n, x, rows, times, code, number)
    else:
        fir.load_singly(like, at, row, n, x, rows, times, code, number)


@part
def blank(p: int, buffer: int, n: int, start: int, count: int, first: int, last: int, like: Any) -> None:
    """Zeros where the buffer's times are outside of first … last - 1."""
    row, E = word(p, ROW), VECTOR_BYTES // lanes_of(like)
    before = min(max(first - start, 0), count)
    after = min(max(last - start, before), count)
    fir.blank(like, buffer, row, n, before)
    fir.blank(like, buffer + after * E, row, n, count - after)


@part
def fetch_input(p: int, b: int, h: int, n: int, start: int, count: int, x: int, spare: int, like: Any) -> None:
    """v = pregate · u, and the history before it, as rows that begin at the time `start`."""
    u_start, last = word(p, U_START), word(p, IN_LAST)
    first = max(u_start, word(p, IN_FIRST))
    move(p, U, u_start, first, last, b, h, n, start, count, x, False, like)
    if given(p, PREGATE):
        move(p, PREGATE, u_start, first, last, b, h, n, start, count, spare, False, like)
        fir.times(like, x, x, spare, word(p, ROW), n, count)
    blank(p, x, n, start, count, first, last, like)
    move(p, PAST, word(p, PAST_START), word(p, IN_FIRST), min(u_start, last), b, h, n, start, count, x, False, like)


@part
def fetch_taps(p: int, table: int, b: int, h: int, n: int, like: Any) -> None:
    """The taps of n rows, in the order they are stored in: D added to the one of lag 0, and the bias behind the last."""
    E, K, row, repeats = VECTOR_BYTES // lanes_of(like), word(p, TAP_COUNT), word(p, TABLE_ROW), word(p, REPEATS)
    rows = about(p, TAPS, STRIDE_H)
    start = about(p, TAPS, ADDRESS) + b * about(p, TAPS, STRIDE_B)
    times, code = about(p, TAPS, STRIDE_T), about(p, TAPS, STORED)
    each = 1 if repeats > 1 else n
    for r in range(0, n, each):
        x = start + (h + r) // repeats * rows
        if times == STORED_BYTES[code]:
            fir.load_rows(like, table + r * row, row, each, x, rows, code, K)
        else:
            fir.load_singly(like, table + r * row, row, each, x, rows, times, code, K)
    one_more = table + K * E
    if given(p, SKIP):
        zero = K - 1 + word(p, LOW) if word(p, FALLING) != 0 else -word(p, LOW)
        rows = about(p, SKIP, STRIDE_H)
        fir.load_rows(like, one_more, row, n, about(p, SKIP, ADDRESS) + h * rows, rows, about(p, SKIP, STORED), 1)
        fir.add_one(like, table + zero * E, row, one_more, row, n)
    if given(p, BIAS):
        rows = about(p, BIAS, STRIDE_H)
        fir.load_rows(like, one_more, row, n, about(p, BIAS, ADDRESS) + h * rows, rows, about(p, BIAS, STORED), 1)


@part
def convolve(p: int, table: int, to: int, x: int, n: int, count: int, like: Any) -> None:
    """Rows of the sum over taps (plus the bias), from x, which begins the largest lag earlier."""
    E, K, row, taps_row = VECTOR_BYTES // lanes_of(like), word(p, TAP_COUNT), word(p, ROW), word(p, TABLE_ROW)
    first, step = (table, E) if word(p, FALLING) != 0 else (table + (K - 1) * E, -E)
    fir.fir(like, to, x, row, n, count, first, taps_row, step, K)
    if given(p, BIAS):
        fir.add_bias(like, to, row, n, table + K * E, taps_row, count)


@kernel
def forward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The results of the units begin … end - 1."""
    row, chunk, strip, chunks, samples = word(p, ROW), word(p, CHUNK), word(p, STRIP), word(p, SPANS), word(p, BATCH)
    K, high = word(p, TAP_COUNT), word(p, LOW) + word(p, TAP_COUNT) - 1
    out_start, out_first, out_last = word(p, OUT_START), word(p, OUT_FIRST), word(p, OUT_LAST)
    x = scratch + strip * word(p, TABLE_ROW)
    spare = x + strip * row
    known = -1
    for unit in range(begin, end):
        b, h = unit // chunks % samples, unit // (chunks * samples) * strip
        n = min(strip, word(p, CHANNELS) - h)
        start = out_first + unit % chunks * chunk
        count = min(chunk, out_last - start)
        if given(p, TAPS) and (known != h or word(p, PER_SAMPLE) != 0):
            fetch_taps(p, scratch, b, h, n, like)
            known = h
        fetch_input(p, b, h, n, start - high, count + K - 1, x, spare, like)
        convolve(p, scratch, x, x, n, count, like)
        fir.activate(like, x, row, n, word(p, ACTIVATION), count)
        if given(p, POSTGATE):
            move(p, POSTGATE, out_start, out_first, out_last, b, h, n, start, count, spare, False, like)
            fir.times(like, x, x, spare, row, n, count)
        move(p, Y, out_start, out_first, out_last, b, h, n, start, count, x, True, like)


@part
def partial(p: int, b: int, h: int, span: int) -> int:
    """The address of one unit's totals for a channel: its taps in order of falling lag, some room, and its bias."""
    return word(p, PARTIALS) + ((b * word(p, SPANS) + span) * word(p, CHANNELS) + h) * word(p, PARTIAL_ROW)


@kernel
def backward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The gradients of the units begin … end - 1: of the signals, and their share of those of the filters."""
    E = VECTOR_BYTES // lanes_of(like)
    row, chunk, strip, spans, samples = word(p, ROW), word(p, CHUNK), word(p, STRIP), word(p, SPANS), word(p, BATCH)
    K, low, partial_row = word(p, TAP_COUNT), word(p, LOW), word(p, PARTIAL_ROW)
    high = low + K - 1
    out_start, out_first, out_last = word(p, OUT_START), word(p, OUT_FIRST), word(p, OUT_LAST)
    u_start, in_first, in_last = word(p, U_START), word(p, IN_FIRST), word(p, IN_LAST)
    first = max(u_start, in_first)
    need_x = given(p, DU) or given(p, DPREGATE) or given(p, DPAST)
    need_taps = given(p, DTAPS) or given(p, DSKIP)
    activation = word(p, ACTIVATION)
    x = scratch + strip * word(p, TABLE_ROW)
    g = x + strip * row
    spare = g + strip * row
    # dz is fetched from the lag `back` before a chunk to the lag `ahead` after it: what a sample of dx is made of.
    back, ahead = (min(low, 0), max(high, 0)) if need_x else (0, 0)
    known = -1
    for unit in range(begin, end):
        b, h, span = unit // spans % samples, unit // (spans * samples) * strip, unit % spans
        n = min(strip, word(p, CHANNELS) - h)
        span_start = word(p, FIRST) + span * word(p, SPAN)
        span_end = min(span_start + word(p, SPAN), word(p, LAST))
        if given(p, TAPS) and (known != h or word(p, PER_SAMPLE) != 0):
            fetch_taps(p, scratch, b, h, n, like)
            known = h
        totals = partial(p, b, h, span)
        if word(p, PARTIALS) != 0:
            fir.clear_totals(like, totals, n * (partial_row // INT))
        for start in range(span_start, span_end, chunk):
            count = min(chunk, span_end - start)
            whole = -(-count // SUM_LANES) * SUM_LANES
            reach = whole + ahead - back
            dz = g - back * E  # at the time `start`
            move(p, DY, out_start, out_first, out_last, b, h, n, start + back, reach, g, False, like)
            if need_taps or activation != 0 or given(p, DPOSTGATE):
                length = (reach if activation != 0 else whole) + K - 1
                fetch_input(p, b, h, n, start - high, length, x, spare, like)
            if given(p, DPOSTGATE):
                convolve(p, scratch, spare, x, n, count, like)
                fir.times(like, spare, spare, dz, row, n, count)
                move(p, DPOSTGATE, out_start, out_first, out_last, b, h, n, start, count, spare, True, like)
            if given(p, POSTGATE):
                move(p, POSTGATE, out_start, out_first, out_last, b, h, n, start + back, reach, spare, False, like)
                fir.times(like, g, g, spare, row, n, reach)
            if activation != 0:
                convolve(p, scratch, spare, x, n, reach, like)
                fir.times_slope(like, g, spare, row, n, activation, reach)
            blank(p, g, n, start + back, reach, out_first, out_last, like)
            if need_taps and K == 1:
                fir.correlate_one(like, totals, partial_row, dz, x, row, n, whole)
            elif need_taps:
                fir.correlate(like, totals, partial_row, dz, x, row, n, whole, K)
            if given(p, DBIAS):
                fir.add_up(like, totals + partial_row - INT, partial_row, dz, row, n, whole)
            if not need_x:
                continue
            taps, step = (scratch + (K - 1) * E, -E) if word(p, FALLING) != 0 else (scratch, E)
            fir.fir(like, g, dz + low * E, row, n, count, taps, word(p, TABLE_ROW), step, K)
            move(p, DPAST, word(p, PAST_START), in_first, min(u_start, in_last), b, h, n, start, count, g, True, like)
            if given(p, DPREGATE):
                move(p, U, u_start, first, in_last, b, h, n, start, count, spare, False, like)
                fir.times(like, spare, spare, g, row, n, count)
                move(p, DPREGATE, u_start, first, in_last, b, h, n, start, count, spare, True, like)
            if given(p, PREGATE) and given(p, DU):
                move(p, PREGATE, u_start, first, in_last, b, h, n, start, count, spare, False, like)
                fir.times(like, g, g, spare, row, n, count)
            move(p, DU, u_start, first, in_last, b, h, n, start, count, g, True, like)


@part
def gather_one(p: int, which: int, index: int, samples: int, h: int, scratch: int, like: Any) -> None:
    """One of the totals of a channel, summed over the batch and the spans, to the gradient of D or of the bias."""
    fir.clear_totals(like, scratch, 1)
    for b in range(samples):
        for span in range(word(p, SPANS)):
            fir.add_totals(like, scratch, partial(p, b, h, span) + index * INT, 1)
    to = about(p, which, ADDRESS) + h * about(p, which, STRIDE_H)
    fir.store_totals(like, to, 0, scratch, 0, about(p, which, STORED), 1)


@kernel
def gather(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The gradients of the filters begin … end - 1, from the totals of the units, in a fixed order."""
    K, low, repeats, groups = word(p, TAP_COUNT), word(p, LOW), word(p, REPEATS), word(p, GROUPS)
    samples, spans = word(p, BATCH), word(p, SPANS)
    for unit in range(begin, end):
        group = unit % groups
        first, last = (unit // groups, unit // groups + 1) if word(p, PER_SAMPLE) != 0 else (0, samples)
        if given(p, DTAPS):
            fir.clear_totals(like, scratch, K)
            for b in range(first, last):
                for h in range(group * repeats, (group + 1) * repeats):
                    for span in range(spans):
                        fir.add_totals(like, scratch, partial(p, b, h, span), K)
            to = about(p, DTAPS, ADDRESS) + first * about(p, DTAPS, STRIDE_B) + group * about(p, DTAPS, STRIDE_H)
            times, code = about(p, DTAPS, STRIDE_T), about(p, DTAPS, STORED)
            if word(p, FALLING) != 0:
                fir.store_totals(like, to, times, scratch, INT, code, K)
            else:
                fir.store_totals(like, to, times, scratch + (K - 1) * INT, -INT, code, K)
        if first == 0:
            for h in range(group * repeats, (group + 1) * repeats):
                if given(p, DSKIP):
                    gather_one(p, DSKIP, low + K - 1, samples, h, scratch, like)
                if given(p, DBIAS):
                    gather_one(p, DBIAS, word(p, PARTIAL_ROW) // INT - 1, samples, h, scratch, like)
