"""`fused`: W channels at a time, loaded, transformed, multiplied, transformed back and stored while a cache holds them."""

from __future__ import annotations

from typing import Any

from longwave.backends.cpu import moves, steps, words
from longwave.backends.cpu.jit import kernel, part
from longwave.backends.cpu.moves import ROW_BYTES, word
from longwave.backends.cpu.simd import call_with_6, call_with_8, lanes_of, poke
from longwave.backends.cpu.words import DK, DPOSTGATE, DX, DZ, INPUT, LIFT, LIST_WORDS, LISTS, OUTPUT, SCALED, TAPS, WEIGHTS

# Between the parts of a thread's scratch memory, so that their equal rows do not share a set of the cache.
GAP_BYTES = 2048
# Samples (and windows) whose spectra are added one after the other.
CHAIN = 16


def gradient_parts(batch: int, postgate: bool) -> int:
    """Transforms that `backward` has at a time where it adds up a batch of so many samples (and windows), with a postgate,
    whose gradient takes the input's spectrum, or without."""
    if batch == 1 and not postgate:
        return 3
    return 5 if batch > CHAIN else 4


@part
def ends_chain(i: int, count: int) -> bool:
    """Whether what was added up so far goes to the total after term i of `count`; a short sum is its own total."""
    return count > CHAIN and (i % CHAIN == CHAIN - 1 or i == count - 1)


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
def walk(p: int, x: int, s: int, z: int, total: int, what: int, scratch: int, ahead: int, like: Any) -> None:
    call_with_8(word(p, words.WALK), p, x, s, z, total, what, scratch, ahead, like)


@part
def walk_alone(p: int, x: int, what: int, scratch: int, like: Any) -> None:
    """What needs nothing but x: INPUT_IN, or SUM_OUT."""
    walk(p, x, x, x, x, what, scratch, 0, like)


@part
def gradients_of(need_x: bool, need_k: bool, need_y: bool) -> int:
    """What a walk does for the gradients that are needed, but for the sum that is the filters'."""
    what = 0
    if need_k or need_y:
        what |= words.INPUT_IN
    if need_k or need_x:
        what |= words.GRADIENT_IN
    if need_x:
        what |= words.GRADIENT_OUT
    if need_y:
        what |= words.RESULT_OUT
    return what


@part
def aim(p: int, scratch: int, b: int, unit: int, like: Any) -> None:
    sides = word(p, words.SIDES)
    for side in range(sides):
        moves.aim(p, scratch + side * moves.PARTS_AT, b, unit * sides + side, like)


@part
def all_sides(p: int, x: int, s: int, z: int, total: int, what: int, scratch: int, ahead: int, like: Any) -> None:
    for side in range(word(p, words.SIDES)):
        apart = side * word(p, words.SIDE_BYTES)
        walk(p, x + apart, s + apart, z + apart, total + apart, what, scratch, ahead, like)


@part
def lift(p: int, scratch: int, to: int, s: int, points: int, like: Any) -> None:
    """A spectrum and D's. The first of the scaled weights is 1/N, the scale of all spectra of filters."""
    segment = p + (words.SEGMENTS + word(p, LISTS + LIFT * LIST_WORDS) * words.SEGMENT_WORDS) * words.INT
    view = word(segment, words.VIEW)
    code = word(p, words.VIEWS + view * words.VIEW_WORDS + words.STORED)
    table = scratch + moves.TABLES_AT + view * lanes_of(like) * words.INT
    steps.a_number_a_lane(like, scratch + moves.FACTORS_AT, table, code)
    steps.lift(like, to, s, scratch + moves.FACTORS_AT, word(p, SCALED), points)


@part
def filters_of(p: int, scratch: int, b: int, tile: int, own: int, like: Any) -> int:
    """Where the filters' spectrum of a unit is: among those that were made before, or to be made in scratch memory."""
    ready, sides = word(p, words.SPECTRA), word(p, words.SIDES)
    if ready == 0:
        return own
    ready += tile * sides * word(p, words.SIDE_BYTES)
    if word(p, words.LIFTS) == 0:
        return ready
    aim(p, scratch, b, tile, like)
    lift_sides(p, scratch, own, ready, like)
    return own


@part
def lift_sides(p: int, scratch: int, to: int, s: int, like: Any) -> None:
    for side in range(word(p, words.SIDES)):
        apart = side * word(p, words.SIDE_BYTES)
        lift(p, scratch + side * moves.PARTS_AT, to + apart, s + apart, word(p, words.N), like)


@part
def transform_filters(p: int, scratch: int, s: int, like: Any) -> None:
    ends(p, scratch, TAPS, 0, s, SCALED, like)
    all_sides(p, s, s, s, s, words.INPUT_IN, scratch, 0, like)
    keep(p, s, like)
    if word(p, words.LIFTS) != 0:
        lift_sides(p, scratch, s, s, like)


