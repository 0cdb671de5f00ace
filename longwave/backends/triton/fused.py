"""Kernels that keep a row in registers from load to store: transform, product with a spectrum, transform back (`stages`).

The rows of a `split` transform are complex: scratch memory (rows, 2 planes, parts · N) takes the place of signal and results.
"""

from __future__ import annotations

import triton
import triton.language as tl

from longwave.backends.triton import configurations
from longwave.backends.triton.moves import at, row_of
from longwave.backends.triton.stages import (
    add_real,
    add_upper,
    analyse_block,
    backward_block,
    exponent_of,
    finish,
    forward_block,
    frequencies,
    of_frequencies,
    powers,
    row_powers,
    spectral_row,
    tile_row,
    zeros,
)

CHAIN = tl.constexpr(configurations.CHAIN)


@triton.jit
def convolve_row(
    tile, turn, signal, source, results, target, z_in, z_out, filters, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr,
    R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER_IN: tl.constexpr, UPPER_OUT: tl.constexpr, CONJ: tl.constexpr,
    SWAPPED: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of rows of `signal` through their filters, or, with CONJ, through the filters' adjoints."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    b, h, window, part, exists, line = row_of(tile_row(tile, R, M), turn, rows, SWAPPED)
    down, back = None, None
    if tl.float16 == DT:
        if z_in is None:
            down, back = row_powers(tile, turn, signal, source, rows, P, BLOCKS, R, N2, N3, UPPER_IN, SWAPPED)
    real = zeros(BLOCKS, P, R * M, N3)
    upper = zeros(BLOCKS if UPPER_OUT else 0, P, R * M, N3)
    for i in range(BLOCKS):
        br, bi = analyse_block(
            i, tile, turn, signal, source, z_in, down, tables, rows, P, BLOCKS, R, N2, N3, UPPER_IN, SWAPPED, DT, PRECISION
        )  # fmt: skip
        sr, si = forward_block(br, bi, tables, P, R, N2, N3, DT, PRECISION)
        sb, sh, _w, spart, _e, _l = row_of(spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, SWAPPED)
        k = filters.pointer + (sh // filters.repeats + sb * filters.step - filters.first) * (2 * N * rows.parts) + spart * N
        k = k + frequencies(i, P, R, N2, N3)
        kr = tl.load(k).to(tl.float32)
        ki = tl.load(k + N * rows.parts).to(tl.float32)
        if CONJ:
            ki = -ki
        pr, pi = (sr * kr - si * ki).to(DT), (sr * ki + si * kr).to(DT)
        dr, di = backward_block(i, pr, pi, tables, P, R, N2, N3, DT, PRECISION)
        real = add_real(i, real, dr, di, tables, P, BLOCKS, N3, PRECISION)
        if UPPER_OUT:
            upper = add_upper(i, upper, dr, di, tables, P, BLOCKS, N3, PRECISION)
    factor = 1.0
    if filters.scale is not None:
        factor = tl.load(filters.scale + h // filters.repeats + b * filters.step - filters.first)
    finish(
        real, upper, factor, back, signal, source, results, target, z_out, b, h, window, part, exists, line, rows.parts, P,
        BLOCKS, R, N2, N3, UPPER_OUT,
    )  # fmt: skip


@triton.jit
def convolve(
    signal, source, results, target, z_in, z_out, filters, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr,
    R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER_IN: tl.constexpr, UPPER_OUT: tl.constexpr, CONJ: tl.constexpr,
    SWAPPED: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All rows: program tile · chunks + chunk of turns."""
    chunks = tl.cdiv(rows.turns, rows.chunk)
    first = tl.program_id(0) % chunks * rows.chunk
    for step in range(tl.minimum(rows.chunk, rows.turns - first)):
        convolve_row(
            tl.program_id(0) // chunks, first + step, signal, source, results, target, z_in, z_out, filters, tables, rows, P,
            BLOCKS, R, N2, N3, UPPER_IN, UPPER_OUT, CONJ, SWAPPED, DT, PRECISION,
        )  # fmt: skip


@triton.jit
def analyse(
    signal, source, z_in, spectra, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr,
    N3: tl.constexpr, UPPER: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The spectra of rows, in float32: program (row tile · turns + turn, block)."""
    N: tl.constexpr = P * BLOCKS * N2 * N3
    i, tile, turn = tl.program_id(1), tl.program_id(0) // rows.turns, tl.program_id(0) % rows.turns
    br, bi = analyse_block(
        i, tile, turn, signal, source, z_in, None, tables, rows, P, BLOCKS, R, N2, N3, UPPER, False, DT, PRECISION
    )  # fmt: skip
    sr, si = forward_block(br, bi, tables, P, R, N2, N3, DT, PRECISION)
    b, h, _w, part, exists, _l = row_of(spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, False)
    k = spectra.pointer + (h + b * spectra.step - spectra.first) * (2 * N * rows.parts) + part * N
    o = frequencies(i, P, R, N2, N3)
    tl.store(k + o, sr, exists & (o < N))
    tl.store(k + N * rows.parts + o, si, exists & (o < N))


@triton.jit
def _spectrum(
    i, tile, turn, signal, source, z, by, tables, rows, P: tl.constexpr, BLOCKS: tl.constexpr, R: tl.constexpr,
    N2: tl.constexpr, N3: tl.constexpr, UPPER: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The spectra of a tile of rows; `by`: what those of split rows are to be multiplied by, or None."""
    down, back = None, None
    if tl.float16 == DT:
        if z is None:
            down, back = row_powers(tile, turn, signal, source, rows, P, BLOCKS, R, N2, N3, UPPER, False)
            back = of_frequencies(back, R, P)
    if by is not None:
        _b, _h, _w, _p, _e, line = row_of(spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, False)
        back = tl.load(by + line)
    br, bi = analyse_block(
        i, tile, turn, signal, source, z, down, tables, rows, P, BLOCKS, R, N2, N3, UPPER, False, DT, PRECISION
    )  # fmt: skip
    sr, si = forward_block(br, bi, tables, P, R, N2, N3, DT, PRECISION)
    if back is not None:
        sr, si = sr * back, si * back
    return sr, si


@triton.jit
def correlate(
    signal, source, z_in, back_in, other, place, z_other, back_other, products, tables, rows, span, chains, P: tl.constexpr,
    BLOCKS: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, UPPER: tl.constexpr, UPPER_OTHER: tl.constexpr,
    MORE: tl.constexpr, DT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of conj(A(signal))·A(other) over CHAIN turns, of `span` that go together: program (tile · all chains +
    chain, block).

    `products` is (sums · chains, rows, 2 planes, N); with MORE they are added to what is there. `back_in`, `back_other`: by
    what the rows of a split transform are to be multiplied.
    """
    N: tl.constexpr = P * BLOCKS * N2 * N3
    ROWS: tl.constexpr = N2 * P * R if N3 > 1 else P * R
    all_chains = rows.turns // span * chains
    q, tile, i = tl.program_id(0) % all_chains, tl.program_id(0) // all_chains, tl.program_id(1)
    first = (q // chains) * span + (q % chains) * CHAIN
    _b, _h, _w, part, exists, line = row_of(spectral_row(tile, R, ROWS), q, rows, False)
    o = frequencies(i, P, R, N2, N3)
    w, there = products + line * (2 * N * rows.parts) + part * N + o, exists & (o < N)
    if MORE:
        wr, wi = tl.load(w, there, 0.0), tl.load(w + N * rows.parts, there, 0.0)
    else:
        wr = tl.zeros((ROWS, N3 if N3 > 1 else N2), tl.float32)
        wi = tl.zeros((ROWS, N3 if N3 > 1 else N2), tl.float32)
    for step in range(tl.minimum(CHAIN, (q // chains + 1) * span - first)):
        turn = first + step
        ur, ui = _spectrum(
            i, tile, turn, signal, source, z_in, back_in, tables, rows, P, BLOCKS, R, N2, N3, UPPER, DT, PRECISION
        )  # fmt: skip
        if z_in is None:
            if N3 > 1 or tl.float32 == DT:  # else what the other loads stands ready beside this one, in too many registers
                tl.debug_barrier()
        yr, yi = _spectrum(
            i, tile, turn, other, place, z_other, back_other, tables, rows, P, BLOCKS, R, N2, N3, UPPER_OTHER, DT, PRECISION
        )  # fmt: skip
        wr += ur * yr + ui * yi
        wi += ur * yi - ui * yr
    tl.store(w, wr, there)
    tl.store(w + N * rows.parts, wi, there)


@triton.jit
def add_products(products, totals, filters, apart, repeats, chains, count, TILE: tl.constexpr):
    """Add products (sums · chains, filters · repeats, count) to totals (sums, `apart`, count), one after the other: program
    filter of a sum · tiles + tile of numbers."""
    tiles = tl.cdiv(count, TILE)
    f = (tl.program_id(0) // tiles).to(tl.int64)
    o = tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)
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
    """The rows with the spectra `totals`: program row tile · turns + turn."""
    M: tl.constexpr = N2 * N3
    N: tl.constexpr = P * BLOCKS * M
    turn, tile = tl.program_id(0) % rows.turns, tl.program_id(0) // rows.turns
    b, h, window, part, exists, line = row_of(tile_row(tile, R, M), turn, rows, False)
    _b, _h, _w, spart, _e, sline = row_of(spectral_row(tile, R, N2 * P * R if N3 > 1 else P * R), turn, rows, False)
    real = zeros(BLOCKS, P, R * M, N3)
    upper = zeros(BLOCKS if UPPER else 0, P, R * M, N3)
    for i in range(BLOCKS):
        w = totals + sline * (2 * N * rows.parts) + spart * N + frequencies(i, P, R, N2, N3)
        wr = tl.load(w).to(DT)
        wi = tl.load(w + N * rows.parts).to(DT)
        dr, di = backward_block(i, wr, wi, tables, P, R, N2, N3, DT, PRECISION)
        real = add_real(i, real, dr, di, tables, P, BLOCKS, N3, PRECISION)
        if UPPER:
            upper = add_upper(i, upper, dr, di, tables, P, BLOCKS, N3, PRECISION)
    finish(
        real, upper, 1.0, None, None, None, results, target, z_out, b, h, window, part, exists, line, rows.parts, P, BLOCKS, R,
        N2, N3, UPPER,
    )  # fmt: skip


@triton.jit
def round_spectra(spectra, rounded, scales, count, gain, TILE: tl.constexpr):
    """Spectra of `count` numbers each for 16-bit operands: divided by the power of two that leaves the largest in [1, 2). What
    results are to be multiplied by is that power times `gain`."""
    f = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, TILE)
    largest = tl.zeros((TILE,), tl.int32)
    for first in range(0, count, TILE):
        k = tl.load(spectra + f * count + first + o, first + o < count, 0.0)
        largest = tl.maximum(largest, exponent_of(k))
    down, back = powers(tl.max(largest, 0), 0)
    for first in range(0, count, TILE):
        k = tl.load(spectra + f * count + first + o, first + o < count, 0.0)
        tl.store(rounded + f * count + first + o, (k * down).to(rounded.dtype.element_ty), first + o < count)
    tl.store(scales + f, back * gain)


@triton.jit
def skip_gradient(signal, length, other, other_length, channels, partial, spans, shift, SPAN: tl.constexpr, TILE: tl.constexpr):
    """Sums over SPAN samples of other[t]·signal[t + shift], into (samples, channels, spans), which the programs are."""
    row, s = (tl.program_id(0) // spans).to(tl.int64), (tl.program_id(0) % spans).to(tl.int64)
    b, h = row // channels, row % channels
    total = tl.zeros((TILE,), tl.float32)
    for first in range(0, tl.minimum(SPAN, other_length - s * SPAN).to(tl.int32), TILE):
        t = s * SPAN + first + tl.arange(0, TILE)
        inside = (t < other_length) & (t + shift >= 0) & (t + shift < length)
        x = tl.load(at(signal.x, b, h, t + shift), inside, 0.0).to(tl.float32)
        if signal.gate is not None:
            x = x * tl.load(at(signal.gate, b, h, t + shift), inside, 0.0).to(tl.float32)
        y = tl.load(at(other.x, b, h, t), inside, 0.0).to(tl.float32)
        if other.gate is not None:
            y = y * tl.load(at(other.gate, b, h, t), inside, 0.0).to(tl.float32)
        total += x * y
    tl.store(partial + row * spans + s, tl.sum(total, 0))


@triton.jit
def add_up(partial, total, channels, samples, spans, TILE: tl.constexpr):
    """(channels,) sums of (samples, channels, spans), one after the other."""
    h = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    sums = tl.zeros((TILE,), tl.float64)
    for b in range(samples):
        for s in range(spans):
            sums += tl.load(partial + (h + b * channels) * spans + s, h < channels, 0.0).to(tl.float64)
    tl.store(total + h, sums.to(tl.float32), h < channels)
