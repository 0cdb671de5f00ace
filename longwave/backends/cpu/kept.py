"""What a frequency mask keeps of a transform: which blocks of its passes, which rows of a matrix, which tiles of them.

A pass of decimation in frequency takes a block apart into parts, whose frequencies are those of the block in turns. Frequencies
with one remainder are a part of the first passes: where nothing of it is kept it is left out from there on. A band of
frequencies leaves something of every block, and little of the last two passes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from longwave.backends.cpu import tables
from longwave.backends.cpu.layouts import Layout, layout
from longwave.backends.cpu.steps import BANDS, EVERYTHING, NOTHING, band_places
from longwave.documents import documents
from longwave.masks import FrequencyMask
from longwave.problem import Problem

# Blocks of fewer rows cost more to look at than they save.
SMALLEST_BLOCK = 64


class Kept(NamedTuple):
    """Of one transform: the rows of its blocks and which of them have anything kept, if not all (words); what is kept of the
    blocks of 16 rows, if it is little (bytes, see steps.py)."""

    base: int
    blocks: Any
    sixteen: Any


@lru_cache(maxsize=1024)
def any_of(mask: FrequencyMask, N: int) -> bool:
    return bool(mask.kept(N).any())


def takes(problem: Problem) -> bool:
    """Whether a Problem's frequency mask is for the engine's own transforms. Periods have other frequencies: such filters are
    masked before they come here."""
    p = problem
    if p.circular:
        return False
    found = [layout(document.problem) for document in documents(p)]
    return bool(found) and not any(one.at.empty or (one.is_long and one.at.N % tables.GRAIN**2) for one in found)


def check(p: Problem) -> None:
    """Raises ArgumentError where the mask keeps nothing of the whole row; a short document among others may well vanish."""
    if p.mask is not None and p.segments is None:
        grid = layout(p).at.N
        if not any_of(p.mask, grid):
            p.mask.check_some(p.mask.kept(grid))


def connects_nothing(p: Problem, found: Layout) -> bool:
    """Whether no tap that is kept connects any input with any output."""
    return found.at.empty or (p.mask is not None and not any_of(p.mask, found.at.N))


def wanted_places(mask: FrequencyMask, N: int) -> Any:
    """Which places of a transform of N points the mask keeps."""
    return mask.kept(N).numpy()[tables.frequencies(N)]


def wanted_of_matrix(mask: FrequencyMask, N: int) -> Any:
    """The same for a long row: (places of columns, places of rows)."""
    rows, columns = tables.matrix_shape(N)
    k1, k2 = tables.frequencies(rows), tables.frequencies(columns)
    return mask.kept(N).numpy()[k1[:, None] + rows * k2]


def _of_passes(N: int, places: Any, base: int, first_level: int) -> tuple[Kept, Any]:
    """What the passes keep, for blocks of at most `base` rows, where `places` are wanted; and what they keep, by places."""
    n, best, most = N, base, 0.0
    for r in tables.factors(N)[:-1]:
        n //= r
        dead = 1 - places.reshape(-1, n).any(axis=1).mean()
        if n <= base and n >= min(base, SMALLEST_BLOCK) and dead > most + 0.01:
            best, most = n, dead
    alive = places.reshape(-1, best).any(axis=1)
    blocks = None if alive.all() else alive.astype(np.int64)
    radices = tables.factors(N)
    if radices[-2:] != (4, 4) or len(radices) - 2 < first_level or best < 16:
        return Kept(best, blocks, None), np.repeat(alive, best)
    patterns = places.reshape(-1, 16)
    codes = np.full(N // 16, EVERYTHING, dtype=np.uint8)
    codes[~patterns.any(axis=1)] = NOTHING
    keeps = np.ones_like(patterns)
    keeps[codes == NOTHING] = False
    for code, band in enumerate(BANDS, 1):
        pattern = np.isin(np.arange(16), band_places(band))
        same = (patterns == pattern).all(axis=1)
        codes[same], keeps[same] = code, pattern
    if (codes == EVERYTHING).mean() > 0.5:
        return Kept(best, blocks, None), np.repeat(alive, best)
    return Kept(best, blocks, codes), keeps.ravel()


class Rough(NamedTuple):
    """The places where the passes keep too much, and what is wanted of their lanes: 0 or 1, in every tile."""

    places: Any
    lanes: Any


def _rough(kept: Any, tiles: Any, dtype: str) -> Rough:
    """Of tiles (tile, lane, place) whose places are `kept`."""
    places = np.flatnonzero((tiles != kept).any(axis=(0, 1))).astype(np.int64)
    lanes = np.ascontiguousarray(tiles[:, :, places].transpose(0, 2, 1)).astype(dtype)
    memory = np.empty(lanes.nbytes + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64  # aligned to any vector
    aligned = memory[start : start + lanes.nbytes].view(lanes.dtype).reshape(lanes.shape)
    aligned[...] = lanes
    return Rough(places, aligned)


class OfTiles(NamedTuple):
    """What is kept of a transform of fused.py."""

    passes: Kept
    rough: Rough


@lru_cache(maxsize=64)
def of_tiles(mask: FrequencyMask, N: int, base: int, width: int, dtype: str) -> OfTiles:
    wanted = wanted_places(mask, N)
    passes, kept = _of_passes(N, wanted, base, 1)  # the first pass is made by the moves
    return OfTiles(passes, _rough(kept, np.tile(wanted, (1, width, 1)), dtype))


class OfMatrix(NamedTuple):
    """What is kept of a long row: of the passes of its columns and rows, and of which tiles anything is, if not of all."""

    columns: Kept
    rows: Kept
    tiles: Any
    rough: Rough


@lru_cache(maxsize=16)
def of_matrix(mask: FrequencyMask, N: int, bases: tuple[int, int], width: int, dtype: str) -> OfMatrix:
    """`bases`: the most rows of a block, of the transforms of columns and of rows."""
    rows, columns = tables.matrix_shape(N)
    wanted = wanted_of_matrix(mask, N)
    tiles = wanted.reshape(rows // width, width, columns)
    of_columns, _ = _of_passes(rows, wanted.any(axis=1), bases[0], 1)
    of_rows, kept = _of_passes(columns, wanted.any(axis=0), bases[1], 0)
    some = tiles.any(axis=(1, 2))
    return OfMatrix(of_columns, of_rows, None if some.all() else some.astype(np.int64), _rough(kept, tiles, dtype))
