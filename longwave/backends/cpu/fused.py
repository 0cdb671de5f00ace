"""`fused`: W channels at a time, loaded, transformed, multiplied, transformed back and stored while a cache holds them."""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import moves, steps, words
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.moves import ROW_BYTES, word
from longwave.backends.cpu.simd import call_with_6
from longwave.backends.cpu.words import DK, DPOSTGATE, DX, DZ, INPUT, LIST_WORDS, LISTS, OUTPUT, SCALED, TAPS, WEIGHTS

# Between the parts of a thread's scratch memory, so that their equal rows do not share a set of the cache.
GAP_BYTES = 2048


def scratch_bytes(points: int, parts: int) -> int:
    """The scratch memory of one thread: what it begins with, and `parts` transforms of `points` rows."""
    return moves.PARTS_AT + parts * (points * ROW_BYTES + GAP_BYTES)


@part
def scratch_part(scratch: int, number: int, points: int) -> int:
    return scratch + moves.PARTS_AT + number * (points * ROW_BYTES + GAP_BYTES)


@part
def ends(p: int, scratch: int, which: int, store: int, x: int, weights: int, like: Any) -> None:
    call_with_6(word(p, words.ENDS), p, scratch, which, store, x, word(p, weights), like)


@part
def walk(p: int, x: int, s: int, kind: int, scratch: int, ahead: int, like: Any) -> None:
    call_with_6(word(p, words.WALK), p, x, s, kind, scratch, ahead, like)


@kernel
def forward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The convolution of the units begin … end - 1: a tile of channels and a part of the batch each."""
    points, batch, chunks = word(p, words.N), word(p, words.BATCH), word(p, words.CHUNKS)
    x, s = scratch_part(scratch, 0, points), scratch_part(scratch, 1, points)
    sample_bytes = word(p, words.VIEWS + word(p, words.AHEAD) * words.VIEW_WORDS + words.STRIDE_B)
    known = -1
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        last = batch * (chunk + 1) // chunks
        for b in range(batch * chunk // chunks, last):
            moves.aim(p, scratch, b, tile, like)
            if known != tile:
                ends(p, scratch, TAPS, 0, s, SCALED, like)
                walk(p, s, s, words.TRANSFORM, scratch, 0, like)
                known = tile
            ends(p, scratch, INPUT, 0, x, WEIGHTS, like)
            walk(p, x, s, words.MULTIPLY, scratch, sample_bytes if b + 1 < last else 0, like)
            ends(p, scratch, OUTPUT, 1, x, WEIGHTS, like)


@kernel
def backward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The gradients of the units begin … end - 1: those whose lists are not empty."""
    points, batch, chunks = word(p, words.N), word(p, words.BATCH), word(p, words.CHUNKS)
    x, s = scratch_part(scratch, 0, points), scratch_part(scratch, 1, points)
    z, total = scratch_part(scratch, 2, points), scratch_part(scratch, 3, points)
    need_x = word(p, LISTS + DX * LIST_WORDS + 1) > 0
    need_k = word(p, LISTS + DK * LIST_WORDS + 1) > 0
    need_y = word(p, LISTS + DPOSTGATE * LIST_WORDS + 1) > 0
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        low, high = batch * chunk // chunks, batch * (chunk + 1) // chunks
        for b in range(low, high):
            moves.aim(p, scratch, b, tile, like)
            if b == low:
                if need_x or need_y:
                    ends(p, scratch, TAPS, 0, s, SCALED, like)
                    walk(p, s, s, words.TRANSFORM, scratch, 0, like)
                if need_k:
                    steps.clear(like, total, 2 * points)
            if need_k or need_y:
                ends(p, scratch, INPUT, 0, x, WEIGHTS, like)
                walk(p, x, x, words.TRANSFORM, scratch, 0, like)
            if need_k or need_x:
                ends(p, scratch, DZ, 0, z, WEIGHTS, like)
                walk(p, z, z, words.TRANSFORM, scratch, 0, like)
            if need_k:
                steps.accumulate(like, total, z, x, points)
            if need_x:
                walk(p, z, s, words.INVERT_CONJUGATE, scratch, 0, like)
                ends(p, scratch, DX, 1, z, WEIGHTS, like)
            if need_y:
                walk(p, x, s, words.INVERT_PRODUCT, scratch, 0, like)
                ends(p, scratch, DPOSTGATE, 1, x, WEIGHTS, like)
        if need_k:  # 1/N came with the filter's spectrum so far
            walk(p, total, total, words.INVERT_ALONE, scratch, 0, like)
            ends(p, scratch, DK, 1, total, SCALED, like)
