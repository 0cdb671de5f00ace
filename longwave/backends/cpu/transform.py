"""The passes of a transform, compiled once for each arithmetic type; kernels call them through the addresses in a program.

Code that is called from many places would otherwise be compiled again in each of them.
"""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import moves, stages, steps, words
from longwave.backends.cpu.jit import kernel
from longwave.backends.cpu.moves import ROW_BYTES, word
from longwave.backends.cpu.simd import lanes_of, peek
from longwave.backends.cpu.words import INT, INVERT_ALONE, INVERT_CONJUGATE, LEVEL_WORDS, LEVELS, MULTIPLY, TRANSFORM

CACHE_LINE = 64


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
                    moves.exchange(at, entries, j, some, True, like)
                else:
                    moves.exchange(at, entries, j, some, False, like)
                    steps.first(like, to, stage, j, some, n, radix, weights, twiddles, planes)
            j += some
        begin = end


@kernel
def walk(p: int, x: int, s: int, kind: int, scratch: int, ahead: int, like: Any) -> None:
    """All passes from FIRST_LEVEL on and back, block by block: what a block needs is done while a cache holds it.

    The blocks of BASE rows come in order. Before one, the `dif` passes of all larger blocks that begin there are made, from
    the largest; after one, the `dit` passes of those that end there, from the smallest. What memory is idle for meanwhile: to
    bring the rows that lie `ahead` bytes further than those of the view AHEAD (with 0, nothing is asked for).
    """
    depth, base, points, outermost = word(p, words.DEPTH), word(p, words.BASE), word(p, words.N), word(p, words.FIRST_LEVEL)
    blocks, sixteen = word(p, words.KEPT_BLOCKS), word(p, words.KEPT_SIXTEEN)
    inner = depth - 1 if sixteen == 0 else depth - 2  # passes from here on are one
    radix, innermost = word(p, LEVELS + (depth - 1) * LEVEL_WORDS + 1), word(p, LEVELS + inner * LEVEL_WORDS + 2)
    lines = word(p, words.AHEAD_LINES) if ahead != 0 else 0
    table = scratch + moves.TABLES_AT + word(p, words.AHEAD) * lanes_of(like) * INT
    for row in range(0, points, base):
        at, spectrum = x + row * ROW_BYTES, s + row * ROW_BYTES
        kept = blocks == 0 or peek(blocks + row // base * INT) != 0
        if kind <= TRANSFORM:
            for level in range(outermost, inner):
                v = p + (LEVELS + level * LEVEL_WORDS) * INT
                n = word(v, 0)
                if lines > 0 and n <= base:
                    stages.ahead(like, table, ahead, lines)
                    ahead += lines * CACHE_LINE
                if (n <= base and kept) or (n > base and row % n == 0):
                    steps.dif(like, at, max(n, base), n, word(v, 1), word(v, 2))
        if not kept:
            steps.clear(like, at, 2 * base)
        elif sixteen != 0:
            steps.sixteen(like, at, spectrum, base, kind, innermost, sixteen + row // 16)
        elif kind == MULTIPLY:
            steps.middle(like, at, spectrum, base, radix)
        elif kind == TRANSFORM:
            steps.innermost(like, at, base, radix)
        else:
            how = steps.ALONE if kind == INVERT_ALONE else steps.CONJUGATE if kind == INVERT_CONJUGATE else steps.PRODUCT
            steps.inverse(like, at, spectrum, base, radix, how)
        if kind != TRANSFORM:
            for level in range(inner - 1, outermost - 1, -1):
                v = p + (LEVELS + level * LEVEL_WORDS) * INT
                n = word(v, 0)
                if n <= base:
                    if lines > 0:
                        stages.ahead(like, table, ahead, lines)
                        ahead += lines * CACHE_LINE
                    if kept:
                        steps.dit(like, at, base, n, word(v, 1), word(v, 2))
                elif (row + base) % n == 0:
                    steps.dit(like, x + (row + base - n) * ROW_BYTES, n, n, word(v, 1), word(v, 2))
