"""What happens inside a loop of the direct sums: moves between tensors and rows of scratch memory, sums over taps and time.

Scratch memory holds rows of numbers of the arithmetic type, one a channel, in order of time, so that one sum over taps serves
every layout, stored type and gate. Rows have room for whole blocks of vectors: what is computed beyond the last sample is
garbage that nobody stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils

from longwave.backends.cpu.functions import ACTIVATIONS
from longwave.backends.cpu.lanes import Address, Lanes, Vec, fma, traced
from longwave.backends.cpu.simd import FLOAT64, I64, STORED_BYTES

# Vectors of results in flight: as many as there are registers for, beside what is read.
BLOCK = 8
# Taps, and steps in time, after which a sum is added to the one before it: rounding errors grow with the longest chain.
CHAIN = 32
# Sums over time run in so many bytes of lanes, on vectors of any width: the order of their terms does not depend on it.
SUM_BYTES = 64
# Filter gradients that are summed at a time.
TAPS_AT_ONCE = 4


class Variable:
    """A vector that a traced loop changes; LLVM keeps it in a register."""

    def __init__(self, t: Lanes) -> None:
        self.t, self.place = t, cgutils.alloca_once(t.builder, t.vector)

    def set(self, x: Vec) -> None:
        self.t.builder.store(x.value, self.place)

    def get(self) -> Vec:
        return Vec(self.t, self.t.builder.load(self.place))


def _variables(t: Lanes, count: int) -> list[Variable]:
    return [Variable(t) for _ in range(count)]


def _zeros(t: Lanes, count: int) -> list[Variable]:
    found = _variables(t, count)
    _clear(found)
    return found


def _clear(variables: list[Variable]) -> None:
    for one in variables:
        one.set(one.t.constant(0.0))


def _add(totals: list[Variable], terms: list[Variable]) -> None:
    for total, term in zip(totals, terms, strict=True):
        total.set(total.get() + term.get())


def _if(t: Lanes, condition: ir.Value) -> Address:
    return Address(t.builder, t.builder.zext(condition, I64))


def _fits(t: Lanes, *counts: Address) -> Address:
    """1 where every count is at least a vector, or 0."""
    found = ir.Constant(ir.IntType(1), 1)
    for count in counts:
        found = t.builder.and_(found, t.builder.icmp_signed(">=", count.value, ir.Constant(I64, t.width)))
    return _if(t, found)


# Moves. Sample i of row r stands at x + r·rows + i·times in the tensor, and at buffer + r·row + i·E in scratch memory. Where a
# tensor's neighbours are samples a vector is part of a row, where they are channels it is one sample of W rows. The last
# vector is moved back to overlap the one before, so that nothing outside the run is touched.


def _runs(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, rows: Address, code: Address, count: Address
) -> Iterator[tuple[int, Lanes, Address, Address, Address]]:
    """Vectors along rows, or single numbers where a row fills no vector: the stored type, the lanes, where the row begins in
    scratch memory and in the tensor, and the sample."""
    one = t.one_lane()
    for stored in t.stored(code):
        with t.loop(0, n) as r:
            start, at = buffer + r * row, x + r * rows
            for wide in t.cases(_fits(t, count), (0, 1)):
                if wide:
                    with t.loop(0, t.vectors(count)) as v:
                        yield stored, t, start, at, (v * t.width).at_most(count - t.width)
                else:
                    with t.loop(0, count) as i:
                        yield stored, one, start, at, i


def _tiles(t: Lanes, n: Address, count: Address, code: Address) -> Iterator[tuple[int, Address, Address]]:
    """W samples of W rows, for n >= W and count >= W: the stored type, the first row and the first sample."""
    for stored in t.stored(code):
        with t.loop(0, t.vectors(count)) as v:
            i = (v * t.width).at_most(count - t.width)
            with t.loop(0, t.vectors(n)) as tile:
                yield stored, (tile * t.width).at_most(n - t.width), i


def _samples(t: Lanes, n: Address, count: Address, code: Address) -> Iterator[tuple[int, Address, Address]]:
    """The stored type, the row and the sample."""
    for stored in t.stored(code):
        with t.loop(0, n) as r, t.loop(0, count) as i:
            yield stored, r, i


@traced
def load_rows(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, rows: Address, code: Address, count: Address
) -> None:
    for stored, lanes, to, at, i in _runs(t, buffer, row, n, x, rows, code, count):
        lanes.store(to + i * t.E, lanes.load_stored(at + i * STORED_BYTES[stored], stored))


@traced
def store_rows(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, rows: Address, code: Address, count: Address
) -> None:
    for stored, lanes, start, at, i in _runs(t, buffer, row, n, x, rows, code, count):
        lanes.store_stored(at + i * STORED_BYTES[stored], lanes.load(start + i * t.E), stored)


@traced
def load_tiles(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, times: Address, code: Address, count: Address
) -> None:
    """As `load_rows`, for n >= W rows that are neighbours and count >= W."""
    for stored, r, i in _tiles(t, n, count, code):
        at = x + r * STORED_BYTES[stored] + i * times
        found = t.transposed([t.load_stored(at + q * times, stored) for q in range(t.width)])
        to = buffer + r * row + i * t.E
        for lane, y in enumerate(found):
            t.store(to + lane * row, y)


@traced
def store_tiles(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, times: Address, code: Address, count: Address
) -> None:
    for stored, r, i in _tiles(t, n, count, code):
        start = buffer + r * row + i * t.E
        found = t.transposed([t.load(start + lane * row) for lane in range(t.width)])
        at = x + r * STORED_BYTES[stored] + i * times
        for q, y in enumerate(found):
            t.store_stored(at + q * times, y, stored)


@traced
def load_singly(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, rows: Address, times: Address, code: Address,
    count: Address,
) -> None:  # fmt: skip
    """As `load_rows`, with any strides."""
    one = t.one_lane()
    for stored, r, i in _samples(t, n, count, code):
        one.store(buffer + r * row + i * t.E, one.load_stored(x + r * rows + i * times, stored))


@traced
def store_singly(
    t: Lanes, buffer: Address, row: Address, n: Address, x: Address, rows: Address, times: Address, code: Address,
    count: Address,
) -> None:  # fmt: skip
    one = t.one_lane()
    for stored, r, i in _samples(t, n, count, code):
        one.store_stored(x + r * rows + i * times, one.load(buffer + r * row + i * t.E), stored)


# What follows is done to n rows; they are `row` bytes apart.


@traced
def blank(t: Lanes, x: Address, row: Address, n: Address, count: Address) -> None:
    """Zeros in the first `count` numbers."""
    one, whole = t.one_lane(), count // t.width
    with t.loop(0, n) as r:
        at = x + r * row
        with t.loop(0, whole) as v:
            t.store(at + v * (t.width * t.E), t.constant(0.0))
        with t.loop(whole * t.width, count) as i:
            one.store(at + i * t.E, one.constant(0.0))


@traced
def add_one(t: Lanes, to: Address, to_row: Address, x: Address, row: Address, n: Address) -> None:
    """The first number of every row of x, added to that of `to`."""
    one = t.one_lane()
    with t.loop(0, n) as r:
        at = to + r * to_row
        one.store(at, one.load(at) + one.load(x + r * row))


@contextmanager
def _every_vector(t: Lanes, row: Address, n: Address, count: Address) -> Iterator[tuple[Address, Address]]:
    """The number of a row, and the bytes from the start of scratch memory's first row to a vector."""
    with t.loop(0, n) as r, t.loop(0, t.vectors(count)) as v:
        yield r, r * row + v * (t.width * t.E)


