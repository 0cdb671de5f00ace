"""Kernels of long rows: an outer DFT of R points through memory, between which rows are transformed in registers (`fused`).

A row of N = R·C points is a matrix X[R, C]; Z = (F X) ∘ T goes to scratch memory (rows, 2 planes, N), where each of its R rows
of C points is transformed and multiplied, or taken apart by another outer DFT first; the way back is y = Fᴴ (Z ∘ conj T). The
first F and T carry the weights of the right-angle transform. T[k, c] is a product of two: of a tile of columns and inside it.

Of float16 rows the squares are added up first: they are multiplied by a power of two that leaves their norm at about 2¹³,
beyond which a product could be too large, and the results by its inverse.
"""

from __future__ import annotations

import triton
import triton.language as tl

from longwave.backends.triton.fir_kernels import halves_added
from longwave.backends.triton.fused import convolve_row
from longwave.backends.triton.moves import load_ring, row_of, store_ring
from longwave.backends.triton.stages import exponent_of


@triton.jit
def _twiddle(table, k, tile, tiles, LENGTH: tl.constexpr, COLUMNS: tl.constexpr):
    """T of the frequencies k and a tile of columns; 0 beyond LENGTH."""
    there = (k < LENGTH)[:, None]
    hr = tl.load(table.high_r + (k * tiles + tile)[:, None], there, 0.0)
    hi = tl.load(table.high_i + (k * tiles + tile)[:, None], there, 0.0)
    o = k[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    lr, li = tl.load(table.low_r + o, there, 0.0), tl.load(table.low_i + o, there, 0.0)
    return hr * lr - hi * li, hr * li + hi * lr


@triton.jit
def _forward_tile(
    tile, matrix, block, signal, source, down, z_in, z_out, table, rows, above, points, tiles, LENGTH: tl.constexpr,
    COLUMNS: tl.constexpr, UPPER: tl.constexpr, K: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of columns, and a block of K bins, of one of the `above` matrices (LENGTH, tiles · COLUMNS) that each row of
    `points` is."""
    columns = tiles * COLUMNS
    row = matrix // above
    side = rows.across
    b, h, window, _p, _e, line = row_of(row % side, row // side, rows, False)
    base = line * 2 * points + (matrix % above) * (LENGTH * columns)
    k = block * K + tl.arange(0, K)
    c = tile * COLUMNS + tl.arange(0, COLUMNS)
    scale = 1.0
    if down is not None:
        scale = tl.load(down + row)
    ar = tl.zeros((K, COLUMNS), tl.float32)
    ai = tl.zeros((K, COLUMNS), tl.float32)
    for first in range(0, LENGTH, 16):
        n = first + tl.arange(0, 16)
        there = (k < LENGTH)[:, None] & (n < LENGTH)[None, :]
        f = k[:, None] * LENGTH + n[None, :]
        fr, fi = tl.load(table.fr + f, there, 0.0), tl.load(table.fi + f, there, 0.0)
        p = n[:, None] * columns + c[None, :]
        inside = (n < LENGTH)[:, None] & (c >= 0)[None, :]
        if z_in is not None:
            x0 = tl.load(z_in + base + p, inside, 0.0).to(DT)
            x1 = -tl.load(z_in + base + points + p, inside, 0.0).to(DT)
        else:
            x0 = (load_ring(signal, source, p, b, h, window, inside) * scale).to(DT)
        ar = tl.dot(fr, x0, ar, input_precision=PRECISION)
        ai = tl.dot(fi, x0, ai, input_precision=PRECISION)
        if UPPER:
            if z_in is None:
                x1 = (load_ring(signal, source, p + LENGTH * columns, b, h, window, inside) * scale).to(DT)
            ar = tl.dot(fi, x1, ar, input_precision=PRECISION)
            ai = tl.dot(fr, -x1, ai, input_precision=PRECISION)
    tr, ti = _twiddle(table, k, tile, tiles, LENGTH, COLUMNS)
    at = z_out + base + (k[:, None] * columns + c[None, :])
    inside = (k < LENGTH)[:, None] & (c >= 0)[None, :]
    tl.store(at, (ar * tr - ai * ti).to(z_out.dtype.element_ty), inside)
    tl.store(at + points, (ar * ti + ai * tr).to(z_out.dtype.element_ty), inside)


@triton.jit
def _backward_tile(
    tile, matrix, block, z_in, z_out, signal, source, results, target, back, filters, table, rows, above, points, tiles,
    LENGTH: tl.constexpr, COLUMNS: tl.constexpr, UPPER: tl.constexpr, K: tl.constexpr, DT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The inverse, and a block of K points."""
    columns = tiles * COLUMNS
    row = matrix // above
    side = rows.across
    b, h, window, _p, _e, line = row_of(row % side, row // side, rows, False)
    base = line * 2 * points + (matrix % above) * (LENGTH * columns)
    n = block * K + tl.arange(0, K)
    c = tile * COLUMNS + tl.arange(0, COLUMNS)
    real = tl.zeros((K, COLUMNS), tl.float32)
    upper = tl.zeros((K, COLUMNS), tl.float32)
    for first in range(0, LENGTH, 16):
        k = first + tl.arange(0, 16)
        there = (n < LENGTH)[:, None] & (k < LENGTH)[None, :]
        g = n[:, None] * LENGTH + k[None, :]
        gr, gi = tl.load(table.gr + g, there, 0.0), tl.load(table.gi + g, there, 0.0)
        at = base + k[:, None] * columns + c[None, :]
        inside = (k < LENGTH)[:, None] & (c >= 0)[None, :]
        zr = tl.load(z_in + at, inside, 0.0).to(tl.float32)
        zi = tl.load(z_in + at + points, inside, 0.0).to(tl.float32)
        tr, ti = _twiddle(table, k, tile, tiles, LENGTH, COLUMNS)
        dr, di = (zr * tr + zi * ti).to(DT), (zi * tr - zr * ti).to(DT)
        real = tl.dot(gi, di, tl.dot(gr, dr, real, input_precision=PRECISION), input_precision=PRECISION)
        if UPPER:
            upper = tl.dot(gi, dr, tl.dot(gr, -di, upper, input_precision=PRECISION), input_precision=PRECISION)
    p = n[:, None] * columns + c[None, :]
    inside = (n < LENGTH)[:, None] & (c >= 0)[None, :]
    if z_out is not None:
        tl.store(z_out + base + p, real.to(z_out.dtype.element_ty), inside)
        tl.store(z_out + base + points + p, (-upper).to(z_out.dtype.element_ty), inside)
    else:
        factor = 1.0
        if filters.scale is not None:
            factor = tl.load(filters.scale + h // filters.repeats + b * filters.step - filters.first)
        scale = 1.0
        if back is not None:
            scale = tl.load(back + row)
        store_ring(real * factor * scale, results, target, signal, source, p, b, h, window, inside)
        if UPPER:
            store_ring(upper * factor * scale, results, target, signal, source, p + LENGTH * columns, b, h, window, inside)


@triton.jit
def row_energies(signal, source, partial, rows, spans, SPAN: tl.constexpr, TILE: tl.constexpr, LOG_TILE: tl.constexpr):
    """Exponent bits of the sums of squares of SPAN positions of the ring each, in one order: program row · spans + span."""
    row, span = tl.program_id(0) // spans, tl.program_id(0) % spans
    side = rows.across
    b, h, window, _p, exists, _l = row_of(row % side, row // side, rows, False)
    sums = tl.zeros((1, TILE), tl.float32)
    for first in range(0, SPAN, TILE):
        v = load_ring(signal, source, span * SPAN + first + tl.arange(0, TILE)[None, :], b, h, window, exists)
        sums += v * v
    for halving in tl.static_range(LOG_TILE):
        sums = halves_added(sums, 1, TILE >> halving)
    tl.store(partial + row.to(tl.int64) * spans + span + tl.zeros((1, 1), tl.int32), exponent_of(sums))


@triton.jit
def row_powers_of_energies(partial, down, back, spans, to, TILE: tl.constexpr):
    """Powers of two by which the rows' norms have the exponent `to` if one span has all of it, and their inverses."""
    row = tl.program_id(0)
    o = tl.arange(0, TILE)
    largest = tl.zeros((TILE,), tl.int32)
    for first in range(0, spans, TILE):
        bits = tl.load(partial + row.to(tl.int64) * spans + first + o, first + o < spans, 0)
        largest = tl.maximum(largest, bits)
    e = (((tl.max(largest, 0) >> 23) - 127) >> 1) + 127
    tl.store(down + row, ((254 - e + to) << 23).to(tl.float32, bitcast=True))
    tl.store(back + row, ((e - to) << 23).to(tl.float32, bitcast=True))


@triton.jit
def outer_forward(
    signal, source, down, z_in, z_out, table, rows, above, points, tiles, LENGTH: tl.constexpr, COLUMNS: tl.constexpr,
    UPPER: tl.constexpr, K: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Z of all rows: program (matrix · tiles + tile of columns, block of bins)."""
    _forward_tile(
        tl.program_id(0) % tiles, tl.program_id(0) // tiles, tl.program_id(1), signal, source, down, z_in, z_out, table, rows,
        above, points, tiles, LENGTH, COLUMNS, UPPER, K, DT, PRECISION,
    )  # fmt: skip


@triton.jit
def outer_backward(
    z_in, z_out, signal, source, results, target, back, filters, table, rows, above, points, tiles, LENGTH: tl.constexpr,
    COLUMNS: tl.constexpr, UPPER: tl.constexpr, K: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The inverse: program (matrix · tiles + tile of columns, block of points)."""
    _backward_tile(
        tl.program_id(0) % tiles, tl.program_id(0) // tiles, tl.program_id(1), z_in, z_out, signal, source, results, target,
        back, filters, table, rows, above, points, tiles, LENGTH, COLUMNS, UPPER, K, DT, PRECISION,
    )  # fmt: skip


@triton.jit
def convolve_in_l2(
    signal, source, down, results, target, back, z, z_back, filters, table, tables, rows, parts, points, tiles,
    LENGTH: tl.constexpr, COLUMNS: tl.constexpr, UPPER_IN: tl.constexpr, UPPER_OUT: tl.constexpr, K: tl.constexpr,
    CONJ: tl.constexpr, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr,
    DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Whole rows, one after the other, through scratch memory of the program's own (programs, 2 planes, N), twice: so little
    that it stays in the second-level cache. `parts`: the same rows, each LENGTH of them."""
    BINS: tl.constexpr = (LENGTH + K - 1) // K
    mine = tl.program_id(0)
    for round in range((rows.across * rows.turns - mine + tl.num_programs(0) - 1) // tl.num_programs(0)):
        row = mine + round * tl.num_programs(0)
        turn, channel = row % rows.turns, row // rows.turns
        matrix = turn * rows.across + channel
        own = (mine - matrix).to(tl.int64) * 2 * points
        for tile in range(tiles * BINS):
            _forward_tile(
                tile // BINS, matrix, tile % BINS, signal, source, down, None, z + own, table, rows, 1, points, tiles, LENGTH,
                COLUMNS, UPPER_IN, K, DT, PRECISION,
            )  # fmt: skip
        tl.debug_barrier()
        for part in range(LENGTH):
            convolve_row(
                channel * LENGTH + part, turn, None, source, None, target, z + own, z_back + own, filters, tables, parts, P,
                BLOCKS, R, N2, N3, True, True, CONJ, False, DT, PRECISION,
            )  # fmt: skip
        tl.debug_barrier()
        for tile in range(tiles * BINS):
            _backward_tile(
                tile // BINS, matrix, tile % BINS, z_back + own, None, signal, source, results, target, back, filters, table,
                rows, 1, points, tiles, LENGTH, COLUMNS, UPPER_OUT, K, DT, PRECISION,
            )  # fmt: skip
        tl.debug_barrier()
