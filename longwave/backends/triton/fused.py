"""Kernels that keep a row in registers from load to store: transform, product with a spectrum, transform back.

A row of N = N1·N2·N3 points is a matrix X[N1, N2·N3]; with unitary DFT matrices F and twiddles T

    S = ((F1 X) ∘ T) F2        P = S ∘ K        y = F1ᴴ ((P F2ᴴ) ∘ conj T)

(order 2, N3 = 1; order 3 does the same to the rows once more). F1 and T carry the weights exp(-iπn/2N) of the right-angle
transform. N1 = P·BLOCKS: after the first product rows do not meet until the last one, so that P frequencies of N1 go through
everything at a time, and the result is their sum. Short rows stand side by side in a tile, R of them between the two
dimensions of X, so that no product adds up samples of two rows. Spectra are in the order in which they arise.

The rows of a `split` transform are complex: scratch memory (rows, 2 planes, parts · N) takes the place of signal and results.
"""

from __future__ import annotations

import triton
import triton.language as tl

from longwave.backends.triton import configurations
from longwave.backends.triton.moves import at, load_ring, row_of, store_ring

CHAIN = tl.constexpr(configurations.CHAIN)


@triton.jit
def _tile_row(tile, R: tl.constexpr, M: tl.constexpr):
    """The row that each column of X belongs to."""
    if R == 1:
        return tile
    else:
        return (tile * R + tl.arange(0, R * M) // M)[None, :]


@triton.jit
def _spectral_row(tile, R: tl.constexpr, ROWS: tl.constexpr):
    """The row that each row of a matrix of frequencies belongs to."""
    if R == 1:
        return tile
    else:
        return (tile * R + tl.arange(0, ROWS) % R)[:, None]


@triton.jit
def _frequencies(i, P: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr):
    """Where the matrix of frequencies of block i stands in a spectrum."""
    if N3 == 1:
        row = tl.arange(0, P * R)
        return ((i * P + row // R) * N2)[:, None] + tl.arange(0, N2)[None, :]
    else:
        row = tl.arange(0, N2 * P * R)
        first = (i * P + (row // R) % P) * (N2 * N3) + (row // (P * R)) * N3
        return first[:, None] + tl.arange(0, N3)[None, :]


@triton.jit
def _analyse(
    i, tile, turn, signal, source, z, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr,
    N3: tl.constexpr, UPPER: tl.constexpr, SWAPPED: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Block i of the first product, twiddled."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    column = tl.arange(0, R * M) % M
    row = tl.arange(0, P)
    b, h, window, part, exists, line = row_of(_tile_row(tile, R, M), turn, rows, SWAPPED)
    ar = tl.zeros((P, R * M), tl.float32)
    ai = tl.zeros((P, R * M), tl.float32)
    for j in tl.static_range(BLOCKS):
        f = (i * P + row)[:, None] * (P * BLOCKS) + (j * P + row)[None, :]
        fr, fi = tl.load(tables.f1r + f), tl.load(tables.f1i + f)
        n = (j * P + row)[:, None] * M + column[None, :]
        if z is not None:
            x0 = tl.load(z + line * (2 * N * rows.parts) + part * N + n).to(DT)
            x1 = -tl.load(z + line * (2 * N * rows.parts) + N * rows.parts + part * N + n).to(DT)
        else:
            x0 = load_ring(signal, source, n, b, h, window, exists).to(DT)
        ar = tl.dot(fr, x0, ar, input_precision=PRECISION)
        ai = tl.dot(fi, x0, ai, input_precision=PRECISION)
        if UPPER:
            if z is None:
                x1 = load_ring(signal, source, n + N, b, h, window, exists).to(DT)
            ar = tl.dot(fi, x1, ar, input_precision=PRECISION)
            ai = tl.dot(fr, -x1, ai, input_precision=PRECISION)
    t = (i * P + row)[:, None] * M + column[None, :]
    tr, ti = tl.load(tables.tr + t).to(tl.float32), tl.load(tables.ti + t).to(tl.float32)
    return (ar * tr - ai * ti).to(DT), (ar * ti + ai * tr).to(DT)


@triton.jit
def _forward(
    br, bi, tables, P: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The DFTs of the rows of a block: its frequencies in float32."""
    o2 = tl.arange(0, N2)[:, None] * N2 + tl.arange(0, N2)[None, :]
    f2r, f2i = tl.load(tables.f2r + o2), tl.load(tables.f2i + o2)
    if N3 == 1:
        br, bi = tl.reshape(br, (P * R, N2)), tl.reshape(bi, (P * R, N2))
        sr = tl.dot(-bi, f2i, tl.dot(br, f2r, input_precision=PRECISION), input_precision=PRECISION)
        si = tl.dot(bi, f2r, tl.dot(br, f2i, input_precision=PRECISION), input_precision=PRECISION)
    else:
        br = tl.reshape(tl.permute(tl.reshape(br, (P * R, N2, N3)), (1, 0, 2)), (N2, P * R * N3))
        bi = tl.reshape(tl.permute(tl.reshape(bi, (P * R, N2, N3)), (1, 0, 2)), (N2, P * R * N3))
        cr = tl.dot(f2i, -bi, tl.dot(f2r, br, input_precision=PRECISION), input_precision=PRECISION)
        ci = tl.dot(f2r, bi, tl.dot(f2i, br, input_precision=PRECISION), input_precision=PRECISION)
        t = tl.arange(0, N2)[:, None] * N3 + (tl.arange(0, P * R * N3) % N3)[None, :]
        tr, ti = tl.load(tables.t2r + t).to(tl.float32), tl.load(tables.t2i + t).to(tl.float32)
        br = tl.reshape((cr * tr - ci * ti).to(DT), (N2 * P * R, N3))
        bi = tl.reshape((cr * ti + ci * tr).to(DT), (N2 * P * R, N3))
        o3 = tl.arange(0, N3)[:, None] * N3 + tl.arange(0, N3)[None, :]
        f3r, f3i = tl.load(tables.f3r + o3), tl.load(tables.f3i + o3)
        sr = tl.dot(-bi, f3i, tl.dot(br, f3r, input_precision=PRECISION), input_precision=PRECISION)
        si = tl.dot(bi, f3r, tl.dot(br, f3i, input_precision=PRECISION), input_precision=PRECISION)
    return sr, si


@triton.jit
def _backward(
    i, pr, pi, tables, P: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The inverse of `_forward` and of the first twiddles, for operands of the products."""
    M: tl.constexpr = N2 * N3
    o2 = tl.arange(0, N2)[:, None] * N2 + tl.arange(0, N2)[None, :]
    f2r, f2i = tl.load(tables.f2r + o2), tl.load(tables.f2i + o2)
    if N3 == 1:
        cr = tl.dot(pi, f2i, tl.dot(pr, f2r, input_precision=PRECISION), input_precision=PRECISION)
        ci = tl.dot(-pr, f2i, tl.dot(pi, f2r, input_precision=PRECISION), input_precision=PRECISION)
        cr, ci = tl.reshape(cr, (P, R * N2)), tl.reshape(ci, (P, R * N2))
    else:
        o3 = tl.arange(0, N3)[:, None] * N3 + tl.arange(0, N3)[None, :]
        f3r, f3i = tl.load(tables.f3r + o3), tl.load(tables.f3i + o3)
        cr = tl.dot(pi, f3i, tl.dot(pr, f3r, input_precision=PRECISION), input_precision=PRECISION)
        ci = tl.dot(-pr, f3i, tl.dot(pi, f3r, input_precision=PRECISION), input_precision=PRECISION)
        cr, ci = tl.reshape(cr, (N2, P * R * N3)), tl.reshape(ci, (N2, P * R * N3))
        t = tl.arange(0, N2)[:, None] * N3 + (tl.arange(0, P * R * N3) % N3)[None, :]
        tr, ti = tl.load(tables.t2r + t).to(tl.float32), tl.load(tables.t2i + t).to(tl.float32)
        er, ei = (cr * tr + ci * ti).to(DT), (ci * tr - cr * ti).to(DT)
        cr = tl.dot(f2i, ei, tl.dot(f2r, er, input_precision=PRECISION), input_precision=PRECISION)
        ci = tl.dot(f2i, -er, tl.dot(f2r, ei, input_precision=PRECISION), input_precision=PRECISION)
        cr = tl.reshape(tl.permute(tl.reshape(cr, (N2, P * R, N3)), (1, 0, 2)), (P, R * M))
        ci = tl.reshape(tl.permute(tl.reshape(ci, (N2, P * R, N3)), (1, 0, 2)), (P, R * M))
    t = (i * P + tl.arange(0, P))[:, None] * M + (tl.arange(0, R * M) % M)[None, :]
    tr, ti = tl.load(tables.tr + t).to(tl.float32), tl.load(tables.ti + t).to(tl.float32)
    return (cr * tr + ci * ti).to(DT), (ci * tr - cr * ti).to(DT)


@triton.jit
def _zeros(BLOCKS: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    sums = ()
    for _ in tl.static_range(BLOCKS):
        sums = sums + (tl.zeros((P, C), tl.float32),)
    return sums


@triton.jit
def _add_real(i, sums, dr, di, tables, P: tl.constexpr, BLOCKS: tl.constexpr, PRECISION: tl.constexpr):
    """What block i gives to the real part of every block of the result."""
    row = tl.arange(0, P)
    more = ()
    for j in tl.static_range(BLOCKS):
        g = (j * P + row)[:, None] * (P * BLOCKS) + (i * P + row)[None, :]
        gr, gi = tl.load(tables.g1r + g), tl.load(tables.g1i + g)
        with_real = tl.dot(gr, dr, sums[j], input_precision=PRECISION)
        more = more + (tl.dot(gi, di, with_real, input_precision=PRECISION),)
    return more


@triton.jit
def _add_upper(i, sums, dr, di, tables, P: tl.constexpr, BLOCKS: tl.constexpr, PRECISION: tl.constexpr):
    """The same for the upper plane, which is the imaginary part negated."""
    return _add_real(i, sums, -di, dr, tables, P, BLOCKS, PRECISION)


@triton.jit
def _finish(
    real, upper, factor, signal, source, results, target, z, b, h, window, part, exists, line, parts, P: tl.constexpr,
    BLOCKS: tl.constexpr, R: tl.constexpr, M: tl.constexpr, UPPER: tl.constexpr,
):  # fmt: skip
    """Store a row that is in registers."""
    N: tl.constexpr = P * BLOCKS * M
    column = tl.arange(0, R * M) % M
    for j in tl.static_range(BLOCKS):
        n = (j * P + tl.arange(0, P))[:, None] * M + column[None, :]
        if z is not None:
            there = exists & (n < N)
            o = line * (2 * N * parts) + part * N + n
            tl.store(z + o, real[j].to(z.dtype.element_ty), there)
            tl.store(z + N * parts + o, (-upper[j]).to(z.dtype.element_ty), there)
        else:
            store_ring(real[j] * factor, results, target, signal, source, n, b, h, window, exists)
            if UPPER:
                store_ring(upper[j] * factor, results, target, signal, source, n + N, b, h, window, exists)


@triton.jit
def convolve_row(
    tile, turn, signal, source, results, target, z_in, z_out, filters, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr,
    R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER_IN: tl.constexpr, UPPER_OUT: tl.constexpr, CONJ: tl.constexpr,
    SWAPPED: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of rows of `signal` through their filters, or, with CONJ, through the filters' adjoints."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    b, h, window, part, exists, line = row_of(_tile_row(tile, R, M), turn, rows, SWAPPED)
    real = _zeros(BLOCKS, P, R * M)
    upper = _zeros(BLOCKS if UPPER_OUT else 0, P, R * M)
    for i in range(BLOCKS):
        br, bi = _analyse(
            i, tile, turn, signal, source, z_in, tables, rows, P, BLOCKS, R, N2, N3, UPPER_IN, SWAPPED, DT, PRECISION
        )  # fmt: skip
        sr, si = _forward(br, bi, tables, P, R, N2, N3, DT, PRECISION)
        sb, sh, _w, spart, _e, _l = row_of(_spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, SWAPPED)
        k = filters.pointer + (sh // filters.repeats + sb * filters.step - filters.first) * (2 * N * rows.parts) + spart * N
        k = k + _frequencies(i, P, R, N2, N3)
        kr = tl.load(k).to(tl.float32)
        ki = tl.load(k + N * rows.parts).to(tl.float32)
        if CONJ:
            ki = -ki
        pr, pi = (sr * kr - si * ki).to(DT), (sr * ki + si * kr).to(DT)
        dr, di = _backward(i, pr, pi, tables, P, R, N2, N3, DT, PRECISION)
        real = _add_real(i, real, dr, di, tables, P, BLOCKS, PRECISION)
        if UPPER_OUT:
            upper = _add_upper(i, upper, dr, di, tables, P, BLOCKS, PRECISION)
    factor = 1.0
    if filters.scale is not None:
        factor = tl.load(filters.scale + h // filters.repeats + b * filters.step - filters.first)
    _finish(
        real, upper, factor, signal, source, results, target, z_out, b, h, window, part, exists, line, rows.parts, P,
        BLOCKS, R, M, UPPER_OUT,
    )  # fmt: skip


@triton.jit
def convolve(
    signal, source, results, target, z_in, z_out, filters, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr,
    R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER_IN: tl.constexpr, UPPER_OUT: tl.constexpr, CONJ: tl.constexpr,
    SWAPPED: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All rows: program (chunk of turns, tile)."""
    first = tl.program_id(0) * rows.chunk
    for step in range(tl.minimum(rows.chunk, rows.turns - first)):
        convolve_row(
            tl.program_id(1), first + step, signal, source, results, target, z_in, z_out, filters, tables, rows, P, BLOCKS, R,
            N2, N3, UPPER_IN, UPPER_OUT, CONJ, SWAPPED, DT, PRECISION,
        )  # fmt: skip


@triton.jit
def analyse(
    signal, source, z_in, spectra, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr,
    N3: tl.constexpr, UPPER: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The spectra of rows, in float32: program (turn, row tile, block)."""
    N: tl.constexpr = P * BLOCKS * N2 * N3
    i, tile, turn = tl.program_id(2), tl.program_id(1), tl.program_id(0)
    br, bi = _analyse(i, tile, turn, signal, source, z_in, tables, rows, P, BLOCKS, R, N2, N3, UPPER, False, DT, PRECISION)
    sr, si = _forward(br, bi, tables, P, R, N2, N3, DT, PRECISION)
    b, h, _w, part, exists, _l = row_of(_spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, False)
    k = spectra.pointer + (h + b * spectra.step - spectra.first) * (2 * N * rows.parts) + part * N
    o = _frequencies(i, P, R, N2, N3)
    tl.store(k + o, sr, exists & (o < N))
    tl.store(k + N * rows.parts + o, si, exists & (o < N))


@triton.jit
def correlate(
    signal, source, z_in, other, place, z_other, products, tables, rows, span, chains, P: tl.constexpr, BLOCKS: tl.constexpr,
    R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER: tl.constexpr, UPPER_OTHER: tl.constexpr, MORE: tl.constexpr,
    DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of conj(A(signal))·A(other) over CHAIN turns, of `span` that go together: program (chain, row tile, block).

    `products` is (sums · chains, rows, 2 planes, N); with MORE they are added to what is there.
    """
    N: tl.constexpr = P * BLOCKS * N2 * N3
    ROWS: tl.constexpr = N2 * P * R if N3 > 1 else P * R
    q, tile, i = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = (q // chains) * span + (q % chains) * CHAIN
    _b, _h, _w, part, exists, line = row_of(_spectral_row(tile, R, ROWS), q, rows, False)
    o = _frequencies(i, P, R, N2, N3)
    w, there = products + line * (2 * N * rows.parts) + part * N + o, exists & (o < N)
    if MORE:
        wr, wi = tl.load(w, there, 0.0), tl.load(w + N * rows.parts, there, 0.0)
    else:
        wr = tl.zeros((ROWS, N3 if N3 > 1 else N2), tl.float32)
        wi = tl.zeros((ROWS, N3 if N3 > 1 else N2), tl.float32)
    for step in range(tl.minimum(CHAIN, (q // chains + 1) * span - first)):
        turn = first + step
        br, bi = _analyse(i, tile, turn, signal, source, z_in, tables, rows, P, BLOCKS, R, N2, N3, UPPER, False, DT, PRECISION)
        ur, ui = _forward(br, bi, tables, P, R, N2, N3, DT, PRECISION)
        br, bi = _analyse(
            i, tile, turn, other, place, z_other, tables, rows, P, BLOCKS, R, N2, N3, UPPER_OTHER, False, DT, PRECISION
        )
        yr, yi = _forward(br, bi, tables, P, R, N2, N3, DT, PRECISION)
        wr += ur * yr + ui * yi
        wi += ur * yi - ui * yr
    tl.store(w, wr, there)
    tl.store(w + N * rows.parts, wi, there)


@triton.jit
def add_products(products, totals, filters, apart, repeats, chains, count, TILE: tl.constexpr):
    """Add products (sums · chains, filters · repeats, count) to totals (sums, `apart`, count), one after the other: program
    (filter of a sum, tile of numbers)."""
    f = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * TILE + tl.arange(0, TILE)
    s, g = f // filters, f % filters
    at = totals + (s * apart + g) * count + o
    total = tl.load(at, o < count, 0.0)
    for r in range(repeats):
        for chain in range(chains):
            row = ((s * chains + chain) * filters + g) * repeats + r
            total += tl.load(products + row * count + o, o < count, 0.0).to(tl.float64)
    tl.store(at, total, o < count)


@triton.jit
def synthesise(
    totals, results, target, z_out, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr,
    N3: tl.constexpr, UPPER: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The rows with the spectra `totals`: program (turn, row tile)."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    turn, tile = tl.program_id(0), tl.program_id(1)
    b, h, window, part, exists, line = row_of(_tile_row(tile, R, M), turn, rows, False)
    _b, _h, _w, spart, _e, sline = row_of(_spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, False)
    real = _zeros(BLOCKS, P, R * M)
    upper = _zeros(BLOCKS if UPPER else 0, P, R * M)
    for i in range(BLOCKS):
        w = totals + sline * (2 * N * rows.parts) + spart * N + _frequencies(i, P, R, N2, N3)
        wr = tl.load(w).to(DT)
        wi = tl.load(w + N * rows.parts).to(DT)
        dr, di = _backward(i, wr, wi, tables, P, R, N2, N3, DT, PRECISION)
        real = _add_real(i, real, dr, di, tables, P, BLOCKS, PRECISION)
        if UPPER:
            upper = _add_upper(i, upper, dr, di, tables, P, BLOCKS, PRECISION)
    _finish(
        real, upper, 1.0, None, None, results, target, z_out, b, h, window, part, exists, line, rows.parts, P, BLOCKS, R, M,
        UPPER,
    )  # fmt: skip


@triton.jit
def round_spectra(spectra, rounded, scales, count, TILE: tl.constexpr):
    """Spectra of `count` numbers each for 16-bit operands: divided by the power of two that leaves the largest in [1, 2)."""
    f = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, TILE)
    largest = tl.zeros((TILE,), tl.float32)
    for first in range(0, count, TILE):
        largest = tl.maximum(largest, tl.abs(tl.load(spectra + f * count + first + o, first + o < count, 0.0)))
    exponent = (tl.max(largest, 0).to(tl.int32, bitcast=True) >> 23) & 255
    exponent = tl.where((exponent > 0) & (exponent < 254), exponent, 127)
    down = ((254 - exponent) << 23).to(tl.float32, bitcast=True)
    for first in range(0, count, TILE):
        k = tl.load(spectra + f * count + first + o, first + o < count, 0.0)
        tl.store(rounded + f * count + first + o, (k * down).to(rounded.dtype.element_ty), first + o < count)
    tl.store(scales + f, (exponent << 23).to(tl.float32, bitcast=True))


@triton.jit
def skip_gradient(signal, length, other, other_length, channels, partial, shift, SPAN: tl.constexpr, TILE: tl.constexpr):
    """Sums over SPAN samples of other[t]·signal[t + shift], into (samples, channels, spans), which the programs are."""
    b, h, s = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    total = tl.zeros((TILE,), tl.float32)
    for first in range(0, tl.minimum(SPAN, other_length - s * SPAN), TILE):
        t = s.to(tl.int64) * SPAN + first + tl.arange(0, TILE)
        inside = (t < other_length) & (t + shift >= 0) & (t + shift < length)
        x = tl.load(at(signal.x, b, h, t + shift), inside, 0.0).to(tl.float32)
        if signal.gate is not None:
            x = x * tl.load(at(signal.gate, b, h, t + shift), inside, 0.0).to(tl.float32)
        y = tl.load(at(other.x, b, h, t), inside, 0.0).to(tl.float32)
        if other.gate is not None:
            y = y * tl.load(at(other.gate, b, h, t), inside, 0.0).to(tl.float32)
        total += x * y
    tl.store(partial + (b * channels + h) * tl.num_programs(2) + s, tl.sum(total, 0))


@triton.jit
def add_up(partial, total, channels, samples, spans, TILE: tl.constexpr):
    """(channels,) sums of (samples, channels, spans), one after the other."""
    h = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    sums = tl.zeros((TILE,), tl.float64)
    for b in range(samples):
        for s in range(spans):
            sums += tl.load(partial + (h + b * channels) * spans + s, h < channels, 0.0).to(tl.float64)
    tl.store(total + h, sums.to(tl.float32), h < channels)