@traced
def times(t: Lanes, to: Address, x: Address, y: Address, row: Address, n: Address, count: Address) -> None:
    """to = x · y, in whole vectors: beyond `count` too."""
    with _every_vector(t, row, n, count) as (_, at):
        t.store(to + at, t.load(x + at) * t.load(y + at))


@traced
def add_bias(t: Lanes, x: Address, row: Address, n: Address, bias: Address, bias_row: Address, count: Address) -> None:
    with _every_vector(t, row, n, count) as (r, at):
        t.store(x + at, t.load(x + at) + t.splat(bias + r * bias_row))


@traced
def activate(t: Lanes, x: Address, row: Address, n: Address, activation: Address, count: Address) -> None:
    for kind in t.cases(activation, ACTIVATIONS):
        with _every_vector(t, row, n, count) as (_, at):
            t.store(x + at, ACTIVATIONS[kind][0](t.load(x + at)))


@traced
def times_slope(t: Lanes, g: Address, y: Address, row: Address, n: Address, activation: Address, count: Address) -> None:
    """g · activation'(y) to g; what nobody looks at, as the sums across two documents, has no gradient, even where it is no
    number."""
    for kind in t.cases(activation, ACTIVATIONS):
        with _every_vector(t, row, n, count) as (_, at):
            x = t.load(g + at)
            t.store(g + at, t.where(x, x * ACTIVATIONS[kind][1](t.load(y + at))))


