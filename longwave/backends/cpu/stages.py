"""What happens inside a loop of moves between tensors and stages: W rows in float memory, one a lane.

`table` holds the addresses of sample 0 of the W rows, and `gates` those of a factor's rows, or is 0.
"""

from __future__ import annotations

from contextlib import nullcontext

from longwave.backends.cpu.lanes import Address, Lanes, Vec, traced
from longwave.backends.cpu.simd import STORED_BYTES

# Rows of one plane that stand between memory and a butterfly of the first or last pass, for every point of the butterfly.
# A cache line of float32 of every lane, and few enough for the first cache. Measured: 8, 16 and 32.
STAGED = 16
# Rows that stand apart in memory are asked for so many rows before their turn. Measured: 8, 16, 24, 32 and 64.
AHEAD_ROWS = 32


def stage_bytes(t: Lanes) -> int:
    """The stage of one plane of one point of the butterfly."""
    return STAGED * t.plane


def _loaded(t: Lanes, lane: int | Address, at: Address, table: Address, gates: Address, code: int, gated: int) -> Vec:
    x = t.load_stored(t.read_int(table + lane * 8) + at, code)
    return x * t.load_stored(t.read_int(gates + lane * 8) + at, code) if gated else x


def _ahead(t: Lanes, table: Address, offset: Address, code: int, to_write: bool, streams: bool = False) -> None:
    """Ask for what follows: so many rows at a time, at distances of powers of two, are more than prefetchers follow."""
    for lane in range(t.width):
        at = t.read_int(table + lane * 8) + offset
        with t.unless_streamed(at) if streams else nullcontext():
            for line in range(STAGED * STORED_BYTES[code] // 64):
                t.prefetch(at + line * 64, to_write)


@traced
def ahead(t: Lanes, table: Address, at: Address, lines: Address) -> None:
    """Ask for `lines` cache lines of W rows, `at` bytes from where they begin."""
    for lane in range(t.width):
        base = t.read_int(table + lane * 8) + at
        with t.loop(0, lines) as line:
            t.prefetch(base + line * 64)


@traced
def fetch_rows(
    t: Lanes, stage: Address, table: Address, gates: Address, has_gate: Address, code: Address, offset: Address,
    count: Address, sign: Address,
) -> None:  # fmt: skip
    """`count` >= W samples of W rows that are contiguous in time, from `offset` bytes on, to rows of one plane.

    The last block is moved back to overlap the one before, so that no sample is read alone.
    """
    for stored in t.stored(code):
        for gated in t.cases(has_gate, (0, 1)):
            factor = t.from_int(sign)
            _ahead(t, table, offset + STAGED * STORED_BYTES[stored], stored, False)
            with t.loop(0, t.vectors(count)) as block:
                j = (block * t.width).at_most(count - t.width)
                at = offset + j * STORED_BYTES[stored]
                rows = [_loaded(t, lane, at, table, gates, stored, gated) * factor for lane in range(t.width)]
                for q, x in enumerate(t.transposed(rows)):
                    t.store(stage + (j + q) * t.plane, x, aligned=True)


@traced
def fetch_lanes(
    t: Lanes, stage: Address, table: Address, gates: Address, has_gate: Address, code: Address, offset: Address,
    stride: Address, gate_offset: Address, gate_stride: Address, count: Address, sign: Address,
) -> None:  # fmt: skip
    """As `fetch_rows`, for W rows that are contiguous in the channels."""
    start, gate_start = t.read_int(table) + offset, gate_offset
    for stored in t.stored(code):
        for gated in t.cases(has_gate, (0, 1)):
            factor = t.from_int(sign)
            if gated:
                gate_start = t.read_int(gates) + gate_offset
            with t.loop(0, count) as j:
                at = start + j * stride
                t.prefetch(at + AHEAD_ROWS * stride)
                x = t.load_stored(at, stored)
                if gated:
                    gate = gate_start + j * gate_stride
                    t.prefetch(gate + AHEAD_ROWS * gate_stride)
                    x = x * t.load_stored(gate, stored)
                t.store(stage + j * t.plane, x * factor, aligned=True)


@traced
def fetch_singly(
    t: Lanes, stage: Address, table: Address, gates: Address, has_gate: Address, code: Address, offset: Address,
    stride: Address, gate_offset: Address, gate_stride: Address, count: Address, sign: Address, start: Address, stop: Address,
    add: Address,
) -> None:  # fmt: skip
    """As `fetch_rows`, with any strides, for the lanes start … stop - 1; with `add` onto what is there."""
    one = t.one_lane()
    for stored in t.stored(code):
        with t.loop(0, count) as j, t.loop(start, stop) as lane:
            x = one.load_stored(t.read_int(table + lane * 8) + offset + j * stride, stored) * one.from_int(sign)
            at = stage + j * t.plane + lane * t.E
            for gated in t.cases(has_gate, (0, 1)):
                y = x
                if gated:
                    y = x * one.load_stored(t.read_int(gates + lane * 8) + gate_offset + j * gate_stride, stored)
                for onto in t.cases(add, (0, 1)):
                    one.store(at, one.load(at) + y if onto else y)


@traced
def put_rows(
    t: Lanes, stage: Address, table: Address, gates: Address, has_gate: Address, code: Address, offset: Address,
    count: Address, sign: Address, streams: Address,
) -> None:  # fmt: skip
    """`count` >= W rows of one plane to samples of W rows that are contiguous in time, from `offset` bytes on; past the caches
    if it `streams`."""
    for stored in t.stored(code):
        for gated in t.cases(has_gate, (0, 1)):
            for past in t.cases(streams, (0, 1)):
                factor, put = t.from_int(sign), t.stream_stored if past else t.store_stored
                _ahead(t, table, offset + STAGED * STORED_BYTES[stored], stored, True, bool(past))
                with t.loop(0, t.vectors(count)) as block:
                    j = (block * t.width).at_most(count - t.width)
                    at = offset + j * STORED_BYTES[stored]
                    rows = [t.load(stage + (j + q) * t.plane, aligned=True) for q in range(t.width)]
                    for lane, x in enumerate(t.transposed(rows)):
                        x = x * factor
                        if gated:
                            x = x * t.load_stored(t.read_int(gates + lane * 8) + at, stored)
                        put(t.read_int(table + lane * 8) + at, x, stored)


@traced
def put_lanes(
    t: Lanes, stage: Address, table: Address, gates: Address, has_gate: Address, code: Address, offset: Address,
    stride: Address, gate_offset: Address, gate_stride: Address, count: Address, sign: Address, streams: Address,
) -> None:  # fmt: skip
    """As `put_rows`, for W rows that are contiguous in the channels."""
    start, gate_start = t.read_int(table) + offset, gate_offset
    for stored in t.stored(code):
        for gated in t.cases(has_gate, (0, 1)):
            factor = t.from_int(sign)
            if gated:
                gate_start = t.read_int(gates) + gate_offset
            for past in t.cases(streams, (0, 1)):
                put = t.stream_stored if past else t.store_stored
                with t.loop(0, count) as j:
                    x = t.load(stage + j * t.plane, aligned=True) * factor
                    at = start + j * stride
                    with t.unless_streamed(at) if past else nullcontext():
                        t.prefetch(at + AHEAD_ROWS * stride, to_write=True)
                    if gated:
                        gate = gate_start + j * gate_stride
                        t.prefetch(gate + AHEAD_ROWS * gate_stride)
                        x = x * t.load_stored(gate, stored)
                    put(at, x, stored)


@traced
def put_singly(
    t: Lanes, stage: Address, table: Address, gates: Address, has_gate: Address, code: Address, offset: Address,
    stride: Address, gate_offset: Address, gate_stride: Address, count: Address, sign: Address, start: Address, stop: Address,
) -> None:  # fmt: skip
    """As `put_rows`, with any strides, for the lanes start … stop - 1."""
    one = t.one_lane()
    for stored in t.stored(code):
        with t.loop(0, count) as j, t.loop(start, stop) as lane:
            x = one.load(stage + j * t.plane + lane * t.E) * one.from_int(sign)
            at = t.read_int(table + lane * 8) + offset + j * stride
            for gated in t.cases(has_gate, (0, 1)):
                y = x
                if gated:
                    y = x * one.load_stored(t.read_int(gates + lane * 8) + gate_offset + j * gate_stride, stored)
                one.store_stored(at, y, stored)
