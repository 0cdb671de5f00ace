"""How long rows are dealt to threads, whole or step by step: `six_step`."""

from __future__ import annotations

import math

from longwave import dtypes
from longwave.backends.cpu import fused, kept, six_step, tables, words
from longwave.backends.cpu.costs import seconds
from longwave.backends.cpu.crossovers import chosen
from longwave.backends.cpu.launches import SPECTRA, Dealt, Launch, Lists, RowByRow, Script, Tiles, base, chunks, point, use
from longwave.backends.cpu.layouts import Layout
from longwave.backends.cpu.program import Program, address
from longwave.backends.cpu.results import arithmetic, like, streams, width
from longwave.backends.cpu.tables import matrix_shape, turns
from longwave.problem import Problem

# While the matrices of all threads' rows are within this, they stay in the caches: every thread takes rows of its own.
WHOLE_ROWS_BYTES = chosen().whole_rows_bytes

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
        point(block, masked.columns, masked.rough)
        block.point(KEPT_TILES=masked.tiles)
    use(block, lists, ready)
    # Where channels are neighbours, results are rows of a strip, which are turned over next.
    block.set(STREAMS=int(streams(p) and not p.channels_last))
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
