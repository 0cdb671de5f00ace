"""The steps of a transform that is in registers: products with DFT matrices, and twiddles between them.

A row of N = N1·N2·N3 points is a matrix X[N1, N2·N3]; with unitary DFT matrices F and twiddles T

    S = ((F1 X) ∘ T) F2        P = S ∘ K        y = F1ᴴ ((P F2ᴴ) ∘ conj T)

(order 2, N3 = 1; order 3 does the same to the rows once more). F1 and T carry the weights exp(-iπn/2N) of the right-angle
transform. N1 = P·BLOCKS: after the first product rows do not meet until the last one, so that P frequencies of N1 go through
everything at a time, and the result is their sum. Short rows stand side by side in a tile, R of them between the two
dimensions of X, so that no product adds up samples of two rows. Spectra are in the order in which they arise.

At order 3 the matrix is turned, X[N2·N3, N1], and after each product the axes (of which the last is transformed) move round by
one: the long side of every product is that of its rows, which are what a compiler deals to warps.

float16 does not reach far: a row is multiplied by the power of two that leaves its largest sample in [16, 32), and its result
by the inverse, in float32. What unitary products make of it then stays between 2⁻⁶ and 2¹³, whatever the row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from longwave.backends.triton.moves import load_ring, row_of, store_ring

# The exponent that the largest float16 sample of a row gets.
HEADROOM = tl.constexpr(4)


@triton.jit
def exponent_of(x):
    """The bits of a float32's exponent, in their place; those of a NaN or an infinity are the largest."""
    return x.to(tl.int32, bitcast=True) & 0x7F800000


@triton.jit
def powers(bits, to):
    """(2^-n, 2^n) for numbers with the exponent bits `bits`: times the first they have the exponent `to`. 1 where they are 0,
    not finite, or next to the ends of float32."""
    e = bits >> 23
    e = tl.where((e > to) & (e < 254), e, 127 + to)
    return ((254 - e + to) << 23).to(tl.float32, bitcast=True), ((e - to) << 23).to(tl.float32, bitcast=True)


