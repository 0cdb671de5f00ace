"""`six_step`: one long row at a time as a matrix, n = n1·COLUMNS + n2, with its own samples in the lanes.

    A_N(x)[k1 + N1·k2] = Σ_n2 exp(-2πi·n2·k2/N2) · exp(-2πi·n2·(k1 + 1/4)/N) · A_N1(x[·, n2])[k1]

Columns are right-angle transforms of length N1, W neighbouring ones at a time: contiguous in memory. The factor between is a
*turn*, the product of two table entries. Rows are plain transforms of length N2, W at a time, by transposing in registers. A
matrix is kept in scratch memory as rows of ROW_STEP bytes, W real and W imaginary parts after each other; a transformed
filter stays as tiles of W rows, one a lane. The steps that make a convolution or its gradients are a script in the program;
a row is taken through it by one thread, or all threads take part in every step.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import moves, steps, words
from longwave.backends.cpu.fused import ends, gradients_of, lift, scratch_part, walk, walk_alone
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.moves import ROW_BYTES, word
from longwave.backends.cpu.simd import lanes_of
from longwave.backends.cpu.words import (
    COLUMNS_IN,
    COLUMNS_OUT,
    DK,
    DPOSTGATE,
    DX,
    INT,
    LIST_WORDS,
    LISTS,
    OF_DZ,
    OF_INPUT,
    OF_SUM,
    OF_TAPS,
    ROW_STEP,
    ROWS_BACKWARD,
    ROWS_FILTER,
    ROWS_LAST,
    ROWS_LIFT,
    ROWS_MULTIPLY,
    SCALED,
    TAPS,
    WEIGHTS,
)  # fmt: skip

# Columns that a launch hands out at a time: whole cache lines of a row.
TOGETHER = 2
# Bytes between the rows of a matrix beyond their length, so that neighbours do not share a set of the cache.
PADDING = 128


@part
def _matrix(p: int, matrices: int, h: int, which: int) -> int:
    """Where a matrix begins: in scratch memory, or a filter's that was made before, one a channel."""
    if which == OF_TAPS and word(p, words.SPECTRA) != 0 and word(p, words.LIFTS) == 0:
        return word(p, words.SPECTRA) + h * word(p, words.MATRIX_BYTES)
    return matrices + which * word(p, words.MATRIX_BYTES)


@part
def _columns(p: int, scratch: int, x: int, b: int, h: int, kind: int, which: int, matrix: int, tile: int, like: Any) -> None:
    high, low, step = word(p, words.TURNS_HIGH), word(p, words.TURNS_LOW), word(p, ROW_STEP)
    turns = word(p, words.TURNS) + tile * (high + low) * ROW_BYTES
    weights = SCALED if which in (TAPS, DK) else WEIGHTS
    moves.aim_at_columns(p, scratch, b, h, tile, like)
    if kind == COLUMNS_IN:
        ends(p, scratch, which, 0, x, weights, like)
        walk_alone(p, x, words.INPUT_IN, scratch, like)
        steps.turn(like, x, matrix + tile * ROW_BYTES, step, turns, high, low)
    else:
        steps.turn_back(like, x, matrix + tile * ROW_BYTES, step, turns, high, low)
        walk_alone(p, x, words.SUM_OUT, scratch, like)
        ends(p, scratch, which, 1, x, weights, like)


@part
def _keep(p: int, x: int, tile: int, like: Any) -> None:
    """The kept frequencies of W rows, where rows differ in them."""
    count = word(p, words.ROUGH_COUNT)
    factors = word(p, words.ROUGH_LANES) + tile * count * moves.PLANE_BYTES
    steps.keep(like, x, word(p, words.ROUGH_PLACES), count, factors)