# Sums over taps: result[i] = Σ_s taps[s] · x[i + s] for s = 0 … K - 1, the taps `step` bytes apart.


@traced
def fir(
    t: Lanes, to: Address, x: Address, row: Address, n: Address, count: Address, taps: Address, taps_row: Address,
    step: Address, K: Address,
) -> None:  # fmt: skip
    """`to` may be x: a result is written after the last one that reads there. Whole vectors are computed."""

    def block(to: Address, x: Address, taps: Address, vectors: int) -> None:
        totals, sums = _zeros(t, vectors), _variables(t, vectors)
        with t.loop(0, (K + (CHAIN - 1)) // CHAIN) as chain:
            _clear(sums)
            start = chain * CHAIN
            with t.loop(start, (start + CHAIN).at_most(K)) as s:
                tap, read = t.splat(taps + s * step), x + s * t.E
                for i, one in enumerate(sums):
                    one.set(fma(t.load(read + i * t.width * t.E), tap, one.get()))
            _add(totals, sums)
        for i, total in enumerate(totals):
            t.store(to + i * t.width * t.E, total.get())

    whole = count // (BLOCK * t.width)
    with t.loop(0, n) as r:
        mine, begin = taps + r * taps_row, r * row
        with t.loop(0, whole) as i:
            at = begin + i * (BLOCK * t.width * t.E)
            block(to + at, x + at, mine, BLOCK)
        with t.loop(whole * BLOCK, t.vectors(count)) as i:
            at = begin + i * (t.width * t.E)
            block(to + at, x + at, mine, 1)


# Sums over time, added to float64 totals. `count` is a multiple of the lanes in SUM_BYTES.


def _folded(t: Lanes, parts: list[Vec]) -> ir.Value:
    """The sum of the lanes of all parts, halves added to halves: the same for many narrow parts and few wide ones."""
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [a + b for a, b in zip(parts[:half], parts[half:], strict=True)]
    b, value, width = t.builder, parts[0].value, t.width
    while width > 1:
        width //= 2
        low, high = (
            b.shuffle_vector(value, value, ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(first, first + width))))
            for first in (0, width)
        )
        value = b.fadd(low, high)
    single = b.extract_element(value, ir.Constant(ir.IntType(32), 0))
    return single if t.code == FLOAT64 else b.fpext(single, ir.DoubleType())


def _add_to(t: Lanes, at: Address, value: ir.Value) -> None:
    b = t.builder
    place = b.inttoptr(at.value, ir.DoubleType().as_pointer())
    b.store(b.fadd(b.load(place), value), place)