@triton.jit
def tile_row(tile, R: tl.constexpr, M: tl.constexpr):
    """The row that each column of X belongs to."""
    if R == 1:
        return tile
    else:
        return (tile * R + tl.arange(0, R * M) // M)[None, :]


@triton.jit
def spectral_row(tile, R: tl.constexpr, ROWS: tl.constexpr):
    """The row that each row of a matrix of frequencies belongs to."""
    if R == 1:
        return tile
    else:
        return (tile * R + tl.arange(0, ROWS) % R)[:, None]


@triton.jit
def _of_columns(x, R: tl.constexpr, M: tl.constexpr):
    """A number of each row of the tile (a scalar where there is one), for the columns of X."""
    if R == 1:
        return x
    else:
        return tl.reshape(tl.broadcast_to(x[:, None], (R, M)), (R * M,))[None, :]


@triton.jit
def of_frequencies(x, R: tl.constexpr, P: tl.constexpr):
    """The same for the rows of a matrix of frequencies."""
    if R == 1:
        return x
    else:
        return tl.reshape(tl.broadcast_to(x[None, :], (P, R)), (P * R,))[:, None]


@triton.jit
def _down(x, N3: tl.constexpr):
    """Along the side of N1 in X, which is turned at order 3."""
    if N3 == 1:
        return x[:, None]
    else:
        return x[None, :]


@triton.jit
def _across(x, N3: tl.constexpr):
    """Along the other side."""
    if N3 == 1:
        return x[None, :]
    else:
        return x[:, None]


@triton.jit
def _times(f, x, sums, N3: tl.constexpr, PRECISION: tl.constexpr):
    """sums + F X, or turned."""
    if N3 == 1:
        return tl.dot(f, x, sums, input_precision=PRECISION)
    else:
        return tl.dot(x, f, sums, input_precision=PRECISION)


@triton.jit
def frequencies(i, P: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr):
    """Where the matrix of frequencies of block i stands in a spectrum."""
    if N3 == 1:
        row = tl.arange(0, P * R)
        return ((i * P + row // R) * N2)[:, None] + tl.arange(0, N2)[None, :]
    else:
        return ((i * P * N2 + tl.arange(0, P * N2)) * N3)[:, None] + tl.arange(0, N3)[None, :]


@triton.jit
def row_powers(
    tile, turn, signal, source, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr,
    N3: tl.constexpr, UPPER: tl.constexpr, SWAPPED: tl.constexpr,
):  # fmt: skip
    """`powers` of each row of the tile: of its largest sample."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    b, h, window, _part, exists, _line = row_of(tile_row(tile, R, M), turn, rows, SWAPPED)
    row = tl.arange(0, P)
    column = _across(tl.arange(0, R * M) % M, N3)
    largest = exponent_of(load_ring(signal, source, _down(row * M, N3) + column, b, h, window, exists))
    for j in tl.static_range(1, BLOCKS):
        n = _down((j * P + row) * M, N3) + column
        largest = tl.maximum(largest, exponent_of(load_ring(signal, source, n, b, h, window, exists)))
    if UPPER:
        for j in tl.static_range(BLOCKS):
            n = _down((j * P + row) * M, N3) + column + N
            largest = tl.maximum(largest, exponent_of(load_ring(signal, source, n, b, h, window, exists)))
    if R == 1:
        return powers(tl.max(tl.max(largest, 0), 0), HEADROOM)
    else:
        return powers(tl.max(tl.reshape(tl.max(largest, 0), (R, M)), 1), HEADROOM)


@triton.jit
def analyse_block(
    i, tile, turn, signal, source, z, scale, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr,
    N2: tl.constexpr, N3: tl.constexpr, UPPER: tl.constexpr, SWAPPED: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Block i of the first product, twiddled; the signal times `scale`, if there is one, a number of each row."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    column = _across(tl.arange(0, R * M) % M, N3)
    row = tl.arange(0, P)
    b, h, window, part, exists, line = row_of(tile_row(tile, R, M), turn, rows, SWAPPED)
    if N3 == 1:
        ar = tl.zeros((P, R * M), tl.float32)
        ai = tl.zeros((P, R * M), tl.float32)
    else:
        ar = tl.zeros((M, P), tl.float32)
        ai = tl.zeros((M, P), tl.float32)
    for j in tl.static_range(BLOCKS):
        f = _down((i * P + row) * (P * BLOCKS), N3) + _across(j * P + row, N3)
        fr, fi = tl.load(tables.f1r + f), tl.load(tables.f1i + f)
        n = _down((j * P + row) * M, N3) + column
        if z is not None:
            x0 = tl.load(z + line * (2 * N * rows.parts) + part * N + n).to(DT)
            x1 = -tl.load(z + line * (2 * N * rows.parts) + N * rows.parts + part * N + n).to(DT)
        else:
            v = load_ring(signal, source, n, b, h, window, exists)
            if scale is not None:
                v = v * _of_columns(scale, R, M)
            x0 = v.to(DT)
        ar = _times(fr, x0, ar, N3, PRECISION)
        ai = _times(fi, x0, ai, N3, PRECISION)
        if UPPER:
            if z is None:
                v = load_ring(signal, source, n + N, b, h, window, exists)
                if scale is not None:
                    v = v * _of_columns(scale, R, M)
                x1 = v.to(DT)
            ar = _times(fi, x1, ar, N3, PRECISION)
            ai = _times(fr, -x1, ai, N3, PRECISION)
    t = _down((i * P + row) * M, N3) + column
    tr, ti = tl.load(tables.tr + t).to(tl.float32), tl.load(tables.ti + t).to(tl.float32)
    return (ar * tr - ai * ti).to(DT), (ar * ti + ai * tr).to(DT)


@triton.jit
def forward_block(
    br, bi, tables, P: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The DFTs of the rows of a block: its frequencies in float32."""
    o2 = tl.arange(0, N2)[:, None] * N2 + tl.arange(0, N2)[None, :]
    f2r, f2i = tl.load(tables.f2r + o2), tl.load(tables.f2i + o2)
    if N3 == 1:
        br, bi = tl.reshape(br, (P * R, N2)), tl.reshape(bi, (P * R, N2))
    else:
        br = tl.reshape(tl.permute(tl.reshape(br, (N2, N3, P)), (1, 2, 0)), (N3 * P, N2))
        bi = tl.reshape(tl.permute(tl.reshape(bi, (N2, N3, P)), (1, 2, 0)), (N3 * P, N2))
    sr = tl.dot(-bi, f2i, tl.dot(br, f2r, input_precision=PRECISION), input_precision=PRECISION)
    si = tl.dot(bi, f2r, tl.dot(br, f2i, input_precision=PRECISION), input_precision=PRECISION)
    if N3 > 1:
        t = (tl.arange(0, N3 * P) // P)[:, None] + (tl.arange(0, N2) * N3)[None, :]
        tr, ti = tl.load(tables.t2r + t).to(tl.float32), tl.load(tables.t2i + t).to(tl.float32)
        br = tl.reshape((sr * tr - si * ti).to(DT), (N3, P, N2))
        bi = tl.reshape((sr * ti + si * tr).to(DT), (N3, P, N2))
        br = tl.reshape(tl.permute(br, (1, 2, 0)), (P * N2, N3))
        bi = tl.reshape(tl.permute(bi, (1, 2, 0)), (P * N2, N3))
        o3 = tl.arange(0, N3)[:, None] * N3 + tl.arange(0, N3)[None, :]
        f3r, f3i = tl.load(tables.f3r + o3), tl.load(tables.f3i + o3)
        sr = tl.dot(-bi, f3i, tl.dot(br, f3r, input_precision=PRECISION), input_precision=PRECISION)
        si = tl.dot(bi, f3r, tl.dot(br, f3i, input_precision=PRECISION), input_precision=PRECISION)
    return sr, si


@triton.jit
def backward_block(
    i, pr, pi, tables, P: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The inverse of `forward_block` and of the first twiddles, for operands of the products."""
    M: tl.constexpr = N2 * N3
    if N3 > 1:
        o3 = tl.arange(0, N3)[:, None] * N3 + tl.arange(0, N3)[None, :]
        f3r, f3i = tl.load(tables.f3r + o3), tl.load(tables.f3i + o3)
        cr = tl.dot(pi, f3i, tl.dot(pr, f3r, input_precision=PRECISION), input_precision=PRECISION)
        ci = tl.dot(-pr, f3i, tl.dot(pi, f3r, input_precision=PRECISION), input_precision=PRECISION)
        cr = tl.reshape(tl.permute(tl.reshape(cr, (P, N2, N3)), (2, 0, 1)), (N3 * P, N2))
        ci = tl.reshape(tl.permute(tl.reshape(ci, (P, N2, N3)), (2, 0, 1)), (N3 * P, N2))
        t = (tl.arange(0, N3 * P) // P)[:, None] + (tl.arange(0, N2) * N3)[None, :]
        tr, ti = tl.load(tables.t2r + t).to(tl.float32), tl.load(tables.t2i + t).to(tl.float32)
        pr, pi = (cr * tr + ci * ti).to(DT), (ci * tr - cr * ti).to(DT)
    o2 = tl.arange(0, N2)[:, None] * N2 + tl.arange(0, N2)[None, :]
    f2r, f2i = tl.load(tables.f2r + o2), tl.load(tables.f2i + o2)
    cr = tl.dot(pi, f2i, tl.dot(pr, f2r, input_precision=PRECISION), input_precision=PRECISION)
    ci = tl.dot(-pr, f2i, tl.dot(pi, f2r, input_precision=PRECISION), input_precision=PRECISION)
    if N3 == 1:
        cr, ci = tl.reshape(cr, (P, R * M)), tl.reshape(ci, (P, R * M))
    else:
        cr = tl.reshape(tl.permute(tl.reshape(cr, (N3, P, N2)), (2, 0, 1)), (M, P))
        ci = tl.reshape(tl.permute(tl.reshape(ci, (N3, P, N2)), (2, 0, 1)), (M, P))
    t = _down((i * P + tl.arange(0, P)) * M, N3) + _across(tl.arange(0, R * M) % M, N3)
    tr, ti = tl.load(tables.tr + t).to(tl.float32), tl.load(tables.ti + t).to(tl.float32)
    return (cr * tr + ci * ti).to(DT), (ci * tr - cr * ti).to(DT)


@triton.jit
def zeros(BLOCKS: tl.constexpr, P: tl.constexpr, C: tl.constexpr, N3: tl.constexpr):
    """The blocks of a plane of the result."""
    sums = ()
    for _ in tl.static_range(BLOCKS):
        if N3 == 1:
            sums = sums + (tl.zeros((P, C), tl.float32),)
        else:
            sums = sums + (tl.zeros((C, P), tl.float32),)
    return sums


@triton.jit
def add_real(i, sums, dr, di, tables, P: tl.constexpr, BLOCKS: tl.constexpr, N3: tl.constexpr, PRECISION: tl.constexpr):
    """What block i gives to the real part of every block of the result."""
    row = tl.arange(0, P)
    more = ()
    for j in tl.static_range(BLOCKS):
        g = _down((j * P + row) * (P * BLOCKS), N3) + _across(i * P + row, N3)
        gr, gi = tl.load(tables.g1r + g), tl.load(tables.g1i + g)
        with_real = _times(gr, dr, sums[j], N3, PRECISION)
        more = more + (_times(gi, di, with_real, N3, PRECISION),)
    return more


@triton.jit
def add_upper(i, sums, dr, di, tables, P: tl.constexpr, BLOCKS: tl.constexpr, N3: tl.constexpr, PRECISION: tl.constexpr):
    """The same for the upper plane, which is the imaginary part negated."""
    return add_real(i, sums, -di, dr, tables, P, BLOCKS, N3, PRECISION)


@triton.jit
def finish(
    real, upper, factor, scale, signal, source, results, target, z, b, h, window, part, exists, line, parts, P: tl.constexpr,
    BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER: tl.constexpr,
):  # fmt: skip
    """Store a row that is in registers, times a number of its filter and one of the row, if they are there."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    column = _across(tl.arange(0, R * M) % M, N3)
    for j in tl.static_range(BLOCKS):
        n = _down((j * P + tl.arange(0, P)) * M, N3) + column
        if z is not None:
            there = exists & (n < N)
            o = line * (2 * N * parts) + part * N + n
            tl.store(z + o, real[j].to(z.dtype.element_ty), there)
            tl.store(z + N * parts + o, (-upper[j]).to(z.dtype.element_ty), there)
        else:
            r = real[j] * factor
            if scale is not None:
                r = r * _of_columns(scale, R, M)
            store_ring(r, results, target, signal, source, n, b, h, window, exists)
            if UPPER:
                r = upper[j] * factor
                if scale is not None:
                    r = r * _of_columns(scale, R, M)
                store_ring(r, results, target, signal, source, n + N, b, h, window, exists)