@part
def _rows(p: int, scratch: int, x: int, z: int, matrices: int, h: int, kind: int, is_first: int, tile: int, like: Any) -> None:
    r, step = word(p, words.ROW_PROGRAM), word(p, ROW_STEP)
    points, first = word(r, words.N), tile * lanes_of(like) * step
    s, v = _matrix(p, matrices, h, OF_TAPS) + first, _matrix(p, matrices, h, OF_INPUT) + first
    dz, total = _matrix(p, matrices, h, OF_DZ) + first, _matrix(p, matrices, h, OF_SUM) + first
    need_x = word(p, LISTS + DX * LIST_WORDS + 1) > 0
    need_k = word(p, LISTS + DK * LIST_WORDS + 1) > 0
    need_y = word(p, LISTS + DPOSTGATE * LIST_WORDS + 1) > 0
    # A tile of which nothing is kept gives zeros.
    if word(p, words.KEPT_TILES) != 0 and word(word(p, words.KEPT_TILES), tile) == 0:
        whole = lanes_of(like) * step // moves.PLANE_BYTES
        if kind == ROWS_MULTIPLY or (kind == ROWS_BACKWARD and need_y):
            steps.clear(like, v, whole)
        if kind == ROWS_BACKWARD and need_x:
            steps.clear(like, dz, whole)
        if kind == ROWS_LAST:
            steps.clear(like, total, whole)
        return
    if kind == ROWS_FILTER:
        steps.gather(like, x, s, step, points)
        walk_alone(r, x, words.INPUT_IN, scratch, like)
        _keep(p, x, tile, like)
        steps.copy(like, s, x, points)
    elif kind == ROWS_LIFT:
        moves.aim_at_columns(p, scratch, 0, h, 0, like)
        made = word(p, words.SPECTRA) + h * word(p, words.MATRIX_BYTES) + first if word(p, words.SPECTRA) != 0 else s
        lift(p, scratch, s, made, points, like)
    elif kind == ROWS_MULTIPLY:
        steps.gather(like, x, v, step, points)
        walk(r, x, s, x, x, words.INPUT_IN | words.RESULT_OUT, scratch, 0, like)
        steps.scatter(like, x, v, step, points)
    elif kind == ROWS_LAST:
        _keep(p, total, tile, like)
        walk_alone(r, total, words.SUM_OUT, scratch, like)
        steps.copy(like, x, total, points)
        steps.scatter(like, x, total, step, points)
    else:
        if need_k or need_y:
            steps.gather(like, x, v, step, points)
        if need_k or need_x:
            steps.gather(like, z, dz, step, points)
        what = gradients_of(need_x, need_k, need_y)
        if need_k:
            what |= words.SUM_BEGINS if is_first != 0 else words.SUM_GROWS
        walk(r, x, s, z, total, what, scratch, 0, like)
        if need_x:
            steps.scatter(like, z, dz, step, points)
        if need_y:
            steps.scatter(like, x, v, step, points)


@part
def _step(p: int, scratch: int, matrices: int, b: int, h: int, step: int, begins: int, low: int, high: int, like: Any) -> None:
    """One step of the script for a row, for some of its tiles."""
    longest = max(word(p, words.N), word(word(p, words.ROW_PROGRAM), words.N))
    x, z = scratch_part(p, scratch, 0, longest), scratch_part(p, scratch, 1, longest)
    line = p + (words.SCRIPT + step * words.SCRIPT_WORDS) * INT
    kind, which = word(line, words.KIND), word(line, words.LIST)
    matrix = _matrix(p, matrices, h, word(line, words.MATRIX))
    for tile in range(low, high):
        if kind in (COLUMNS_IN, COLUMNS_OUT):
            _columns(p, scratch, x, b, h, kind, which, matrix, tile, like)
        else:
            _rows(p, scratch, x, z, matrices, h, kind, begins, tile, like)


@kernel
def step_of_one_row(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The tiles of one step for one row: units are TOGETHER column tiles, or one row tile."""
    step = word(p, words.STEP)
    kind = word(p, words.SCRIPT + step * words.SCRIPT_WORDS + words.KIND)
    low, high = begin, end
    if kind in (COLUMNS_IN, COLUMNS_OUT):
        low, high = begin * TOGETHER, min(end * TOGETHER, word(p, words.COLUMNS) // lanes_of(like))
    b, h = word(p, words.SAMPLE), word(p, words.CHANNEL)
    _step(p, scratch, word(p, words.MATRICES), b, h, step, word(p, words.IS_FIRST), low, high, like)


@kernel
def whole_rows(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """All steps for the rows of the units begin … end - 1: a channel and a part of the batch each."""
    W, batch, chunks = lanes_of(like), word(p, words.BATCH), word(p, words.CHUNKS)
    length, columns = word(p, words.N), word(p, words.COLUMNS)
    matrices = scratch_part(p, scratch, 2, max(length, columns))
    for unit in range(begin, end):
        h, chunk = unit // chunks, unit % chunks
        first, last = batch * chunk // chunks, batch * (chunk + 1) // chunks
        for b in range(first, last):
            for step in range(word(p, words.STEPS)):
                line = p + (words.SCRIPT + step * words.SCRIPT_WORDS) * INT
                when, kind = word(line, words.WHEN), word(line, words.KIND)
                if when == words.EACH or (when == words.BEFORE and b == first) or (when == words.AFTER and b == last - 1):
                    tiles = (columns if kind in (COLUMNS_IN, COLUMNS_OUT) else length) // W
                    _step(p, scratch, matrices, b, h, step, 1 if b == first else 0, 0, tiles, like)
