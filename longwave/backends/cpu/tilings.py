"""How the rows of a Problem of short transforms are dealt to lanes, units and threads: `fused` and `windows`.

Everything is decided before a kernel runs, and kept for tensors of the same strides. How rows are dealt is a matter of speed:
a row's bits do not depend on it, nor those of a filter's gradient, whose terms are always added in one order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from longwave import dtypes
from longwave.backends.cpu import fused, kept, tables, words
from longwave.backends.cpu.costs import seconds
from longwave.backends.cpu.launches import PRODUCTS, SPECTRA, Dealt, Launch, Lists, Several, Tiles, base, chunks, point, use
from longwave.backends.cpu.layouts import Layout
from longwave.backends.cpu.program import Program, View
from longwave.backends.cpu.results import arithmetic, like, streams, width
from longwave.backends.cpu.simd import CACHE_LINE
from longwave.problem import Problem

# From so many channels on a few idle lanes in the last tile do not matter.
MANY_CHANNELS = 32
# Products of spectra are left to be added up later only while they are within this.
PRODUCTS_BYTES = 2**28


class Share(NamedTuple):
    """What one launch goes through: `rows` in the lanes, and in the loop of each tile `samples` of the batch with `in_loop`
    windows each; or windows in the lanes, `in_lanes` for each row. The first of its windows is number `first`."""

    rows: int
    samples: int
    in_loop: int = 1
    in_lanes: int = 1
    first: int = 0

    @property
    def batch(self) -> int:
        return self.samples * self.in_loop


def whole_batches(p: Problem, windows: int) -> Share:
    """Every filter's samples and windows one after the other, in one tile."""
    return Share(p.batch * p.channels if p.per_sample else p.channels, 1 if p.per_sample else p.batch, max(1, windows))


def shares(p: Problem, found: Layout, shared_spectra: bool = False) -> list[Share]:
    """What fills the lanes. Few channels leave some idle: there they hold rows of all samples, each with its own copy of the
    filter, or windows. With `shared_spectra`, one a filter, they hold channels."""
    W = width(p)
    by_rows = p.per_sample or (p.channels < W and not shared_spectra)
    one = Share(p.batch * p.channels, 1) if by_rows else Share(p.channels, p.batch)
    if not found.windows:
        return [one]
    inside_from, inside_to = found.inside
    inside = inside_to - inside_from
    if not by_rows or shared_spectra or inside <= W:
        return [one._replace(in_loop=found.windows)]
    parts = [
        one._replace(in_loop=inside_from),
        one._replace(rows=one.rows * inside, in_lanes=inside, first=inside_from),
        one._replace(in_loop=found.windows - inside_to, first=inside_to),
    ]
    return [part for part in parts if part.in_loop]


def sides(p: Problem, neighbours: bool) -> int:
    """Tiles of a unit: where `neighbours` in memory are other channels, two share the cache line of a sample."""
    W, line = width(p), CACHE_LINE // dtypes.named(p.dtype).itemsize
    return 2 if neighbours and line > W and p.channels > W and not p.per_sample else 1


class Tiling(NamedTuple):
    """A share in tiles of W rows: `beside` of them to a unit, and the batch in `parts`; `leaves` products from a byte on."""

    share: Share
    beside: int
    parts: int
    dealt: Dealt
    leaves: int = -1


