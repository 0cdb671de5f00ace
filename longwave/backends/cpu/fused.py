"""`fused`: W channels at a time, loaded, transformed, multiplied, transformed back and stored while a cache holds them."""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import moves, steps, words
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.moves import ROW_BYTES, word
from longwave.backends.cpu.simd import call_with_6, poke
from longwave.backends.cpu.words import DK, DPOSTGATE, DX, DZ, INPUT, LIST_WORDS, LISTS, OUTPUT, SCALED, TAPS, WEIGHTS

# Between the parts of a thread's scratch memory, so that their equal rows do not share a set of the cache.
GAP_BYTES = 2048


# Samples (and windows) whose spectra are added one after the other.
CHAIN = 16


def gradient_parts(batch: int) -> int:
    """Transforms that `backward` has at a time, for a batch of so many samples (and windows)."""
    return 5 if batch > CHAIN else 4


def side_bytes(points: int) -> int:
    """From the transform of one side of a unit to that of the next."""
    return points * ROW_BYTES + GAP_BYTES


def scratch_bytes(points: int, parts: int, sides: int = 1) -> int:
    """The scratch memory of one thread: what it begins with, and `parts` transforms of `points` rows, for every side."""
    return sides * (moves.PARTS_AT + parts * side_bytes(points))


@part
def scratch_part(p: int, scratch: int, number: int, points: int) -> int:
    sides = word(p, words.SIDES)
    return scratch + sides * (moves.PARTS_AT + number * (points * ROW_BYTES + GAP_BYTES))


@part
def ends(p: int, scratch: int, which: int, store: int, x: int, weights: int, like: Any) -> None:
    call_with_6(word(p, words.ENDS), p, scratch, which, store, x, word(p, weights), like)


@part
def walk(p: int, x: int, s: int, kind: int, scratch: int, ahead: int, like: Any) -> None:
    call_with_6(word(p, words.WALK), p, x, s, kind, scratch, ahead, like)


@part
def aim(p: int, scratch: int, b: int, unit: int, like: Any) -> None:
    sides = word(p, words.SIDES)
    for side in range(sides):
        moves.aim(p, scratch + side * moves.PARTS_AT, b, unit * sides + side, like)


@part
def all_sides(p: int, x: int, s: int, kind: int, scratch: int, ahead: int, like: Any) -> None:
    for side in range(word(p, words.SIDES)):
        apart = side * word(p, words.SIDE_BYTES)
        walk(p, x + apart, s + apart, kind, scratch, ahead, like)


@kernel
def forward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The convolution of the units begin … end - 1: a tile of channels and a part of the batch each."""
    points, batch, chunks = word(p, words.N), word(p, words.BATCH), word(p, words.CHUNKS)
    x, s = scratch_part(p, scratch, 0, points), scratch_part(p, scratch, 1, points)
    sample_bytes = word(p, words.VIEWS + word(p, words.AHEAD) * words.VIEW_WORDS + words.STRIDE_B)
    for side in range(word(p, words.SIDES)):
        poke(scratch + side * moves.PARTS_AT + moves.KNOWN_AT, 0)
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        last = batch * (chunk + 1) // chunks
        for b in range(batch * chunk // chunks, last):
            aim(p, scratch, b, tile, like)
            known = True
            for side in range(word(p, words.SIDES)):
                known = moves.is_known(p, scratch + side * moves.PARTS_AT, like) and known
            if not known:
                ends(p, scratch, TAPS, 0, s, SCALED, like)
                all_sides(p, s, s, words.TRANSFORM, scratch, 0, like)
            ends(p, scratch, INPUT, 0, x, WEIGHTS, like)
            all_sides(p, x, s, words.MULTIPLY, scratch, sample_bytes if b + 1 < last else 0, like)
            ends(p, scratch, OUTPUT, 1, x, WEIGHTS, like)


@kernel
def backward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The gradients of the units begin … end - 1: those whose lists are not empty."""
    points, batch, chunks = word(p, words.N), word(p, words.BATCH), word(p, words.CHUNKS)
    x, s = scratch_part(p, scratch, 0, points), scratch_part(p, scratch, 1, points)
    z, total = scratch_part(p, scratch, 2, points), scratch_part(p, scratch, 3, points)
    # Rounding errors grow with the longest chain of sums: a part of them is added to a total of its own.
    whole = scratch_part(p, scratch, 4, points) if batch > CHAIN else total
    need_x = word(p, LISTS + DX * LIST_WORDS + 1) > 0
    need_k = word(p, LISTS + DK * LIST_WORDS + 1) > 0
    need_y = word(p, LISTS + DPOSTGATE * LIST_WORDS + 1) > 0
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        low, high = batch * chunk // chunks, batch * (chunk + 1) // chunks
        for b in range(low, high):
            aim(p, scratch, b, tile, like)
            if b == low:
                if need_x or need_y:
                    ends(p, scratch, TAPS, 0, s, SCALED, like)
                    all_sides(p, s, s, words.TRANSFORM, scratch, 0, like)
                if need_k:
                    for side in range(word(p, words.SIDES)):
                        steps.clear(like, total + side * word(p, words.SIDE_BYTES), 2 * points)
                        steps.clear(like, whole + side * word(p, words.SIDE_BYTES), 2 * points)
            if need_k or need_y:
                ends(p, scratch, INPUT, 0, x, WEIGHTS, like)
                all_sides(p, x, x, words.TRANSFORM, scratch, 0, like)
            if need_k or need_x:
                ends(p, scratch, DZ, 0, z, WEIGHTS, like)
                all_sides(p, z, z, words.TRANSFORM, scratch, 0, like)
            if need_k:
                for side in range(word(p, words.SIDES)):
                    apart = side * word(p, words.SIDE_BYTES)
                    steps.accumulate(like, total + apart, z + apart, x + apart, points)
                    if batch > CHAIN and ((b - low) % CHAIN == CHAIN - 1 or b == high - 1):
                        steps.add(like, whole + apart, total + apart, 2 * points)
                        steps.clear(like, total + apart, 2 * points)
            if need_x:
                all_sides(p, z, s, words.INVERT_CONJUGATE, scratch, 0, like)
                ends(p, scratch, DX, 1, z, WEIGHTS, like)
            if need_y:
                all_sides(p, x, s, words.INVERT_PRODUCT, scratch, 0, like)
                ends(p, scratch, DPOSTGATE, 1, x, WEIGHTS, like)
        if need_k:  # 1/N came with the filter's spectrum so far
            all_sides(p, whole, whole, words.INVERT_ALONE, scratch, 0, like)
            ends(p, scratch, DK, 1, whole, SCALED, like)
