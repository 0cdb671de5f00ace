"""The passes of a transform, compiled once for each arithmetic type; kernels call them through the addresses in a program.

Code that is called from many places would otherwise be compiled again in each of them.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import moves, stages, steps, words
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.moves import ROW_BYTES, word
from longwave.backends.cpu.simd import CACHE_LINE, lanes_of, peek
from longwave.backends.cpu.words import (
    INT,
    INVERT_ALONE,
    INVERT_CONJUGATE,
    INVERT_PRODUCT,
    LEVEL_WORDS,
    LEVELS,
    MULTIPLY,
    TRANSFORM,
)


@kernel
def ends(p: int, scratch: int, which: int, store: int, x: int, weights: int, like: Any) -> None:
    """The first pass on the samples of a list, or the last one and storing them: through a stage in the first cache.

    All SIDES of a unit take turns, so that what they read of one cache line they read at one time.
    """
    n, radix, twiddles, sides = word(p, LEVELS), word(p, LEVELS + 1), word(p, LEVELS + 2), word(p, words.SIDES)
    planes = word(p, words.LISTS + which * words.LIST_WORDS + 2)
    stage, count = scratch + moves.STAGE_AT, 0
    for side in range(sides):
        count = moves.runs(p, scratch + side * moves.PARTS_AT, which, like)
    W, m, begin = lanes_of(like), n // radix, 0
    while begin < m:
        entries, end = 0, m
        for side in range(sides):
            at = scratch + side * moves.PARTS_AT
            entries, end = moves.piece(p, at, count, planes, begin, m, radix, stage, store != 0, like)
        j = begin
        while j < end:
            # The last rows of a piece are done with those before them, twice, where they would not fill a vector.
            if end - j < W and end - begin >= W:
                j = end - W
            some = min(end - j, stages.STAGED)
            for side in range(sides):
                at, to = scratch + side * moves.PARTS_AT, x + side * word(p, words.SIDE_BYTES)
                if store != 0:
                    steps.last(like, to, stage, j, some, n, radix, weights, twiddles, planes)
                    moves.exchange(at, entries, j, some, True, word(p, words.STREAMS), like)
                else:
                    moves.exchange(at, entries, j, some, False, 0, like)
                    steps.first(like, to, stage, j, some, n, radix, weights, twiddles, planes)
            j += some
        begin = end
    if store != 0 and word(p, words.STREAMS) != 0:
        steps.fence(like)


@part
def _down(p: int, x: int, row: int, kept: bool, scratch: int, ahead: int, like: Any) -> int:
    """The `dif` passes that are due where the block of BASE rows at `row` begins, from the largest block that begins there,
    but for the innermost; and where the next rows of the view AHEAD are asked for."""
    base, inner = word(p, words.BASE), _inner(p)
    lines = word(p, words.AHEAD_LINES) if ahead != 0 else 0
    table = scratch + moves.TABLES_AT + word(p, words.AHEAD) * lanes_of(like) * INT
    for level in range(word(p, words.FIRST_LEVEL), inner):
        v = p + (LEVELS + level * LEVEL_WORDS) * INT
        n = word(v, 0)
        if lines > 0 and n <= base:
            stages.ahead(like, table, ahead, lines)
            ahead += lines * CACHE_LINE
        if (n <= base and kept) or (n > base and row % n == 0):
            steps.dif(like, x + row * ROW_BYTES, max(n, base), n, word(v, 1), word(v, 2))
    return ahead


@part
def _up(p: int, x: int, row: int, kept: bool, scratch: int, ahead: int, like: Any) -> int:
    """The `dit` passes that are due where the block of BASE rows at `row` ends, from the smallest block that ends there."""
    base, first_level = word(p, words.BASE), word(p, words.FIRST_LEVEL)
    lines = word(p, words.AHEAD_LINES) if ahead != 0 else 0
    table = scratch + moves.TABLES_AT + word(p, words.AHEAD) * lanes_of(like) * INT
    for level in range(_inner(p) - 1, first_level - 1, -1):
        v = p + (LEVELS + level * LEVEL_WORDS) * INT
        n = word(v, 0)
        if n <= base:
            if lines > 0:
                stages.ahead(like, table, ahead, lines)
                ahead += lines * CACHE_LINE
            if kept:
                steps.dit(like, x + row * ROW_BYTES, base, n, word(v, 1), word(v, 2))
        elif (row + base) % n == 0:
            steps.dit(like, x + (row + base - n) * ROW_BYTES, n, n, word(v, 1), word(v, 2))
    return ahead


@part
def _inner(p: int) -> int:
    """The passes from this level on are made as one."""
    return word(p, words.DEPTH) - (1 if word(p, words.KEPT_SIXTEEN) == 0 else 2)


@part
def _at_frequencies(p: int, x: int, s: int, row: int, kept: bool, kind: int, like: Any) -> None:
    """The innermost pass of a block of BASE rows of x, the product with s and the first pass back, or some of that."""
    base, sixteen, inner = word(p, words.BASE), word(p, words.KEPT_SIXTEEN), _inner(p)
    at, other = x + row * ROW_BYTES, s + row * ROW_BYTES
    radix, twiddles = word(p, LEVELS + (word(p, words.DEPTH) - 1) * LEVEL_WORDS + 1), word(p, LEVELS + inner * LEVEL_WORDS + 2)
    if not kept:
        steps.clear(like, at, 2 * base)
    elif sixteen != 0:
        steps.sixteen(like, at, other, base, kind, twiddles, sixteen + row // 16)
    elif kind == MULTIPLY:
        steps.middle(like, at, other, base, radix)
    elif kind == TRANSFORM:
        steps.innermost(like, at, base, radix)
    else:
        how = steps.ALONE if kind == INVERT_ALONE else steps.CONJUGATE if kind == INVERT_CONJUGATE else steps.PRODUCT
        steps.inverse(like, at, other, base, radix, how)


@kernel
def walk(p: int, x: int, s: int, z: int, total: int, what: int, scratch: int, ahead: int, like: Any) -> None:
    """All passes from FIRST_LEVEL on and back, block by block, of everything that `what` names (words.py): what a block needs
    is done while a cache holds it.

    The blocks of BASE rows come in order. Before one, the `dif` passes of all larger blocks that begin there are made, from
    the largest; after one, the `dit` passes of those that end there, from the smallest. What memory is idle for meanwhile: to
    bring the rows that lie `ahead` bytes further than those of the view AHEAD (with 0, nothing is asked for).
    """
    base, blocks = word(p, words.BASE), word(p, words.KEPT_BLOCKS)
    begins, grows = what & words.SUM_BEGINS != 0, what & words.SUM_GROWS != 0
    multiplies = what & words.INPUT_IN != 0 and what & words.RESULT_OUT != 0 and not begins and not grows
    for row in range(0, word(p, words.N), base):
        kept = blocks == 0 or peek(blocks + row // base * INT) != 0
        if what & words.FILTERS_IN != 0:
            _down(p, s, row, kept, scratch, 0, like)
            _at_frequencies(p, s, s, row, kept, TRANSFORM, like)
        if what & words.GRADIENT_IN != 0:
            _down(p, z, row, kept, scratch, 0, like)
            _at_frequencies(p, z, z, row, kept, TRANSFORM, like)
        if what & words.INPUT_IN != 0:
            ahead = _down(p, x, row, kept, scratch, ahead, like)
            _at_frequencies(p, x, s, row, kept, MULTIPLY if multiplies else TRANSFORM, like)
        at = row * ROW_BYTES
        if begins:
            steps.product(like, total + at, z + at, x + at, base)
        if grows:
            steps.accumulate(like, total + at, z + at, x + at, base)
        if what & words.RESULT_OUT != 0:
            if not multiplies:
                _at_frequencies(p, x, s, row, kept, INVERT_PRODUCT, like)
            ahead = _up(p, x, row, kept, scratch, ahead, like)
        if what & words.GRADIENT_OUT != 0:
            _at_frequencies(p, z, s, row, kept, INVERT_CONJUGATE, like)
            _up(p, z, row, kept, scratch, 0, like)
        if what & words.SUM_OUT != 0:
            _at_frequencies(p, total, total, row, kept, INVERT_ALONE, like)
            _up(p, total, row, kept, scratch, 0, like)