@traced
def correlate(
    t: Lanes, totals: Address, totals_row: Address, g: Address, x: Address, row: Address, n: Address, count: Address, K: Address
) -> None:
    """totals[s] += Σ_i g[i] · x[i + s] for s = 0 … K - 1, and for a few more that nobody reads."""
    parts = SUM_BYTES // (t.width * t.E)
    steps = count // (parts * t.width)
    with t.loop(0, n) as r, t.loop(0, (K + (TAPS_AT_ONCE - 1)) // TAPS_AT_ONCE) as group:
        first = group * TAPS_AT_ONCE
        dz, v = g + r * row, x + r * row + first * t.E
        sums, inner = _zeros(t, parts * TAPS_AT_ONCE), _variables(t, parts * TAPS_AT_ONCE)
        with t.loop(0, (steps + (CHAIN - 1)) // CHAIN) as chain:
            _clear(inner)
            start = chain * CHAIN
            with t.loop(start, (start + CHAIN).at_most(steps)) as i:
                at = i * SUM_BYTES
                grads = [t.load(dz + at + part * t.width * t.E) for part in range(parts)]
                for q, one in enumerate(inner):
                    tap, part = divmod(q, parts)
                    one.set(fma(grads[part], t.load(v + at + tap * t.E + part * t.width * t.E), one.get()))
            _add(sums, inner)
        for tap in range(TAPS_AT_ONCE):
            mine = [one.get() for one in sums[tap * parts : (tap + 1) * parts]]
            _add_to(t, totals + r * totals_row + (first + tap) * 8, _folded(t, mine))


def _add_sums(
    t: Lanes, totals: Address, totals_row: Address, row: Address, n: Address, count: Address,
    plus: Callable[[Vec, Address, Callable[[Address], Vec]], Vec],
) -> None:  # fmt: skip
    """A sum of every row in float64, to its total: `plus` adds what stands so many bytes from the start of scratch memory's
    first row, and has a function that loads float64."""
    parts, wide = SUM_BYTES // (t.width * t.E), Lanes(t.builder, types.float64, t.width)

    def widened(at: Address) -> Vec:
        x = t.load(at)
        return x if t.code == FLOAT64 else Vec(wide, t.builder.fpext(x.value, wide.vector))

    with t.loop(0, n) as r:
        sums = _zeros(wide, parts)
        with t.loop(0, count // (parts * t.width)) as i:
            for part, one in enumerate(sums):
                one.set(plus(one.get(), r * row + i * SUM_BYTES + part * t.width * t.E, widened))
        _add_to(t, totals + r * totals_row, _folded(wide, [one.get() for one in sums]))


@traced
def correlate_one(
    t: Lanes, totals: Address, totals_row: Address, g: Address, x: Address, row: Address, n: Address, count: Address
) -> None:
    """totals[0] += Σ_i g[i] · x[i] in float64: one sum over all samples cancels more than a filter's taps do together."""
    _add_sums(t, totals, totals_row, row, n, count, lambda total, at, load: fma(load(g + at), load(x + at), total))


@traced
def add_up(t: Lanes, total: Address, totals_row: Address, g: Address, row: Address, n: Address, count: Address) -> None:
    """total += Σ_i g[i] in float64."""
    _add_sums(t, total, totals_row, row, n, count, lambda total, at, load: total + load(g + at))


# Totals are float64 whatever the arithmetic type.


def _double(t: Lanes) -> Lanes:
    return Lanes(t.builder, types.float64, 1)


@traced
def clear_totals(t: Lanes, totals: Address, count: Address) -> None:
    one = _double(t)
    with t.loop(0, count) as i:
        one.store(totals + i * 8, one.constant(0.0))


@traced
def add_totals(t: Lanes, to: Address, totals: Address, count: Address) -> None:
    one = _double(t)
    with t.loop(0, count) as i:
        one.store(to + i * 8, one.load(to + i * 8) + one.load(totals + i * 8))


@traced
def store_totals(t: Lanes, x: Address, times: Address, totals: Address, step: Address, code: Address, count: Address) -> None:
    """`count` totals, `step` bytes apart, to samples `times` bytes apart, rounded to the stored type."""
    one = t.one_lane()
    double = _double(t)
    for stored in t.stored(code):
        with t.loop(0, count) as i:
            total = double.load(totals + i * step)
            value = total if t.code == FLOAT64 else Vec(one, t.builder.fptrunc(total.value, one.vector))
            one.store_stored(x + i * times, value, stored)