@part
def start_filters(p: int, scratch: int, s: int, like: Any) -> int:
    """What a walk is still to do for the filters' spectrum: where nothing is done to all of it at once, it is made block by
    block beside what it is multiplied with."""
    if word(p, words.LIFTS) != 0 or word(p, words.ROUGH_COUNT) != 0:
        transform_filters(p, scratch, s, like)
        return 0
    ends(p, scratch, TAPS, 0, s, SCALED, like)
    return words.FILTERS_IN


@part
def keep(p: int, x: int, like: Any) -> None:
    """The kept frequencies alone, where the passes keep others too."""
    for side in range(word(p, words.SIDES)):
        at = x + side * word(p, words.SIDE_BYTES)
        steps.keep(like, at, word(p, words.ROUGH_PLACES), word(p, words.ROUGH_COUNT), word(p, words.ROUGH_LANES))


@kernel
def spectra(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The filters' spectra of the units begin … end - 1, for calls to come."""
    for unit in range(begin, end):
        s = word(p, words.SPECTRA) + unit * word(p, words.SIDES) * word(p, words.SIDE_BYTES)
        aim(p, scratch, 0, unit, like)
        transform_filters(p, scratch, s, like)


@kernel
def forward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The convolution of the units begin … end - 1: a tile of channels and a part of the batch each."""
    points, batch, chunks = word(p, words.N), word(p, words.BATCH), word(p, words.CHUNKS)
    x, own = scratch_part(p, scratch, 0, points), scratch_part(p, scratch, 1, points)
    sample_bytes = word(p, words.VIEWS + word(p, words.AHEAD) * words.VIEW_WORDS + words.STRIDE_B)
    for side in range(word(p, words.SIDES)):
        poke(scratch + side * moves.PARTS_AT + moves.KNOWN_AT, 0)
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        first, last = batch * chunk // chunks, batch * (chunk + 1) // chunks
        s = filters_of(p, scratch, first, tile, own, like)
        for b in range(first, last):
            aim(p, scratch, b, tile, like)
            known = True
            if word(p, words.SPECTRA) == 0:
                for side in range(word(p, words.SIDES)):
                    known = moves.is_known(p, scratch + side * moves.PARTS_AT, like) and known
            what = words.INPUT_IN | words.RESULT_OUT
            if not known:
                what |= start_filters(p, scratch, s, like)
            ends(p, scratch, INPUT, 0, x, WEIGHTS, like)
            all_sides(p, x, s, x, x, what, scratch, sample_bytes if b + 1 < last else 0, like)
            ends(p, scratch, OUTPUT, 1, x, WEIGHTS, like)


@kernel
def backward(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The gradients of the units begin … end - 1: those whose lists are not empty. The products whose sum is the spectrum of
    the filters' gradient are added up here where a unit has the whole batch, or left for `sums`."""
    points, batch, chunks = word(p, words.N), word(p, words.BATCH), word(p, words.CHUNKS)
    x, own = scratch_part(p, scratch, 0, points), scratch_part(p, scratch, 1, points)
    z, total = scratch_part(p, scratch, 2, points), scratch_part(p, scratch, 3, points)
    # Rounding errors grow with the longest chain of sums: a part of them is added to a total of its own.
    whole = scratch_part(p, scratch, 4, points) if batch > CHAIN else total
    sides, products = word(p, words.SIDES), word(p, words.PRODUCTS)
    need_x = word(p, LISTS + DX * LIST_WORDS + 1) > 0
    need_y = word(p, LISTS + DPOSTGATE * LIST_WORDS + 1) > 0
    sums_up = word(p, LISTS + DK * LIST_WORDS + 1) > 0
    need_k = sums_up or products != 0
    # Where nothing is done to all of the sum at once, it goes back block by block beside the last sample's.
    inverts_sum = batch <= CHAIN and word(p, words.ROUGH_COUNT) == 0
    if batch == 1 and not need_y:  # the sum takes the place of the input's spectrum, which nobody needs any more
        total = whole = x
    for unit in range(begin, end):
        tile, chunk = unit // chunks, unit % chunks
        low, high = batch * chunk // chunks, batch * (chunk + 1) // chunks
        s = filters_of(p, scratch, low, tile, own, like)
        for b in range(low, high):
            aim(p, scratch, b, tile, like)
            what, to = gradients_of(need_x, need_k, need_y), total
            if b == low and (need_x or need_y) and word(p, words.SPECTRA) == 0:
                what |= start_filters(p, scratch, s, like)
            if need_k or need_y:
                ends(p, scratch, INPUT, 0, x, WEIGHTS, like)
            if need_k or need_x:
                ends(p, scratch, DZ, 0, z, WEIGHTS, like)
            if products != 0:
                what |= words.SUM_BEGINS
                to = products + (tile * sides * batch + b) * points * ROW_BYTES
            elif need_k:
                what |= words.SUM_BEGINS if b == 0 or ends_chain(b - 1, batch) else words.SUM_GROWS
                if b == batch - 1 and inverts_sum:
                    what |= words.SUM_OUT
            for side in range(sides):
                apart = side * word(p, words.SIDE_BYTES)
                sum_at = to + (side * batch * points * ROW_BYTES if products != 0 else apart)
                walk(p, x + apart, s + apart, z + apart, sum_at, what, scratch, 0, like)
            if sums_up and ends_chain(b, batch):
                if b < CHAIN:
                    clear_sides(p, whole, like)
                add_sides(p, whole, total, like)
            if need_x:
                ends(p, scratch, DX, 1, z, WEIGHTS, like)
            if need_y:
                ends(p, scratch, DPOSTGATE, 1, x, WEIGHTS, like)
        if sums_up:  # 1/N came with the filter's spectrum so far
            if not inverts_sum:
                keep(p, whole, like)
                all_sides(p, whole, whole, whole, whole, words.SUM_OUT, scratch, 0, like)
            ends(p, scratch, DK, 1, whole, SCALED, like)


@part
def clear_sides(p: int, x: int, like: Any) -> None:
    for side in range(word(p, words.SIDES)):
        steps.clear(like, x + side * word(p, words.SIDE_BYTES), 2 * word(p, words.N))


@part
def add_sides(p: int, total: int, x: int, like: Any) -> None:
    for side in range(word(p, words.SIDES)):
        apart = side * word(p, words.SIDE_BYTES)
        steps.add(like, total + apart, x + apart, 2 * word(p, words.N))


@part
def _sum_of_tile(p: int, total: int, whole: int, offsets: int, like: Any) -> None:
    """The products of W filters that stand in the lanes side by side."""
    points, count, products = word(p, words.N), word(p, words.TERMS), word(p, words.PRODUCTS)
    for i in range(count):
        steps.add(like, total, products + word(offsets, i), 2 * points)
        if ends_chain(i, count):
            steps.add(like, whole, total, 2 * points)
            steps.clear(like, total, 2 * points)


@part
def _sum_of_lane(p: int, total: int, whole: int, offsets: int, like: Any) -> None:
    """The products of one filter, in one lane."""
    points, count, products = word(p, words.N), word(p, words.TERMS), word(p, words.PRODUCTS)
    size, i = moves.PLANE_BYTES // lanes_of(like), 0
    while i < count:
        last = i
        while last + 1 < count and not ends_chain(last, count) and word(offsets, last + 1) == word(offsets, last) + size:
            last += 1
        steps.add_one(like, total, products + word(offsets, i), last + 1 - i, 2 * points)
        if ends_chain(last, count):
            steps.add_one(like, whole, total, 1, 2 * points)
            steps.clear_one(like, total, 2 * points)
        i = last + 1


@kernel
def sums(p: int, scratch: int, begin: int, end: int, like: Any) -> None:
    """The filters' gradients of the units begin … end - 1, tiles of filters, from the products that `backward` left: added up
    in the order, and so to the bits, in which `backward` would have added them."""
    W, points, count, filters = lanes_of(like), word(p, words.N), word(p, words.TERMS), word(p, words.ROWS)
    size = moves.PLANE_BYTES // W
    total = scratch_part(p, scratch, 0, points)
    whole = scratch_part(p, scratch, 1, points) if count > CHAIN else total
    for unit in range(begin, end):
        steps.clear(like, total, 2 * points)
        steps.clear(like, whole, 2 * points)
        offsets, lanes = word(p, words.OFFSETS) + unit * W * count * words.INT, min(W, filters - unit * W)
        neighbours = lanes == W
        for lane in range(1, lanes):
            for i in range(count):
                neighbours = neighbours and word(offsets, lane * count + i) == word(offsets, i) + lane * size
        if neighbours:
            _sum_of_tile(p, total, whole, offsets, like)
        else:
            for lane in range(lanes):
                _sum_of_lane(p, total + lane * size, whole + lane * size, offsets + lane * count * words.INT, like)
            # Lanes behind the last filter repeat it, as everywhere.
            steps.repeat_lane(like, whole, lanes - 1, 2 * points)
        aim(p, scratch, 0, unit, like)
        keep(p, whole, like)
        all_sides(p, whole, whole, whole, whole, words.SUM_OUT, scratch, 0, like)
        ends(p, scratch, DK, 1, whole, SCALED, like)