def _tiling(
    p: Problem, N: int, share: Share, beside: int, parts: int, transforms: int, at_once: int, leaves: int = -1
) -> Tiling:
    tiles = -(-share.rows // (width(p) * beside))
    expected = seconds(N, transforms * tiles * beside * share.batch)
    return Tiling(share, beside, parts, Dealt(tiles * parts, expected, fused.scratch_bytes(N, at_once, beside)), leaves)


def _split(p: Problem, share: Share, beside: int, workers: int) -> int:
    return chunks(share.batch, -(-share.rows // (width(p) * beside)), workers)


def forward_tilings(p: Problem, found: Layout, workers: int, neighbours: bool, ready: bool = False) -> list[Tiling]:
    beside = sides(p, neighbours)
    return [_tiling(p, found.at.N, share, beside, _split(p, share, beside, workers), 3, 2) for share in shares(p, found, ready)]


def backward_tilings(
    p: Problem, found: Layout, workers: int, neighbours: bool, need_k: bool, ready: bool = False
) -> tuple[list[Tiling], int]:
    """Of `fused.backward`, and the bytes of the products that it leaves to `fused.sums`: where units of whole batches would
    leave threads or lanes idle, and while there is memory for them."""
    beside, N, W = sides(p, neighbours), found.at.N, width(p)
    whole = whole_batches(p, found.windows)
    row_bytes = 2 * N * arithmetic(p).itemsize
    idle = whole.rows < MANY_CHANNELS and whole.rows % W != 0
    within = whole.batch * whole.rows * row_bytes <= PRODUCTS_BYTES
    apart = need_k and whole.batch > 1 and within and (idle or _split(p, whole, beside, workers) > 1)
    if need_k and not apart:
        return [_tiling(p, N, whole, beside, 1, 5, fused.gradient_parts(whole.batch, p.postgate))], 0
    found_tilings, leaves = [], 0
    for share in shares(p, found, ready):
        parts = _split(p, share, beside, workers)
        found_tilings.append(_tiling(p, N, share, beside, parts, 5, 3, leaves if apart else -1))
        leaves += -(-share.rows // (W * beside)) * beside * share.batch * W * row_bytes
    return found_tilings, leaves if apart else 0


def sums_tiling(p: Problem, found: Layout) -> Tiling:
    whole = whole_batches(p, found.windows)
    return _tiling(p, found.at.N, whole, 1, 1, 1, 2 if whole.batch > fused.CHAIN else 1)


def spectra_tiling(p: Problem, found: Layout) -> Tiling:
    """Of pairs of tiles, as calls may take them."""
    pairs = -(-p.channels // (2 * width(p)))
    return _tiling(p, found.at.N, Share(pairs * 2 * width(p), 1), 1, 1, 1, 0)._replace(share=Share(p.channels, 1))


def forward_tiles(
    p: Problem, found: Layout, workers: int, lists: Lists, neighbours: bool, source: View | None = None, ready: bool = False
) -> Launch:
    """`fused.forward`. `source`: the view of the input, whose next sample is asked for before its turn; `ready`: with the
    filters' spectra of `spectra_tiles`."""
    parts = []
    for tiling in forward_tilings(p, found, workers, neighbours, ready):
        block = _program(p, found, tiling, lists, ready)
        if source is not None and not found.windows:
            block.stream(source, p.in_len - p.history)
        parts.append(Tiles(block.block(), fused.forward, like(p), tiling.dealt))
    return parts[0] if len(parts) == 1 else Several(tuple(parts))


def backward_tiles(
    p: Problem, found: Layout, workers: int, lists: Lists, neighbours: bool, need_k: bool, ready: bool = False
) -> Launch:
    """`fused.backward`, and `fused.sums` where it leaves products."""
    tilings, products = backward_tilings(p, found, workers, neighbours, need_k, ready)
    parts = []
    for tiling in tilings:
        block = _program(p, found, tiling, {**lists, words.DK: []} if products else lists, ready)
        if products:
            block.place(words.PRODUCTS, PRODUCTS, tiling.leaves)
        parts.append(Tiles(block.block(), fused.backward, like(p), tiling.dealt))
    if products:
        tiling = sums_tiling(p, found)
        block = _program(p, found, tiling, {words.DK: lists[words.DK]})
        offsets = _left(p, found, tilings)
        block.keep.append(offsets)
        block.set(OFFSETS=offsets.ctypes.data, TERMS=tiling.share.batch)
        block.place(words.PRODUCTS, PRODUCTS)
        parts.append(Tiles(block.block(), fused.sums, like(p), tiling.dealt))
    return parts[0] if len(parts) == 1 else Several(tuple(parts), products)


def _left(p: Problem, found: Layout, tilings: list[Tiling]) -> Any:
    """Where `fused.backward` leaves the products of every filter (a row), by samples and their windows."""
    whole = whole_batches(p, found.windows)
    W, H, size, windows = width(p), p.channels, arithmetic(p).itemsize, max(1, found.windows)
    places = np.zeros((whole.rows, whole.batch), dtype=np.int64)
    for share, *_, leaves in tilings:
        row, b = np.meshgrid(np.arange(share.rows), np.arange(share.batch), indexing="ij")
        h, window = row // share.in_lanes, share.first + row % share.in_lanes + b % share.in_loop
        sample = b // share.in_loop + h // H
        filters, terms = (h, window) if p.per_sample else (h % H, sample * windows + window)
        places[filters, terms] = leaves + (row // W * share.batch + b) * W * 2 * found.at.N * size + row % W * size
    return places


def _program(p: Problem, found: Layout, tiling: Tiling, lists: Lists, ready: bool = False) -> Program:
    N, share, dtype = found.at.N, tiling.share, dtypes.name(arithmetic(p))
    masked = None if p.mask is None else kept.of_tiles(p.mask, N, base(N), width(p), dtype)
    block = Program(
        tables.tables(N, dtype, N), base(N) if masked is None else masked.passes.base, like(p), CHANNELS=p.channels,
        ROWS=share.rows, BATCH=share.batch, CHUNKS=tiling.parts, SIDES=tiling.beside, SIDE_BYTES=fused.side_bytes(N),
        LOOP_WINDOWS=share.in_loop, LANE_WINDOWS=share.in_lanes, FIRST_WINDOW=share.first, HOP=found.hop,
    )  # fmt: skip
    for which, list_ in lists.items():
        block.move(which, list_)
    if masked is not None:
        point(block, masked.passes, masked.rough)
    use(block, lists, ready)
    block.set(STREAMS=int(streams(p)))
    return block


def spectra_tiles(p: Problem, found: Layout, lists: Lists) -> Launch:
    """`fused.spectra`: the filters' spectra of a Problem with one sample, for calls with `ready`."""
    tiling = spectra_tiling(p, found)
    block = _program(p, found, tiling, lists)
    block.place(words.SPECTRA, SPECTRA)
    return Tiles(block.block(), fused.spectra, like(p), tiling.dealt)


def spectra_bytes(p: Problem, found: Layout) -> int:
    """Of what `spectra_tiles` makes."""
    return spectra_tiling(p, found).dealt.units * fused.side_bytes(found.at.N)
