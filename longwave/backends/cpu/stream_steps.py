"""What happens inside a loop of a stream: passes between its rows and a transform, sums over taps and over parts of a filter.

A stream's inputs and outputs are rows of W numbers, one a lane; spectra are rows of W complex numbers as in steps.py. The
spectra of a delay line stand together by blocks of QUAD frequencies: a sum over them reads memory in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from longwave.backends.cpu.butterflies import DFT
from longwave.backends.cpu.fir import Variable
from longwave.backends.cpu.lanes import Address, Complex, Lanes, Vec, fma, traced

QUAD = 4
# Blocks whose sums are made together, as far as their inputs are known: spectra are then read once for all of them.
GROUP = 4
# Bytes of a cache line.
LINE = 64
# The radices of blocks that are powers of two.
FIRST_RADICES = (2, 4)


@traced
def enter(
    t: Lanes, x: Address, re: Address, im: Address, n: Address, radix: Address, weights: Address, tw: Address, planes: Address
) -> None:
    """The first `dif` pass, with the right-angle weights, from rows of samples; one plane: the imaginary parts are zero."""
    for r in t.cases(radix, FIRST_RADICES):
        m = n // r
        for filled in t.cases(planes, (1, 2)):
            with t.loop(0, m) as j:
                z = []
                for q in range(r):
                    row = j + m * q
                    w, real = t.splat_complex(weights + row * (2 * t.E)), t.load(re + row * t.plane, True)
                    z.append(Complex(real, t.load(im + row * t.plane, True)) * w if filled == 2 else w.scaled(real))
                for q, out in enumerate(DFT[r](z, -1)):
                    turned = out * t.splat_complex(tw + (j * (r - 1) + (q - 1)) * (2 * t.E)) if q else out
                    t.store_complex(x + (j + m * q) * t.row, turned)


@traced
def leave(t: Lanes, x: Address, to: Address, n: Address, radix: Address, weights: Address, tw: Address) -> None:
    """The last `dit` pass, with the weights, to rows of samples: only real parts."""
    for r in t.cases(radix, FIRST_RADICES):
        m = n // r
        with t.loop(0, m) as j:
            z = []
            for q in range(r):
                got = t.load_complex(x + (j + m * q) * t.row)
                z.append(got.times_conj(t.splat_complex(tw + (j * (r - 1) + (q - 1)) * (2 * t.E))) if q else got)
            for q, out in enumerate(DFT[r](z, +1)):
                row = j + m * q
                w = t.splat_complex(weights + row * (2 * t.E))
                t.store(to + row * t.plane, fma(out.re, w.re, out.im * w.im), aligned=True)


@traced
def spread(t: Lanes, x: Address, to: Address, step: Address, points: Address) -> None:
    """A spectrum to its place in a delay line, `step` bytes from one block of QUAD rows to the next."""
    with t.loop(0, points // QUAD) as i:
        for r in range(QUAD):
            t.store_complex(to + i * step + r * t.row, t.load_complex(x + (i * QUAD + r) * t.row))


@traced
def combine(
    t: Lanes, x: Address, start: Address, goes_on: Address, s: Address, parts: Address, v: Address, slots: Address,
    newest: Address, count: Address, begin: Address, end: Address,
) -> None:  # fmt: skip
    """x = Σ_p S_p · X_p over `count` parts, onto `start` if it `goes_on` (0 or 1), for the blocks begin … end - 1 of QUAD rows;
    X_0 stands in slot `newest`, the others in those before it, and then from the last slot on."""
    size = QUAD * t.row
    before = count.at_most(newest + 1)
    for adds in t.cases(goes_on, (0, 1)):
        with t.loop(begin, end) as i:
            totals = [(Variable(t), Variable(t)) for _ in range(QUAD)]
            for r, (re, im) in enumerate(totals):
                z = t.load_complex(start + (i * QUAD + r) * t.row) if adds else Complex(t.constant(0.0), t.constant(0.0))
                re.set(z.re)
                im.set(z.im)
            for first, stop, top in ((0, before, newest), (before, count, newest + slots)):
                with t.loop(first, stop) as p:
                    factors, inputs = s + (i * parts + p) * size, v + (i * slots + top - p) * size
                    # Every block is a page or so of its own, too short for what a CPU does by itself.
                    for line in range(QUAD * t.row // LINE):
                        t.prefetch(factors + parts * size + line * LINE)
                        t.prefetch(inputs + slots * size + line * LINE)
                    for r, total in enumerate(totals):
                        _add_product(total, t.load_complex(inputs + r * t.row), t.load_complex(factors + r * t.row))
            for r, (re, im) in enumerate(totals):
                t.store_complex(x + (i * QUAD + r) * t.row, Complex(re.get(), im.get()))


@traced
def combine_group(
    t: Lanes, x: Address, later: Address, apart: Address, s: Address, parts: Address, v: Address, slots: Address,
    newest: Address, known: Address, terms: Address, begin: Address, end: Address,
) -> None:  # fmt: skip
    """Of a block and of the GROUP - 1 blocks after it what is known of their sums: Σ_d S_(r+d) · X_d for the block number r, to
    x (r = 0) and `later`, `apart` bytes from one to the next; d runs over `known` spectra of inputs and what there is of
    `terms` parts. What is read once serves all of them. Else as `combine`."""
    size = QUAD * t.row
    counts = [(terms - r).at_least(0).at_most(known) for r in range(GROUP)]
    before = known.at_most(newest + 1)
    with t.loop(begin, end) as i:
        factors = s + i * parts * size
        # A row at a time: so many sums are what registers hold.
        with t.loop(0, QUAD) as row:
            totals = [(Variable(t), Variable(t)) for _ in range(GROUP)]
            for re, im in totals:
                re.set(t.constant(0.0))
                im.set(t.constant(0.0))
            # All of them together as long as all have terms, then each by itself.
            all_have = counts[-1]
            ranges: list[tuple[Sequence[int], Address | int, Address, Address]]
            ranges = [(range(GROUP), 0, all_have.at_most(before), newest), (range(GROUP), before, all_have, newest + slots)]
            for r, count in enumerate(counts[:-1]):
                ranges += [([r], all_have, count.at_most(before), newest)]
                ranges += [([r], all_have.at_least(before), count, newest + slots)]
            for sums, first, stop, top in ranges:
                with t.loop(first, stop) as d:
                    inputs, filters = v + (i * slots + top - d) * size + row * t.row, factors + d * size + row * t.row
                    # What the next block needs, in the order of memory: a CPU does not follow rows that stand apart.
                    for line in range(-(-t.row // LINE) if len(sums) > 1 else 0):
                        t.prefetch(v + ((i + 1) * slots * QUAD + row * slots + d) * t.row + line * LINE)
                        t.prefetch(factors + (parts * QUAD + row * terms + d) * t.row + line * LINE)
                    z = t.load_complex(inputs)
                    for r in sums:
                        _add_product(totals[r], z, t.load_complex(filters + r * size))
            for r, (re, im) in enumerate(totals):
                to = x if r == 0 else later + (r - 1) * apart
                t.store_complex(to + (i * QUAD + row) * t.row, Complex(re.get(), im.get()))


def _add_product(total: tuple[Variable, Variable], a: Complex, b: Complex) -> None:
    re, im = total
    re.set(fma(a.re, b.re, fma(-a.im, b.im, re.get())))
    im.set(fma(a.re, b.im, fma(a.im, b.re, im.get())))


# Sums of one step run in so many chains: the additions of one would wait for each other.
CHAINS = 4


@traced
def weigh(t: Lanes, to: Address, start: Address, taps: Address, newest: Address, count: Address) -> None:
    """One row: `start` (its address, or 0) plus Σ_s taps[s] · the row that stands s rows before `newest`, s < count."""
    totals = [Variable(t) for _ in range(CHAINS)]
    for total in totals:
        total.set(t.constant(0.0))

    def term(s: Address) -> tuple[Vec, Vec]:
        return t.load(taps + s * t.plane, True), t.load(newest - s * t.plane, True)

    blocks = count // CHAINS
    with t.loop(0, blocks) as i:
        for c, total in enumerate(totals):
            total.set(fma(*term(i * CHAINS + c), total.get()))
    with t.loop(blocks * CHAINS, count) as s:
        totals[0].set(fma(*term(s), totals[0].get()))
    pairs = [totals[c].get() + totals[c + 1].get() for c in range(0, CHAINS, 2)]
    t.store(to, t.load(start, True) + (pairs[0] + pairs[1]), aligned=True)


@traced
def skip(t: Lanes, to: Address, v: Address, D: Address, count: Address) -> None:
    """to += D · v, `count` rows under one row D."""
    factor = t.load(D, True)
    with t.loop(0, count) as i:
        at = i * t.plane
        t.store(to + at, fma(factor, t.load(v + at, True), t.load(to + at, True)), aligned=True)


@traced
def times(t: Lanes, to: Address, v: Address, D: Address) -> None:
    """One row: to = D · v."""
    t.store(to, t.load(D, True) * t.load(v, True), aligned=True)


@traced
def move(t: Lanes, to: Address, x: Address) -> None:
    """One row."""
    t.store(to, t.load(x, True), aligned=True)
