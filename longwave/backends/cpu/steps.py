"""What happens inside a loop of the engine: the passes of a transform, sums of spectra, and the turns of long rows.

Scratch memory holds rows of W complex numbers, `t.row` bytes each: two planes of `t.plane` bytes, W real parts and then W
imaginary parts, one lane a channel.
A pass of radix r over a block of n = r·m rows takes row j + q·m with q = 0 … r-1 to one butterfly. `DIF` passes go from the
samples to the frequencies (multiplying after the butterfly), `DIT` passes back (before it, by the conjugates), so that
frequencies are never put in order. Twiddles: for every j the r-1 complex numbers exp(-2πi·j·q/n), q = 1 … r-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from longwave.backends.cpu.butterflies import DFT, inverse4_at, quarter_turns
from longwave.backends.cpu.lanes import Address, Complex, Lanes, fma, traced
from longwave.backends.cpu.stages import stage_bytes
from longwave.backends.cpu.words import INVERT_ALONE, INVERT_CONJUGATE, INVERT_PRODUCT, MULTIPLY, TRANSFORM

RADICES = tuple(DFT)
# How `inverse` combines a spectrum with the other one.
PRODUCT, CONJUGATE, ALONE = range(3)


def _twiddles(t: Lanes, tw: Address, j: Address, r: int) -> Iterator[Complex]:
    """One after the other, each read when it is used: more than a few would not stay in registers."""
    at = tw + j * ((r - 1) * 2 * t.E)
    return (t.splat_complex(at + q * 2 * t.E) for q in range(r - 1))


def _rows(x: Address, stride: Address, r: int) -> list[Address]:
    return [x + stride * q for q in range(r)]


@traced
def dif(t: Lanes, x: Address, points: Address, n: Address, radix: Address, tw: Address) -> None:
    """A pass over every block of n rows among `points` rows at x."""
    for r in t.cases(radix, RADICES):
        m = n // r
        with t.loop(0, points // n) as block, t.loop(0, m) as j:
            rows = _rows(x + (block * n + j) * t.row, m * t.row, r)
            out = DFT[r]([t.load_complex(row) for row in rows], -1)
            t.store_complex(rows[0], out[0])
            for q, w in enumerate(_twiddles(t, tw, j, r), 1):
                t.store_complex(rows[q], out[q] * w)


@traced
def dit(t: Lanes, x: Address, points: Address, n: Address, radix: Address, tw: Address) -> None:
    """The adjoint pass of `dif`."""
    for r in t.cases(radix, RADICES):
        m = n // r
        with t.loop(0, points // n) as block, t.loop(0, m) as j:
            rows = _rows(x + (block * n + j) * t.row, m * t.row, r)
            z = [t.load_complex(rows[0])]
            z += [t.load_complex(rows[q]).times_conj(w) for q, w in enumerate(_twiddles(t, tw, j, r), 1)]
            for row, out in zip(rows, DFT[r](z, +1), strict=True):
                t.store_complex(row, out)


@traced
def first(
    t: Lanes, x: Address, stage: Address, j0: Address, count: Address, n: Address, radix: Address, weights: Address,
    tw: Address, planes: Address,
) -> None:  # fmt: skip
    """The first `dif` pass for j0 <= j < j0 + count, with the right-angle weights, from the stage to x; one plane: the
    imaginary parts are zero."""
    for r in t.cases(radix, RADICES):
        m = n // r
        for filled in t.cases(planes, (1, 2)):
            with t.loop(0, count) as i:
                j = j0 + i
                z = []
                for q, at in enumerate(_rows(weights + j * (2 * t.E), m * (2 * t.E), r)):
                    w, real = t.splat_complex(at), stage + i * t.plane + q * stage_bytes(t)
                    if filled == 2:
                        z.append(Complex(t.load(real, True), t.load(real + r * stage_bytes(t), True)) * w)
                    else:
                        z.append(w.scaled(t.load(real, True)))
                out = DFT[r](z, -1)
                rows = _rows(x + j * t.row, m * t.row, r)
                t.store_complex(rows[0], out[0])
                for q, w in enumerate(_twiddles(t, tw, j, r), 1):
                    t.store_complex(rows[q], out[q] * w)


@traced
def last(
    t: Lanes, x: Address, stage: Address, j0: Address, count: Address, n: Address, radix: Address, weights: Address,
    tw: Address, planes: Address,
) -> None:  # fmt: skip
    """The last `dit` pass for j0 <= j < j0 + count, with the weights, from x to the stage; one plane: only real parts."""
    for r in t.cases(radix, RADICES):
        m = n // r
        for wanted in t.cases(planes, (1, 2)):
            with t.loop(0, count) as i:
                j = j0 + i
                rows = _rows(x + j * t.row, m * t.row, r)
                z = [t.load_complex(rows[0])]
                z += [t.load_complex(rows[q]).times_conj(w) for q, w in enumerate(_twiddles(t, tw, j, r), 1)]
                places = enumerate(zip(_rows(weights + j * (2 * t.E), m * (2 * t.E), r), DFT[r](z, +1), strict=True))
                for q, (at, out) in places:
                    turned, real = out.times_conj(t.splat_complex(at)), stage + i * t.plane + q * stage_bytes(t)
                    t.store(real, turned.re, aligned=True)
                    if wanted == 2:
                        t.store(real + r * stage_bytes(t), turned.im, aligned=True)


@traced
def middle(t: Lanes, x: Address, s: Address, points: Address, radix: Address) -> None:
    """The last `dif` pass, the product with the filters' spectrum and the first `dit` pass, on neighbouring rows."""
    for r in t.cases(radix, RADICES):
        with t.loop(0, points // r) as block:
            at = block * (r * t.row)
            z = DFT[r]([t.load_complex(x + at + q * t.row) for q in range(r)], -1)
            z = [a * t.load_complex(s + at + q * t.row) for q, a in enumerate(z)]
            for q, out in enumerate(DFT[r](z, +1)):
                t.store_complex(x + at + q * t.row, out)


@traced
def innermost(t: Lanes, x: Address, points: Address, radix: Address) -> None:
    """The last `dif` pass alone: its twiddles are 1."""
    for r in t.cases(radix, RADICES):
        with t.loop(0, points // r) as block:
            at = block * (r * t.row)
            for q, out in enumerate(DFT[r]([t.load_complex(x + at + q * t.row) for q in range(r)], -1)):
                t.store_complex(x + at + q * t.row, out)


@traced
def inverse(t: Lanes, x: Address, s: Address, points: Address, radix: Address, how: Address) -> None:
    """x·s, x·conj(s) or x alone, and the first `dit` pass."""
    for r in t.cases(radix, RADICES):
        for product in t.cases(how, (PRODUCT, CONJUGATE, ALONE)):
            with t.loop(0, points // r) as block:
                at = block * (r * t.row)
                z = [t.load_complex(x + at + q * t.row) for q in range(r)]
                if product != ALONE:
                    factors = [t.load_complex(s + at + q * t.row) for q in range(r)]
                    pairs = zip(z, factors, strict=True)
                    z = [a * b if product == PRODUCT else a.times_conj(b) for a, b in pairs]
                for q, out in enumerate(DFT[r](z, +1)):
                    t.store_complex(x + at + q * t.row, out)


# The last two passes of radix 4 where a band of frequencies around zero is kept: the first `above` and the last `below` of the
# 16 that a block of 16 rows has, spread over all frequencies. In the order of the rows, frequency q + 4·r stands at 4·q + r.
BANDS = ((1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (2, 3), (3, 3))
# What a byte says of a block: nothing of it is kept; or BANDS[byte - 1] is; or all of it.
NOTHING, EVERYTHING = 0, len(BANDS) + 1


def band_places(band: tuple[int, int]) -> list[int]:
    """The rows of a block that a band keeps."""
    above, below = band
    return sorted(4 * (f % 4) + f // 4 for f in (*range(above), *range(16 - below, 16)))


@traced
def sixteen(t: Lanes, x: Address, s: Address, points: Address, kind: Address, tw: Address, kept: Address) -> None:
    """What `walk` does with blocks of 16 rows, whose twiddles are `tw`: to the frequencies (TRANSFORM), there, the product and
    back (MULTIPLY), or the rest alone; of the rows that are kept."""
    for what in t.cases(kind, (MULTIPLY, TRANSFORM, INVERT_PRODUCT, INVERT_CONJUGATE, INVERT_ALONE)):
        with t.loop(0, points // 16) as block:
            rows = [x + (block * 16 + i) * t.row for i in range(16)]
            others = [s + (block * 16 + i) * t.row for i in range(16)]
            for code in t.cases(t.read_byte(kept + block), range(EVERYTHING + 1)):
                places = [] if code == NOTHING else range(16) if code == EVERYTHING else band_places(BANDS[code - 1])
                if what <= TRANSFORM:
                    z = _sixteen_forward(t, rows, tw, places)
                else:
                    z = {at: t.load_complex(rows[at]) for at in places}
                if what == TRANSFORM:
                    for at, value in z.items():
                        t.store_complex(rows[at], value)
                    continue
                if what in (MULTIPLY, INVERT_PRODUCT):
                    z = {at: value * t.load_complex(others[at]) for at, value in z.items()}
                elif what == INVERT_CONJUGATE:
                    z = {at: value.times_conj(t.load_complex(others[at])) for at, value in z.items()}
                _sixteen_back(t, rows, tw, z)


def _sixteen_forward(t: Lanes, rows: Sequence[Address], tw: Address, places: Sequence[int]) -> dict[int, Complex]:
    """Few outputs are sums that grow term by term, so that nothing but the sums waits in registers."""
    parts = sorted({at // 4 for at in places})
    between: dict[int, list[Complex]] = {q: [] for q in parts}
    sums: dict[int, Complex] = {}
    for j in range(4 if places else 0):
        out = DFT[4]([t.load_complex(rows[j + 4 * q]) for q in range(4)], -1)
        for q in parts:
            term = _twiddled(t, out[q], tw, j, q)
            between[q].append(term)
            for at in places:
                if at // 4 == q and len(places) < 16:
                    turned = quarter_turns(term, -j * (at % 4))
                    sums[at] = sums[at] + turned if at in sums else turned
    if len(places) == 16:
        return {4 * q + r: z for q in parts for r, z in enumerate(DFT[4](between[q], -1))}
    return sums


def _sixteen_back(t: Lanes, rows: Sequence[Address], tw: Address, z: dict[int, Complex]) -> None:
    parts = sorted({at // 4 for at in z})
    for j in range(4):
        between = {q: inverse4_at(j, {at % 4: value for at, value in z.items() if at // 4 == q}) for q in parts}
        turned = {q: _twiddled(t, value, tw, j, q, back=True) for q, value in between.items()}
        for q in range(4):
            t.store_complex(rows[j + 4 * q], inverse4_at(q, turned) if z else Complex(t.constant(0.0), t.constant(0.0)))


def _twiddled(t: Lanes, x: Complex, tw: Address, j: int, q: int, back: bool = False) -> Complex:
    if j * q == 0:  # 1
        return x
    factor = t.splat_complex(tw + (3 * j + q - 1) * 2 * t.E)
    return x.times_conj(factor) if back else x * factor


@traced
def keep(t: Lanes, x: Address, places: Address, count: Address, factors: Address) -> None:
    """Zeros in the rows at `count` places, in the lanes whose factor is 0, whatever stood there."""
    with t.loop(0, count) as i:
        at, factor = x + t.read_int(places + i * 8) * t.row, t.load(factors + i * t.plane, aligned=True)
        z = t.load_complex(at)
        t.store_complex(at, Complex(t.where(factor, z.re), t.where(factor, z.im)))


@traced
def accumulate(t: Lanes, total: Address, z: Address, v: Address, points: Address) -> None:
    """total += z · conj(v)."""
    with t.loop(0, points) as i:
        at = i * t.row
        product = t.load_complex(z + at).times_conj(t.load_complex(v + at))
        t.store_complex(total + at, t.load_complex(total + at) + product)


@traced
def product(t: Lanes, to: Address, z: Address, v: Address, points: Address) -> None:
    """z · conj(v), as `accumulate` adds it to zeros: the sum of 0 and -0 is 0."""
    zero = Complex(t.constant(0.0), t.constant(0.0))
    with t.loop(0, points) as i:
        at = i * t.row
        t.store_complex(to + at, zero + t.load_complex(z + at).times_conj(t.load_complex(v + at)))


@traced
def add(t: Lanes, total: Address, x: Address, count: Address) -> None:
    """total += x, `count` rows of one plane."""
    with t.loop(0, count) as i:
        at = i * t.plane
        t.store(total + at, t.load(total + at, True) + t.load(x + at, True), aligned=True)


@traced
def add_one(t: Lanes, total: Address, x: Address, terms: Address, count: Address) -> None:
    """total += x in one lane, `count` rows of one plane: terms that stand in neighbouring lanes of x, one after the other."""
    one = t.one_lane()
    with t.loop(0, count) as i:
        to, start = total + i * t.plane, x + i * t.plane
        with t.loop(0, terms) as term:
            one.store(to, one.load(to) + one.load(start + term * t.E))


@traced
def clear_one(t: Lanes, x: Address, count: Address) -> None:
    """Zeros in one lane of `count` rows of one plane."""
    one = t.one_lane()
    with t.loop(0, count) as i:
        one.store(x + i * t.plane, one.constant(0.0))


@traced
def lift(t: Lanes, to: Address, s: Address, taps: Address, scale: Address, points: Address) -> None:
    """s plus the spectrum of one tap at lag 0, a number a lane in a row of one plane: its transform is constant."""
    tap = t.load(taps, aligned=True) * t.splat(scale)
    with t.loop(0, points) as i:
        z = t.load_complex(s + i * t.row)
        t.store_complex(to + i * t.row, Complex(z.re + tap, z.im))


@traced
def a_number_a_lane(t: Lanes, to: Address, table: Address, code: Address) -> None:
    """A row of one plane: the numbers at the addresses in `table`."""
    one = t.one_lane()
    for stored in t.stored(code):
        with t.loop(0, t.width) as lane:
            one.store(to + lane * t.E, one.load_stored(t.read_int(table + lane * 8), stored))


@traced
def add_scaled(t: Lanes, total: Address, x: Address, factors: Address, count: Address) -> None:
    """total += x times a row of factors, `count` rows of one plane."""
    factor = t.load(factors, aligned=True)
    with t.loop(0, count) as i:
        at = i * t.plane
        t.store(total + at, fma(t.load(x + at, True), factor, t.load(total + at, True)), aligned=True)


@traced
def repeat_lane(t: Lanes, x: Address, lane: Address, count: Address) -> None:
    """Lane `lane` in all those behind it, in `count` rows of one plane."""
    one = t.one_lane()
    with t.loop(0, count) as i, t.loop(lane + 1, t.width) as to:
        one.store(x + i * t.plane + to * t.E, one.load(x + i * t.plane + lane * t.E))


@traced
def fence(t: Lanes) -> None:
    t.fence()


@traced
def clear(t: Lanes, stage: Address, count: Address) -> None:
    """Zeros in `count` rows of one plane."""
    with t.loop(0, count) as i:
        t.store(stage + i * t.plane, t.constant(0.0), aligned=True)


# Matrices of `six_step`: rows of `step` bytes, each of `t.row` bytes for W columns: real parts, then imaginary parts.


@contextmanager
def _every_turn(t: Lanes, turns: Address, high: Address, low: Address) -> Iterator[tuple[Address, Complex]]:
    """A row of high·low, and its turns: an entry of one table times one of another."""
    with t.loop(0, high) as i:
        outer = t.load_complex(turns + i * t.row)
        with t.loop(0, low) as j:
            yield i * low + j, outer * t.load_complex(turns + (high + j) * t.row)


@traced
def turn(t: Lanes, x: Address, matrix: Address, step: Address, turns: Address, high: Address, low: Address) -> None:
    """W transformed columns, of high·low rows, into the matrix, times their turns."""
    with _every_turn(t, turns, high, low) as (row, factor):
        t.prefetch(matrix + (row + 4) * step, to_write=True)
        t.store_complex(matrix + row * step, t.load_complex(x + row * t.row) * factor)


@traced
def turn_back(t: Lanes, x: Address, matrix: Address, step: Address, turns: Address, high: Address, low: Address) -> None:
    """The adjoint of `turn`: W columns of the matrix to x, times their turns' conjugates."""
    with _every_turn(t, turns, high, low) as (row, factor):
        t.prefetch(matrix + (row + 8) * step)
        t.store_complex(x + row * t.row, t.load_complex(matrix + row * step).times_conj(factor))


@traced
def gather(t: Lanes, x: Address, matrix: Address, step: Address, points: Address) -> None:
    """W rows of the matrix, of `points` columns, one to a lane."""
    with t.loop(0, points // t.width) as block:
        for plane in range(2):
            at = matrix + block * t.row + plane * t.plane
            for q, v in enumerate(t.transposed([t.load(at + lane * step, True) for lane in range(t.width)])):
                t.store(x + (block * t.width + q) * t.row + plane * t.plane, v, True)


@traced
def scatter(t: Lanes, x: Address, matrix: Address, step: Address, points: Address) -> None:
    """The inverse of `gather`."""
    with t.loop(0, points // t.width) as block:
        for plane in range(2):
            rows = [t.load(x + (block * t.width + q) * t.row + plane * t.plane, True) for q in range(t.width)]
            for lane, v in enumerate(t.transposed(rows)):
                t.store(matrix + block * t.row + plane * t.plane + lane * step, v, True)


@traced
def copy(t: Lanes, to: Address, x: Address, points: Address) -> None:
    with t.loop(0, points) as i:
        t.store_complex(to + i * t.row, t.load_complex(x + i * t.row))
