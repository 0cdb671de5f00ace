"""How samples enter and leave the ring of the right-angle transform: the two functions that every kernel loads and stores by.

A ring position p in [0, 2N) is plane p // N of point p % N: z[n] = x[n] - i·x[n + N], and x stands twice where it is
wrapped, the second time with the other sign. Which samples stand where is one `Place`, in integers.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_of(i, turn, rows, SWAPPED: tl.constexpr):
    """(sample, channel, window, part, whether it exists, row of scratch memory) of row i at this turn, in int64.

    A row that does not exist is the last one once more, so that only what is stored need ask.
    """
    exists = i + tl.zeros((1, 1), tl.int32) < rows.across  # a matrix: Triton's interpreter takes no scalar for a mask
    i = tl.minimum(i, rows.across - 1).to(tl.int64)
    part = i % rows.parts
    i = i // rows.parts
    turn = turn.to(tl.int64)
    line = turn * (rows.across // rows.parts) + i
    if SWAPPED:
        span, channel = i, turn
    else:
        span, channel = turn, i
    return rows.sample + span // rows.windows, rows.channel + channel, span % rows.windows, part, exists, line


@triton.jit
def at(view, b, h, t):
    return view.pointer + (b * view.b + h * view.h) + t * view.t


@triton.jit
def load_ring(signal, place, p, b, h, window, exists):
    """float32 samples at the positions p of the ring; what is not there is 0."""
    here = exists & (p >= place.low) & (p < place.high)
    t = p.to(tl.int64) + (place.start + window * place.hop)
    inside = here & (t >= 0) & (t < place.length)
    v = tl.load(at(signal.x, b, h, t), inside, 0.0).to(tl.float32)
    if signal.gate is not None:
        v = v * tl.load(at(signal.gate, b, h, t), inside, 0.0).to(tl.float32)
    if signal.past is not None:
        earlier = here & (t < 0) & (t >= -place.before)
        v += tl.load(at(signal.past, b, h, t + place.before), earlier, 0.0).to(tl.float32)
    if place.again is not None:
        s = p.to(tl.int64) + place.again
        v -= tl.load(at(signal.x, b, h, s), here & (s >= place.least) & (s < place.length), 0.0).to(tl.float32)
    return v


@triton.jit
def _store(view, value, b, h, t, where):
    tl.store(at(view, b, h, t), value.to(view.pointer.dtype.element_ty), where)


@triton.jit
def store_ring(r, results, place, signal, source, p, b, h, window, exists):
    """Store float32 results at the positions p of the ring. `signal` and its place `source` are what D is applied to."""
    here = exists & (p >= place.low) & (p < place.high)
    t = p.to(tl.int64) + (place.start + window * place.hop)
    inside = here & (t >= 0) & (t < place.length)
    if results.past is not None:
        _store(results.past, r, b, h, t + place.before, here & (t < 0) & (t >= -place.before))
    if results.again is not None:
        s = p.to(tl.int64) + place.again
        _store(results.again, -r, b, h, s, here & (s >= place.least) & (s < place.length))
    if results.skip is not None:
        s = t + results.shift
        beside = inside & (s >= 0) & (s < source.length)
        v = tl.load(at(signal.x, b, h, s), beside, 0.0).to(tl.float32)
        if signal.gate is not None:
            v = v * tl.load(at(signal.gate, b, h, s), beside, 0.0).to(tl.float32)
        r = r + v * tl.load(results.skip + h * results.step).to(tl.float32)
    if results.y is not None:
        v = r
        if results.gate is not None:
            v = v * tl.load(at(results.gate, b, h, t), inside, 0.0).to(tl.float32)
        _store(results.y, v, b, h, t, inside)
    if results.y2 is not None:
        v = r * tl.load(at(results.gate2, b, h, t), inside, 0.0).to(tl.float32)
        _store(results.y2, v, b, h, t, inside)
