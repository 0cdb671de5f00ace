"""From a Problem and its tensors to programs, and back to results: everything about the engine that is not a loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from longwave import dtypes
from longwave.backends.cpu import direct, fused, moves, pages, ring, six_step, tables, threads, words
from longwave.backends.cpu.crossovers import chosen
from longwave.backends.cpu.program import Block, Form, Move, Program, View, address, form, view
from longwave.backends.cpu.results import MACHINE, arithmetic, empty, filter_shape, like, width
from longwave.backends.cpu.ring import Segment
from longwave.backends.cpu.tables import factors, matrix_shape, turns
from longwave.backends.cpu.transform import CACHE_LINE
from longwave.planner import Placement, Plan
from longwave.problem import Problem

# Rows of scratch memory that are taken through all inner passes at once: half of a first-level cache of 32 KiB.
BASE_BYTES = chosen().block_bytes
# While the matrices of all threads' rows are within this, they stay in the caches: every thread takes rows of its own.
WHOLE_ROWS_BYTES = chosen().whole_rows_bytes
# Windows are taken where they are expected to cost at most so much of one transform for everything, which costs LONG_COST as
# much where it goes by six steps; their transforms stay in the caches, and are long enough for the work around them.
WINDOWS_GAIN, LONG_COST, SHORTEST_WINDOW, LONGEST_WINDOW = chosen().windows_gain, 1.5, 256, 2**13
# Below this many channels the lanes hold rows of all samples of the batch, and each has its own copy of the filter.
FEW_CHANNELS = 32
# Nanoseconds a vector row and transform: a constant part (load, store) and one a factor of two. For threads and `plan`.
NS_ROW, NS_ROW_LEVEL = 3.0, 0.5


@dataclass(frozen=True)
class Layout:
    """Where everything of one stretch of samples stands in the ring; `first_tap` and `taps` count in order of rising lag."""

    at: Placement
    source: tuple[Segment, ...]  # from u, with indices of u
    past: tuple[Segment, ...]  # from history
    result: tuple[Segment, ...]  # with indices of y
    filter: tuple[Segment, ...]  # with indices from the first tap that is used
    filter_again: tuple[Segment, ...]  # circular: the same taps, one period earlier
    first_tap: int
    taps: int
    period: int = 0  # of a circular convolution whose taps must be folded to it, or 0
    # Of `windows`: how many there are, samples from one to the next, those that lie wholly inside, where lag 0 stands, and
    # where everything stands for the gradients.
    windows: int = 0
    hop: int = 0
    inside: tuple[int, int] = (0, 0)
    zero_row: int = 0
    backward: Layout | None = None

    @property
    def zero_lag(self) -> Segment:
        return Segment(0, 1, 0, self.zero_row, 1)


@lru_cache(maxsize=128)
def layouts(p: Problem) -> tuple[Layout, ...]:
    """The whole problem, or every document that is not empty; the first document owns what lies before 0."""
    if p.segments is None:
        return (_layout(p, 0, p.in_start, p.in_len, p.out_start, p.out_len),)
    found = []
    for i, (a, b) in enumerate(itertools.pairwise(p.segments)):
        in_a, out_a = (p.in_start, p.out_start) if i == 0 else (a, a)
        if b > in_a and b > out_a:
            found.append(_layout(p, a, in_a, b - in_a, out_a, b - out_a))
    return tuple(found)


def _layout(p: Problem, zero: int, in_start: int, in_len: int, out_start: int, out_len: int) -> Layout:
    """The stretch of inputs and outputs from these samples on; lags count from sample `zero`."""
    lo, hi = p.lags
    again: list[Segment] = []
    period = first_tap = 0
    if p.circular:
        at = ring.place(0, in_len, 0, in_len, 1 - in_len, in_len - 1)
        taps = p.taps
        if p.taps > in_len or lo % in_len:
            taps = period = in_len
        filter_, again = ring.segments(at.N, 0, taps), ring.segments(at.N, 1 - in_len, taps - 1, 1)
    else:
        wide = (min(lo, 0), max(hi, 0)) if p.skip else (lo, hi)
        at = ring.place(in_start - zero, in_len, out_start - zero, out_len, *wide)
        first_lag, last_lag = max(lo, at.lag), min(hi, at.lag + at.tap_stop - at.tap_start - 1)
        first_tap, taps = first_lag - lo, max(0, last_lag - first_lag + 1)
        filter_ = ring.segments(at.N, first_lag, taps)
        if N := _window_length(at.N, max(in_len, out_len), wide[1] - wide[0] + 1):
            return _windowed(p, N, wide, in_start, in_len, out_start, out_len)
    first = in_start - p.in_start  # counts history and u as one row
    past = max(0, min(p.history - first, in_len))
    return Layout(
        at=at,
        source=tuple(ring.segments(at.N, at.in_at + past, in_len - past, first + past - p.history)),
        past=tuple(ring.segments(at.N, at.in_at, past, first)),
        result=tuple(ring.segments(at.N, at.out_at, out_len, out_start - p.out_start)),
        filter=tuple(filter_),
        filter_again=tuple(again),
        first_tap=first_tap,
        taps=taps,
        period=period,
    )


@lru_cache(maxsize=65536)
def _window_length(N: int, samples: int, lags: int) -> int:
    """The best transform for `samples` results in windows, or 0 where one transform of N points is better for all of them."""
    length, gain = _best_window(N, samples, lags)
    return length if gain < WINDOWS_GAIN else 0


def expected_gain(L: int, K: int) -> float:
    """The expected time of windows over that of one transform, for a causal convolution; for `longwave tune`."""
    N = tables.transform_length((L + min(K, L)) // 2)
    return _best_window(N, L, K)[1]


def _best_window(N: int, samples: int, lags: int) -> tuple[int, float]:
    """The best transform for windows, and their expected time over that of one transform of N points."""
    best, least = 0, math.inf
    for parts in range(2, 33):
        length = tables.transform_length(-(-lags * parts // 4))
        hop = 2 * length - lags + 1
        if SHORTEST_WINDOW <= length <= LONGEST_WINDOW and lags <= hop < samples / 2:
            seconds = -(-samples // hop) * _seconds(length, 1)
            if seconds < least:
                best, least = length, seconds
    return best, least / (_seconds(N, 1) * (LONG_COST if _long(N) else 1))


def _windowed(p: Problem, N: int, lags: tuple[int, int], in_start: int, in_len: int, out_start: int, out_len: int) -> Layout:
    """The stretch in windows of 2N samples: each begins `hop` after the one before, and the first hi - lo of its results are
    not exact. The gradients' windows have 2N samples of that of the result and give `hop` of that of the input."""
    lo, hi = lags
    hop = 2 * N - (hi - lo)
    P, first, y_low = p.history, in_start - p.in_start, out_start - p.out_start
    u_low, u_high, y_high = max(0, first - P), first + in_len - P, y_low + out_len
    filter_ = tuple(ring.segments(N, p.lags[0] - lo, p.taps))

    def layout(start: int, length: int, y: int, y_position: int, y_length: int, windows: int) -> Layout:
        """With `length` samples of the input from `start` on at 0 …, and those of the result from `y` on at `y_position` …"""
        i = start - p.in_start - P
        inside_from = max(-(-(u_low - i) // hop), -(-(y_low - y) // hop), 0)
        inside_to = min((u_high - i - length) // hop, (y_high - y - y_length) // hop) + 1
        return Layout(
            at=Placement(N, 0, y_position, 0, p.taps, p.lags[0]),
            source=tuple(ring.segments(N, 0, length, i, u_low, u_high)),
            past=tuple(ring.segments(N, 0, length, i + P, 0, P)) if first < P else (),
            result=tuple(ring.segments(N, y_position, y_length, y, y_low, y_high)),
            filter=filter_,
            filter_again=(),
            first_tap=0,
            taps=p.taps,
            windows=windows,
            hop=hop,
            inside=(inside_from, max(inside_from, inside_to)),
            zero_row=-lo,
        )

    back = layout(in_start, hop, in_start + lo - p.out_start, 0, 2 * N, -(-in_len // hop))
    ahead = layout(out_start - hi, 2 * N, y_low, hi - lo, hop, -(-out_len // hop))
    return replace(ahead, backward=back)


# The tensors of a call, by their places.
U, K, SKIP, PREGATE, POSTGATE, HISTORY, Y, DY, DU, DPREGATE, DPOSTGATE, DHISTORY, DK, DK_AGAIN = range(14)


@dataclass(frozen=True)
class Units:
    """How the rows are dealt to lanes and threads: `rows` of them in tiles of W, `batch` samples each, in `chunks`."""

    rows: int
    batch: int
    chunks: int
    sides: int
    count: int


def _units(p: Problem, workers: int, sums_over_batch: bool, neighbours: bool = False) -> Units:
    """Whole batches where a filter's gradient sums over them; this depends on the problem alone there, as its order does.

    Where the `neighbours` of a sample in memory are those of other channels, two tiles share its cache line and a unit.
    """
    W = width(p)
    if p.per_sample or p.channels < (FEW_CHANNELS if sums_over_batch else W):
        return Units(p.batch * p.channels, 1, 1, 1, -(-p.batch * p.channels // W))
    line = CACHE_LINE // dtypes.named(p.dtype).itemsize
    sides = 2 if neighbours and line > W and p.channels > W else 1
    tiles = -(-p.channels // (W * sides))
    chunks = 1 if sums_over_batch else _chunks(p.batch, tiles, workers)
    return Units(p.channels, p.batch, chunks, sides, tiles * chunks)


def _chunks(batch: int, tiles: int, workers: int) -> int:
    """Parts of the batch: a tile that is shared computes its filters' spectrum again for each."""
    even = tiles % workers == 0 or tiles >= 4 * workers
    return 1 if even else min(batch, -(-2 * workers // tiles))


@lru_cache(maxsize=128)
def plan(problem: Problem) -> Plan:
    p = problem
    if direct.takes(p):
        return direct.plan(p)
    found = layouts(p)
    N, itemsize = max((piece.at.N for piece in found), default=1), arithmetic(p).itemsize
    rows = sum(piece.at.N * max(1, piece.windows) for piece in found) or 1
    W = width(p)
    workers = threads.width()
    long = _long(N)
    if long:
        shape = matrix_shape(N)
        together = _rows_at_once(p, N, workers, 2)
        product = " × ".join(f"{length:,}" for length in shape)
        algorithm = f"six_step, right-angle transforms of {product} in {dtypes.name(arithmetic(p))}, {W} lanes"
        in_flight = (together, together)
        scratch = workers * fused.scratch_bytes(max(shape), 2) + together * 2 * _matrix_bytes(p, N) + 2 * itemsize * N // 16
    else:
        windows = max((piece.windows for piece in found), default=0)
        workers = min(workers, _units(p, workers, False).count * max(1, windows))
        product = "·".join(map(str, factors(N)))
        name = f"{windows:,} windows" if windows else "fused"
        algorithm = f"{name}, right-angle transforms of {product} in {dtypes.name(arithmetic(p))}, {W} lanes"
        in_flight = (min(p.batch, workers), min(p.channels, workers * W))
        sides = 2 if p.channels_last and _units(p, 1, False, True).sides == 2 else 1
        scratch = workers * fused.scratch_bytes(N, 2, sides) + 2 * itemsize * N * 3
    tiles = p.batch * p.channels / W if long else p.batch * -(-p.channels // W)
    filters = p.channels / W * (p.batch if p.per_sample else 1)
    seconds = _seconds(N, 2 * tiles + filters) * rows / N
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    return Plan(
        backend="cpu",
        algorithm=algorithm,
        N=N,
        samples_in_flight=in_flight[0],
        channels_in_flight=in_flight[1],
        scratch_bytes=scratch,
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        flop=5 * transforms * rows * math.log2(max(2, N)),
        predicted_ms=1e3 * seconds / workers,
        predicted_for=f"{workers} threads of an {MACHINE}",
        problem=p,
    )


def forward(
    problem: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> Tensor:
    p = problem
    if direct.takes(p):
        return direct.forward(p, u, k, D, pregate, postgate, history)
    k = _ordered(p, k)
    y = empty(p, p.out_len, u)
    make = _forward_call if p.segments is None else _forward_packed
    call = make(p, threads.width(), form(u), form(k), form(D), form(pregate), form(postgate), form(history), form(y))
    if call.clears:
        y.zero_()
    for found, launch in zip(call.layouts, call.launches, strict=True):
        launch.run((u, _folded(p, found, k), D, pregate, postgate, history, y))
    return y


def backward(
    problem: Problem,
    needs: tuple[bool, ...],
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> list[Tensor]:
    p = problem
    if direct.takes(p):
        return direct.backward(p, needs, dy, u, k, D, pregate, postgate, history)
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    wide = arithmetic(p)
    k = None if k is None else _ordered(p, k)
    du = empty(p, p.in_len - p.history, u) if need_u else None
    dpregate = empty(p, p.in_len - p.history, u) if need_pregate else None
    dpostgate = empty(p, p.out_len, u) if need_postgate else None
    dhistory = empty(p, p.history, history) if need_history and history is not None else None
    dk = u.new_zeros(filter_shape(p), dtype=wide) if need_k else None
    dD = _skip_gradient(p, dy, u, D, pregate, postgate) if need_D and D is not None else None
    make = _backward_call if p.segments is None else _backward_packed
    call = make(
        p, threads.width(), need_k, form(dy), form(u), form(k), form(D), form(pregate), form(postgate), form(history),
        form(du), form(dpregate), form(dpostgate), form(dhistory),
    )  # fmt: skip
    if call.clears:
        for grad in (du, dpregate, dpostgate, dhistory):
            if grad is not None:
                grad.zero_()  # what no document reaches
    for found, launch in zip(call.layouts, call.launches, strict=True):
        samples, windows = _sums(p, found, need_k)
        # The second sum is that of a circular convolution's second copy of the taps.
        apart, lengths = found.backward.hop if found.backward else 0, [found.taps] * (1 + bool(found.filter_again)) * need_k
        sums = [u.new_empty(samples, p.channels, windows * apart if windows > 1 else n, dtype=wide) for n in lengths]
        taps = None if k is None else _folded(p, found, k)
        launch.run((u, taps, D, pregate, postgate, history, None, dy, du, dpregate, dpostgate, dhistory, *sums))
        if windows > 1:
            sums = [_in_order(x.unflatten(-1, (windows, apart))[..., :n], 2) for x, n in zip(sums, lengths, strict=True)]
        if dk is not None:
            if found.filter_again:
                sums[0][..., 1:] += sums[1][..., 1:]
            dk += _filter_gradient(p, found, sums[0])
    dk = None if dk is None else dk.to(dtypes.named(p.filter_dtype))
    return [grad for grad in (du, dk, dD, dpregate, dpostgate, dhistory) if grad is not None]


def _skip_gradient(p: Problem, dy: Tensor, u: Tensor, D: Tensor, pregate: Tensor | None, postgate: Tensor | None) -> Tensor:
    """That of D as one direct sum: as a lag among the filter's, small beside them, it would have their rounding errors."""
    one_tap = replace(
        p, taps=1, lag0=0, reverse=False, circular=False, groups=p.channels, per_sample=False, history=0,
        in_start=p.in_start + p.history, in_len=p.in_len - p.history,
    )  # fmt: skip
    (dD,) = direct.backward(one_tap, (False, False, True, False, False, False), dy, u, None, D, pregate, postgate, None)
    return dD


# Calls: everything that is decided before a kernel runs, kept for tensors of the same strides.


class Launch(Protocol):
    def run(self, tensors: Sequence[Tensor | None]) -> None: ...


@dataclass(frozen=True, eq=False)
class Call:
    """A launch for every layout that is not empty; `clears`: not everything is written, so that results begin as zeros."""

    layouts: tuple[Layout, ...]
    launches: tuple[Launch, ...]
    clears: bool


@dataclass(frozen=True, eq=False)
class Tiles:
    """A kernel of fused.py, or whole rows of six_step.py: independent units."""

    block: Block
    kernel: Any
    like: Any
    units: int
    seconds: float
    scratch_bytes: int

    def run(self, tensors: Sequence[Tensor | None]) -> None:
        filled = self.block.filled(tensors)
        threads.run(self.kernel, address(filled), self.like, self.units, self.seconds, self.scratch_bytes)


@dataclass(frozen=True, eq=False)
class Several:
    launches: tuple[Launch, ...]

    def run(self, tensors: Sequence[Tensor | None]) -> None:
        for launch in self.launches:
            launch.run(tensors)


@dataclass(frozen=True, eq=False)
class RowByRow:
    """six_step.py with all threads in every step of one row after the other."""

    block: Block
    like: Any
    script: tuple[tuple[int, int, int, int], ...]
    units: tuple[int, ...]  # of a step
    rows: tuple[tuple[int, int], ...]  # channels, and the sample that each begins with
    samples: int
    scratch_bytes: int
    matrices_bytes: int

    def run(self, tensors: Sequence[Tensor | None]) -> None:
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
                        # The threads are awake after the first step: even a short one is shared.
                        threads.run(
                            six_step.step_of_one_row, address(block), self.like, self.units[step], math.inf, self.scratch_bytes
                        )


Lists = dict[int, list[Move]]


def _make_forward_call(
    p: Problem,
    workers: int,
    u: Form,
    k: Form,
    D: Form | None,
    pregate: Form | None,
    postgate: Form | None,
    history: Form | None,
    y: Form,
) -> Call:
    pieces = layouts(p)
    filled = [found for found in pieces if not found.at.empty]
    launches: list[Launch] = []
    for found in filled:
        moves = found.windows > 0
        source, past = view(U, u, moves=moves), _maybe(HISTORY, history, moves)
        lists = {
            words.TAPS: _filter_moves(p, found, k, D),
            words.INPUT: _input_moves(found, source, _maybe(PREGATE, pregate, moves), past),
            words.OUTPUT: [Move(view(Y, y, moves=moves), _maybe(POSTGATE, postgate, moves), found.result)],
        }
        if moves:
            launches.append(_windows_launch(p, found, workers, lists, fused.forward, _neighbours(u), sums=False))
            continue
        if _long(found.at.N):
            launches.append(_long_launch(p, found, workers, lists, FORWARD, 2, sums=False))
            continue
        units = _units(p, workers, False, _neighbours(u))
        block = _program(p, found, units, lists)
        block.stream(source, p.in_len - p.history)
        launches.append(_tiles(p, found, fused.forward, units, block, parts=2, transforms=3))
    # A document may have outputs and no inputs.
    return Call(tuple(filled), tuple(launches), p.segments is not None or len(filled) < len(pieces))


def _make_backward_call(
    p: Problem,
    workers: int,
    need_k: bool,
    dy: Form,
    u: Form,
    k: Form | None,
    D: Form | None,
    pregate: Form | None,
    postgate: Form | None,
    history: Form | None,
    du: Form | None,
    dpregate: Form | None,
    dpostgate: Form | None,
    dhistory: Form | None,
) -> Call:
    pieces = layouts(p)
    filled = [found for found in pieces if not found.at.empty]
    launches: list[Launch] = []
    for found in filled:
        moves, back = found.windows > 0, found.backward or found
        source, gradient = view(U, u, moves=moves), view(DY, dy, moves=moves)
        before, after = _maybe(PREGATE, pregate, moves), _maybe(POSTGATE, postgate, moves)
        past = _maybe(HISTORY, history, moves)
        taps = [] if k is None else _filter_moves(p, found, k, D)
        lists = {
            words.TAPS: taps,
            words.INPUT: _input_moves(back, source, before, past),
            words.DZ: [Move(gradient, after, back.result)],
            words.DX: [],
            words.DPOSTGATE: [],
            words.DK: [],
        }
        if du is not None:
            lists[words.DX].append(Move(view(DU, du, moves=moves), before, back.source))
        if dpregate is not None:
            lists[words.DX].append(Move(view(DPREGATE, dpregate, moves=moves), source, back.source))
        if dhistory is not None:
            lists[words.DX].append(Move(view(DHISTORY, dhistory, moves=moves), None, back.past))
        of_postgate = []
        if dpostgate is not None:
            of_postgate = [Move(view(DPOSTGATE, dpostgate, moves=moves), gradient, found.result)]
            lists[words.DPOSTGATE] = [] if moves else of_postgate
        for slot, segments in ((DK, found.filter), (DK_AGAIN, found.filter_again)):
            if need_k and segments:
                samples, windows = _sums(p, found, need_k)
                row = windows * back.hop if windows > 1 else found.taps
                strides = (p.channels * row if samples > 1 else 0, row, 1)
                lists[words.DK].append(Move(view(slot, (arithmetic(p), strides), moves=windows > 1), None, segments))
        if moves:
            parts = []
            if lists[words.DX] or lists[words.DK]:
                parts.append(_windows_launch(p, back, workers, lists, fused.backward, _neighbours(u), need_k))
            if of_postgate:  # its windows are those of the convolution itself
                lists = {words.TAPS: taps, words.INPUT: _input_moves(found, source, before, past), words.OUTPUT: of_postgate}
                parts.append(_windows_launch(p, found, workers, lists, fused.forward, _neighbours(u), sums=False))
            launches.append(Several(tuple(parts)))
            continue
        if _long(found.at.N):
            launches.append(_long_launch(p, found, workers, lists, _backward_script(lists), 4, need_k))
            continue
        units = _units(p, workers, need_k, _neighbours(u))
        block = _program(p, found, units, lists)
        launches.append(_tiles(p, found, fused.backward, units, block, parts=fused.gradient_parts(units.batch), transforms=5))
    return Call(tuple(filled), tuple(launches), p.segments is not None or len(filled) < len(pieces))


# Every packing of documents is a problem of its own, has a program a document, and hardly comes again.
_forward_call, _forward_packed = lru_cache(maxsize=1024)(_make_forward_call), lru_cache(maxsize=4)(_make_forward_call)
_backward_call, _backward_packed = lru_cache(maxsize=1024)(_make_backward_call), lru_cache(maxsize=4)(_make_backward_call)


def _neighbours(u: Form) -> bool:
    _dtype, (*_, h, t) = u
    return h == 1 and t != 1


def _sums(p: Problem, found: Layout, sums: bool) -> tuple[int, int]:
    """Over how many samples of the batch, and over how many windows, a filter's gradient is summed afterwards, in order."""
    if _long(found.at.N) and not found.windows:
        return (p.batch if p.per_sample else 1), 1
    samples = p.batch if _units(p, 1, sums).rows == p.batch * p.channels else 1
    back = found.backward
    return samples, back.windows if sums and back and _apart(p) else 1


def _apart(p: Problem) -> bool:
    """Whether each window has a gradient of the filter of its own."""
    return p.per_sample or p.batch * p.channels < FEW_CHANNELS


def _program(p: Problem, found: Layout, units: Units, lists: Lists) -> Program:
    N = found.at.N
    constants = tables.tables(N, dtypes.name(arithmetic(p)), N)
    block = Program(constants, _base(N), like(p), CHANNELS=p.channels, ROWS=units.rows, BATCH=units.batch, CHUNKS=units.chunks)
    block.set(SIDES=units.sides, SIDE_BYTES=fused.side_bytes(N))
    for which, list_ in lists.items():
        block.move(which, list_)
    return block


def _tiles(p: Problem, found: Layout, kernel: Any, units: Units, block: Program, *, parts: int, transforms: int) -> Tiles:
    N = found.at.N
    seconds = _seconds(N, transforms * units.count * units.sides * -(-units.batch // units.chunks))
    return Tiles(block.block(), kernel, like(p), units.count, seconds, fused.scratch_bytes(N, parts, units.sides))


def _windows_launch(p: Problem, found: Layout, workers: int, lists: Lists, kernel: Any, neighbours: bool, sums: bool) -> Launch:
    """Windows are samples of the batch to the kernels; where there are few channels, those inside go into the lanes. Where
    each has a gradient of the filter of its own, it is a unit of its own."""
    units, W = _units(p, workers, sums, neighbours), width(p)
    backward = kernel is fused.backward
    inside_from, inside_to = found.inside
    # (rows, samples, windows in the loop, in the lanes, and the first of them)
    launches = [(units.rows, units.batch, found.windows, 1, 0)]
    apart = sums and _apart(p)
    if units.rows == p.batch * p.channels and (apart or not sums) and inside_to - inside_from > W:
        inside = inside_to - inside_from
        launches = [
            (units.rows, 1, inside_from, 1, 0),
            (units.rows * inside, 1, 1, inside, inside_from),
            (units.rows, 1, found.windows - inside_to, 1, inside_to),
        ]
    parts = []
    for rows, samples, in_loop, in_lanes, first in launches:
        if in_loop == 0:
            continue
        tiles, batch = -(-rows // (W * units.sides)), samples * in_loop
        chunks = batch if apart else 1 if sums else _chunks(batch, tiles, workers)
        dealt = Units(rows, batch, chunks, units.sides, tiles * chunks)
        block = _program(p, found, dealt, lists)
        block.set(LOOP_WINDOWS=in_loop, LANE_WINDOWS=in_lanes, FIRST_WINDOW=first, HOP=found.hop)
        count = {"parts": fused.gradient_parts(batch), "transforms": 5} if backward else {"parts": 2, "transforms": 3}
        parts.append(_tiles(p, found, kernel, dealt, block, **count))
    return Several(tuple(parts))


# Long rows. The steps of the script, as (when, kind, list, matrix).
_FILTER = (
    (words.BEFORE, words.COLUMNS_IN, words.TAPS, words.OF_TAPS),
    (words.BEFORE, words.ROWS_FILTER, 0, words.OF_TAPS),
)
FORWARD = (
    *_FILTER,
    (words.EACH, words.COLUMNS_IN, words.INPUT, words.OF_INPUT),
    (words.EACH, words.ROWS_MULTIPLY, 0, words.OF_INPUT),
    (words.EACH, words.COLUMNS_OUT, words.OUTPUT, words.OF_INPUT),
)


def _backward_script(lists: Lists) -> tuple[tuple[int, int, int, int], ...]:
    need_x, need_k, need_y = (bool(lists[which]) for which in (words.DX, words.DK, words.DPOSTGATE))
    script = list(_FILTER) if need_x or need_y else []
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


def _long(N: int) -> bool:
    return N >= tables.SIX_STEP_FROM


def _row_step(p: Problem, N: int) -> int:
    """Bytes of a row of the matrix."""
    return 2 * arithmetic(p).itemsize * matrix_shape(N)[1] + six_step.PADDING


def _matrix_bytes(p: Problem, N: int) -> int:
    return matrix_shape(N)[0] * _row_step(p, N)


def _rows_at_once(p: Problem, N: int, workers: int, matrices: int) -> int:
    """Rows in flight: one a thread while their matrices fit into the caches together and there are enough rows, or one."""
    # Parts of a batch that is split each compute the filters' spectrum again.
    split = _chunks(p.batch, p.channels, workers) > 1
    fits = workers * matrices * _matrix_bytes(p, N) <= WHOLE_ROWS_BYTES // (1 + split)
    return workers if workers == 1 or (fits and p.batch * p.channels >= 2 * workers) else 1


def _long_launch(
    p: Problem,
    found: Layout,
    workers: int,
    lists: Lists,
    script: tuple[tuple[int, int, int, int], ...],
    matrices: int,
    sums: bool,
) -> Launch:
    N, dtype, W = found.at.N, dtypes.name(arithmetic(p)), width(p)
    rows, columns = matrix_shape(N)
    of_rows = Program(tables.tables(columns, dtype, 1), _base(columns), like(p), COLUMNS=0)
    of_rows.set(FIRST_LEVEL=0)
    row_block = of_rows.block()
    row_words = row_block.filled(())
    factors_between, high, low = turns(N, dtype, W)
    batch = 1 if p.per_sample else p.batch
    chunks = 1 if sums else _chunks(batch, p.channels * (p.batch // batch), workers)
    block = Program(
        tables.tables(rows, dtype, N), _base(rows), like(p), COLUMNS=columns, ROW_PROGRAM=address(row_words),
        TURNS=factors_between.data_ptr(), TURNS_HIGH=high, TURNS_LOW=low, ROW_STEP=_row_step(p, N),
        MATRIX_BYTES=_matrix_bytes(p, N), CHANNELS=p.channels, BATCH=batch, CHUNKS=chunks,
    )  # fmt: skip
    for which, list_ in lists.items():
        block.move(which, list_)
    block.script(script)
    block.keep += [row_block, row_words, factors_between]
    parts = fused.scratch_bytes(max(rows, columns), 2)
    transform = _seconds(N, 1 / W)
    if _rows_at_once(p, N, workers, matrices) == workers and not p.per_sample:
        units = p.channels * chunks
        seconds = transform * (matrices + 1) * p.channels * batch
        scratch = parts + matrices * _matrix_bytes(p, N)
        return Tiles(block.block(), six_step.whole_rows, like(p), units, seconds, scratch)
    by_columns = -(-(columns // W) // six_step.TOGETHER)
    in_columns = (words.COLUMNS_IN, words.COLUMNS_OUT)
    return RowByRow(
        block=block.block(),
        like=like(p),
        script=script,
        units=tuple(by_columns if kind in in_columns else rows // W for _, kind, _, _ in script),
        rows=tuple((h, b) for h in range(p.channels) for b in (range(p.batch) if p.per_sample else (0,))),
        samples=batch,
        scratch_bytes=parts,
        matrices_bytes=matrices * _matrix_bytes(p, N),
    )


@lru_cache(maxsize=4096)
def _base(N: int) -> int:
    """The largest block of a pass that is within BASE_BYTES (or the smallest there is)."""
    n, rows = N, BASE_BYTES // moves.ROW_BYTES
    for r in factors(N)[:-1]:
        if n <= rows:
            break
        n //= r
    return n


def _seconds(N: int, transforms: float) -> float:
    return 1e-9 * transforms * N * (NS_ROW + NS_ROW_LEVEL * math.log2(max(2, N)))


def _maybe(slot: int, form: Form | None, moves: bool = False) -> View | None:
    return None if form is None else view(slot, form, moves=moves)


def _input_moves(found: Layout, u: View, pregate: View | None, history: View | None) -> list[Move]:
    moves = [Move(u, pregate, found.source)]
    return moves if history is None or not found.past else [*moves, Move(history, None, found.past)]


def _ordered(p: Problem, k: Tensor) -> Tensor:
    """The filters with their taps in order of rising lag."""
    return k.flip(-1) if p.reverse else k


def _filter_moves(p: Problem, found: Layout, k: Form, D: Form | None) -> list[Move]:
    """The taps at their lags, and D as one more tap at lag 0."""
    if found.period:
        shape = (p.batch, p.groups, found.period)[0 if p.per_sample else 1 :]
        k = (arithmetic(p), tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))))
    taps = view(K, k, found.first_tap, p.channels // p.groups)
    moves = [Move(taps, None, found.filter)]
    if found.filter_again:
        moves.append(Move(taps, None, found.filter_again))
    if D is not None:
        moves.append(Move(view(SKIP, D), None, [found.zero_lag], add=True))
    return moves


def _folded(p: Problem, found: Layout, k: Tensor) -> Tensor:
    """The taps in order of rising lag; with a period L that they exceed, (…, L) with that of lag j modulo L at j."""
    L = found.period
    if not L:
        return k
    turns = -(-p.taps // L)
    padded = torch.nn.functional.pad(k.to(arithmetic(p)), (0, turns * L - p.taps)).unflatten(-1, (turns, L))
    return _in_order(padded.movedim(-2, 0), 0).roll(p.lags[0] % L, dims=-1).contiguous()


def _filter_gradient(p: Problem, found: Layout, dk: Tensor) -> Tensor:
    """(samples, H, taps in use) to the shape of the filter, its sums in a fixed order."""
    repeats = p.channels // p.groups
    if repeats > 1:
        dk = _in_order(dk.unflatten(1, (p.groups, repeats)), 2)
    if not p.per_sample:
        dk = _in_order(dk, 0)
    if found.period:
        turned = dk.roll(-(p.lags[0] % found.period), dims=-1)
        dk = torch.cat([turned] * -(-p.taps // found.period), dim=-1)[..., : p.taps]
    elif found.taps != p.taps:
        dk = torch.nn.functional.pad(dk, (found.first_tap, p.taps - found.first_tap - found.taps))
    return dk.flip(-1) if p.reverse else dk


def _in_order(x: Tensor, dim: int) -> Tensor:
    """The sum over a dimension in float64, one term after the other: `Tensor.sum` may split it by the number of threads."""
    first, *others = x.unbind(dim)
    if not others:
        return first
    total = first.double()
    total = total.clone() if total is first else total
    for term in others:
        total += term
    return total.to(x.dtype)
