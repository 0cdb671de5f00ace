"""Launches: kernels with their finished programs, and how a Problem's rows are dealt to lanes, units and threads.

Everything is decided before a kernel runs, and kept for tensors of the same strides. How rows are dealt is a matter of speed:
a row's bits do not depend on it, nor those of a filter's gradient, whose terms are always added in one order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import fused, kept, moves, pages, six_step, tables, threads, words
from longwave.backends.cpu.costs import seconds
from longwave.backends.cpu.crossovers import chosen
from longwave.backends.cpu.layouts import Layout
from longwave.backends.cpu.program import Block, Move, Program, View, address
from longwave.backends.cpu.results import arithmetic, like, width
from longwave.backends.cpu.tables import factors, matrix_shape, turns
from longwave.backends.cpu.transform import CACHE_LINE
from longwave.problem import Problem

# Rows of scratch memory that are taken through all inner passes at once: half of a first-level cache of 32 KiB.
BASE_BYTES = chosen().block_bytes
# While the matrices of all threads' rows are within this, they stay in the caches: every thread takes rows of its own.
WHOLE_ROWS_BYTES = chosen().whole_rows_bytes
# From so many channels on a few idle lanes in the last tile do not matter.
MANY_CHANNELS = 32
# Products of spectra are left to be added up later only while they are within this.
PRODUCTS_BYTES = 2**28

# The tensors of a call, by their places.
(
    U, K, SKIP, PREGATE, POSTGATE, HISTORY, Y, DY, DU, DPREGATE, DPOSTGATE, DHISTORY, DK, DK_AGAIN, SPECTRA, PRODUCTS, PLACES,
) = range(17)  # fmt: skip

Lists = dict[int, list[Move]]
# The steps of long rows: (when, kind, list, matrix).
Script = tuple[tuple[int, int, int, int], ...]
Tensors = tuple[Tensor | None, ...]


class Launch(Protocol):
    def run(self, tensors: Tensors) -> None: ...


class Dealt(NamedTuple):
    """Independent units of a kernel: a guess at their seconds on one thread, and bytes of scratch memory a thread."""

    units: int
    seconds: float
    each: int

    @property
    def bytes(self) -> int:
        return threads.scratch_bytes(self.units, self.seconds, self.each)


@dataclass(frozen=True, eq=False)
class Tiles:
    """A kernel of fused.py, or whole rows of six_step.py."""

    block: Block
    kernel: Any
    like: Any
    dealt: Dealt

    def run(self, tensors: Tensors) -> None:
        filled = self.block.filled(tensors)
        threads.run(self.kernel, address(filled), self.like, *self.dealt)


@dataclass(frozen=True, eq=False)
class Several:
    """One after the other; with `products_bytes`, that much memory for what the first leave to the last."""

    launches: tuple[Launch, ...]
    products_bytes: int = 0

    def run(self, tensors: Tensors) -> None:
        if self.products_bytes:
            tensors = (*tensors[:PRODUCTS], pages.scratch(self.products_bytes, purpose="products"), *tensors[PRODUCTS + 1 :])
        for launch in self.launches:
            launch.run(tensors)


@dataclass(frozen=True, eq=False)
class RowByRow:
    """six_step.py with all threads in every step of one row after the other."""

    block: Block
    like: Any
    script: Script
    steps: tuple[Dealt, ...]
    rows: tuple[tuple[int, int], ...]  # channels, and the sample that each begins with
    samples: int
    matrices_bytes: int

    def run(self, tensors: Tensors) -> None:
        block = self.block.filled(tensors)
        matrices = pages.scratch(self.matrices_bytes, purpose="matrices")
        block[words.MATRICES] = matrices.data_ptr()
        for h, first in self.rows:
            for b in range(first, first + self.samples):
                for step, (when, *_) in enumerate(self.script):
                    begins, finishes = b == first, b == first + self.samples - 1
                    if when == words.EACH or (when == words.BEFORE and begins) or (when == words.AFTER and finishes):
                        block[words.STEP], block[words.SAMPLE], block[words.CHANNEL] = step, b, h
                        block[words.IS_FIRST] = int(begins)
                        threads.run(six_step.step_of_one_row, address(block), self.like, *self.steps[step])


# How rows are dealt: short transforms.


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


def chunks(batch: int, tiles: int, workers: int) -> int:
    """Parts of the batch: a tile that is shared computes its filters' spectrum again for each."""
    even = tiles % workers == 0 or tiles >= 4 * workers
    return 1 if even else min(batch, -(-2 * workers // tiles))


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
        return [_tiling(p, N, whole, beside, 1, 5, fused.gradient_parts(whole.batch))], 0
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


def spectra_launch(p: Problem, found: Layout, workers: int, lists: Lists) -> Launch:
    """What makes the filters' spectra of a Problem with one sample, for calls with `ready`."""
    if found.is_long:
        return long_rows(p, found, workers, lists, TRANSFORM_FILTER, 1, makes=True)
    tiling = spectra_tiling(p, found)
    block = _program(p, found, tiling, lists)
    block.place(words.SPECTRA, SPECTRA)
    return Tiles(block.block(), fused.spectra, like(p), tiling.dealt)


def spectra_bytes(p: Problem, found: Layout) -> int:
    """Of the filters' spectra that `spectra_launch` makes."""
    if found.is_long:
        return p.channels * matrix_bytes(p, found.at.N)
    return spectra_tiling(p, found).dealt.units * fused.side_bytes(found.at.N)


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
        _point(block, masked.passes, masked.rough)
    _use(block, lists, ready)
    return block


def _point(block: Program, passes: kept.Kept, rough: kept.Rough) -> None:
    """To what a mask keeps."""
    block.point(KEPT_BLOCKS=passes.blocks, KEPT_SIXTEEN=passes.sixteen, ROUGH_PLACES=rough.places, ROUGH_LANES=rough.lanes)
    block.set(ROUGH_COUNT=rough.places.size)


def _use(block: Program, lists: Lists, ready: bool) -> None:
    """With the filters' spectra that a call brings, if they are `ready`; with D added to spectra, if it is in their list."""
    if ready:
        block.place(words.SPECTRA, SPECTRA)
    block.set(LIFTS=int(bool(lists.get(words.LIFT))))


# How rows are dealt: long ones.

TRANSFORM_FILTER = (
    (words.BEFORE, words.COLUMNS_IN, words.TAPS, words.OF_TAPS),
    (words.BEFORE, words.ROWS_FILTER, 0, words.OF_TAPS),
)
ADD_SKIP = ((words.BEFORE, words.ROWS_LIFT, words.LIFT, words.OF_TAPS),)
CONVOLVE = (
    (words.EACH, words.COLUMNS_IN, words.INPUT, words.OF_INPUT),
    (words.EACH, words.ROWS_MULTIPLY, 0, words.OF_INPUT),
    (words.EACH, words.COLUMNS_OUT, words.OUTPUT, words.OF_INPUT),
)


def filter_script(lists: Lists, ready: bool) -> Script:
    """What comes before the first sample: spectra, unless they are `ready`, and D."""
    return (*(() if ready else TRANSFORM_FILTER), *(ADD_SKIP if lists[words.LIFT] else ()))


def backward_script(lists: Lists, ready: bool = False) -> Script:
    need_x, need_k, need_y = (bool(lists[which]) for which in (words.DX, words.DK, words.DPOSTGATE))
    script = list(filter_script(lists, ready)) if need_x or need_y else []
    if need_k or need_y:
        script.append((words.EACH, words.COLUMNS_IN, words.INPUT, words.OF_INPUT))
    if need_k or need_x:
        script.append((words.EACH, words.COLUMNS_IN, words.DZ, words.OF_DZ))
    script.append((words.EACH, words.ROWS_BACKWARD, 0, 0))
    if need_x:
        script.append((words.EACH, words.COLUMNS_OUT, words.DX, words.OF_DZ))
    if need_y:
        script.append((words.EACH, words.COLUMNS_OUT, words.DPOSTGATE, words.OF_INPUT))
    if need_k:
        script.append((words.AFTER, words.ROWS_LAST, 0, words.OF_SUM))
        script.append((words.AFTER, words.COLUMNS_OUT, words.DK, words.OF_SUM))
    return tuple(script)


def _row_step(p: Problem, N: int) -> int:
    """Bytes of a row of the matrix."""
    return 2 * arithmetic(p).itemsize * matrix_shape(N)[1] + six_step.PADDING


def matrix_bytes(p: Problem, N: int) -> int:
    return matrix_shape(N)[0] * _row_step(p, N)


def rows_at_once(p: Problem, N: int, workers: int, matrices: int) -> int:
    """Rows in flight: one a thread while their matrices fit into the caches together and there are enough rows, or one."""
    # Parts of a batch that is split each compute the filters' spectrum again.
    split = chunks(p.batch, p.channels, workers) > 1
    fits = workers * matrices * matrix_bytes(p, N) <= WHOLE_ROWS_BYTES // (1 + split)
    return workers if workers == 1 or (fits and p.batch * p.channels >= 2 * workers) else 1


def long_dealt(p: Problem, N: int, workers: int, matrices: int, need_k: bool) -> tuple[Dealt, int]:
    """Of a launch for whole rows, and 0; or of a step for one row, and the bytes of the matrices that all threads share."""
    rows, columns = matrix_shape(N)
    each, all_matrices = fused.scratch_bytes(max(rows, columns), 2), matrices * matrix_bytes(p, N)
    if rows_at_once(p, N, workers, matrices) == workers and not p.per_sample:
        parts = 1 if need_k else chunks(p.batch, p.channels, workers)
        expected = seconds(N, 1 / width(p)) * (matrices + 1) * p.channels * p.batch
        return Dealt(p.channels * parts, expected, each + all_matrices), 0
    # The threads are awake after the first step: even a short one is shared.
    return Dealt(max(rows, columns) // width(p), math.inf, each), all_matrices


def long_rows(
    p: Problem,
    found: Layout,
    workers: int,
    lists: Lists,
    script: Script,
    matrices: int,
    need_k: bool = False,
    ready: bool = False,
    makes: bool = False,
) -> Launch:
    """six_step.py; `need_k`: the batch is not split, as its gradients of the filters are sums over it; `makes`: the filters'
    spectra, for calls with `ready`."""
    N, dtype, W = found.at.N, dtypes.name(arithmetic(p)), width(p)
    rows, columns = matrix_shape(N)
    masked = None if p.mask is None else kept.of_matrix(p.mask, N, (base(rows), base(columns)), W, dtype)
    bases = (base(rows), base(columns)) if masked is None else (masked.columns.base, masked.rows.base)
    of_rows = Program(tables.tables(columns, dtype, 1), bases[1], like(p), COLUMNS=0, FIRST_LEVEL=0)
    if masked is not None:
        of_rows.point(KEPT_BLOCKS=masked.rows.blocks, KEPT_SIXTEEN=masked.rows.sixteen)
    row_block = of_rows.block()
    row_words = row_block.filled(())
    factors_between, high, low = turns(N, dtype, W)
    dealt, shared_bytes = long_dealt(p, N, workers, matrices, need_k)
    batch = 1 if p.per_sample else p.batch
    block = Program(
        tables.tables(rows, dtype, N), bases[0], like(p), COLUMNS=columns, ROW_PROGRAM=address(row_words),
        TURNS=factors_between.data_ptr(), TURNS_HIGH=high, TURNS_LOW=low, ROW_STEP=_row_step(p, N),
        MATRIX_BYTES=matrix_bytes(p, N), CHANNELS=p.channels, BATCH=batch, CHUNKS=max(1, dealt.units // p.channels),
    )  # fmt: skip
    for which, list_ in lists.items():
        block.move(which, list_)
    block.script(script)
    if masked is not None:
        _point(block, masked.columns, masked.rough)
        block.point(KEPT_TILES=masked.tiles)
    _use(block, lists, ready)
    if makes:
        block.place(words.SPECTRA, SPECTRA)
    block.keep += [row_block, row_words, factors_between]
    if not shared_bytes:
        return Tiles(block.block(), six_step.whole_rows, like(p), dealt)
    by_columns, in_columns = -(-(columns // W) // six_step.TOGETHER), (words.COLUMNS_IN, words.COLUMNS_OUT)
    return RowByRow(
        block=block.block(),
        like=like(p),
        script=script,
        steps=tuple(dealt._replace(units=by_columns if kind in in_columns else rows // W) for _, kind, _, _ in script),
        rows=tuple((h, b) for h in range(p.channels) for b in (range(p.batch) if p.per_sample else (0,))),
        samples=batch,
        matrices_bytes=shared_bytes,
    )


@lru_cache(maxsize=4096)
def base(N: int) -> int:
    """The largest block of a pass that is within BASE_BYTES (or the smallest there is)."""
    n, rows = N, BASE_BYTES // moves.ROW_BYTES
    for r in factors(N)[:-1]:
        if n <= rows:
            break
        n //= r
    return n
