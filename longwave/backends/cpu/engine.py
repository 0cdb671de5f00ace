"""From a Problem and its tensors to launches, and back to results: everything about the engine that is not a loop."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from longwave import dtypes, taps
from longwave.backends.cpu import direct, kept, launches, pages, strips, tables, threads, words
from longwave.backends.cpu.costs import MACHINE, seconds
from longwave.backends.cpu.launches import (
    CONVOLVE,
    DHISTORY,
    DK,
    DK_AGAIN,
    DPOSTGATE,
    DPREGATE,
    DU,
    DY,
    HISTORY,
    POSTGATE,
    PREGATE,
    SKIP,
    K,
    Launch,
    Several,
    U,
    Y,
)
from longwave.backends.cpu.layouts import Layout, beside, layout
from longwave.backends.cpu.program import Form, Move, View, form, view
from longwave.backends.cpu.results import Gradients, arithmetic, empty, filter_shape, gradient_bytes, width
from longwave.backends.cpu.tables import factors, matrix_shape
from longwave.documents import cover, documents
from longwave.planner import Plan
from longwave.problem import Problem

# Filters of so many taps beside longer ones have gradients of their own accuracy.
FEW_TAPS = 8


@lru_cache(maxsize=1024)
def plan(problem: Problem) -> Plan:
    p = problem
    if p.segments is not None:
        return _plan_of_documents(p)
    if direct.takes(p):
        return direct.plan(p)
    found = layout(p)
    N, windows, W, workers = found.at.N, found.windows, width(p), threads.width()
    arithmetic_name = dtypes.name(arithmetic(p))
    if found.is_long:
        product = " × ".join(f"{length:,}" for length in matrix_shape(N))
        algorithm = f"six_step, right-angle transforms of {product} in {arithmetic_name}, {W} lanes"
        together = launches.rows_at_once(strips.scratch(p, workers, backward=False)[0], N, workers, 2)
        in_flight = (together, together)
    else:
        product = "·".join(map(str, factors(N)))
        name = f"{windows:,} windows" if windows else "fused"
        algorithm = f"{name}, right-angle transforms of {product} in {arithmetic_name}, {W} lanes"
        in_flight = (min(p.batch, workers), min(p.channels, workers * W))
    if p.mask is not None:
        algorithm += f", {p.mask.fraction(N):.0%} of their frequencies"
    rows = N * max(1, windows)
    tiles = p.batch * p.channels / W if found.is_long else p.batch * -(-p.channels // W)
    filters = p.channels / W * (p.batch if p.per_sample else 1)
    transforms = 2 * p.batch * p.channels + p.groups * (p.batch if p.per_sample else 1)
    return Plan(
        backend="cpu",
        algorithm=algorithm,
        N=N,
        samples_in_flight=in_flight[0],
        channels_in_flight=in_flight[1],
        scratch_bytes=_forward_bytes(p, found, workers),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes(p) + _backward_bytes(p, found, workers),
        flop=5 * transforms * rows * math.log2(max(2, N)),
        predicted_ms=1e3 * seconds(N, 2 * tiles + filters) * rows / N / workers,
        predicted_for=f"{workers} threads of an {MACHINE}",
        problem=p,
    )


def _plan_of_documents(p: Problem) -> Plan:
    """One document after the other; their programs are kept, for as many lengths as `layout` keeps."""
    found = documents(p)
    plans = [plan(document.problem) for document in found] or [plan(replace(p, segments=None))]
    largest = max(plans, key=lambda one: one.bytes)
    return replace(
        largest,
        scratch_bytes=max(one.scratch_bytes for one in plans),
        result_bytes=p.batch * p.channels * p.out_len * dtypes.named(p.dtype).itemsize,
        backward_bytes=gradient_bytes(p) + max(one.backward_bytes - gradient_bytes(one.problem) for one in plans),
        flop=sum(one.flop for one in plans),
        predicted_ms=sum(one.predicted_ms or 0.0 for one in plans),
        problem=p,
    )


def _forward_bytes(p: Problem, found: Layout, workers: int) -> int:
    """What a forward allocates beside its result."""
    taps = math.prod(filter_shape(p)) * dtypes.named(p.filter_dtype).itemsize * p.reverse
    if found.period:
        taps += 2 * math.prod(filter_shape(p)) // p.taps * found.period * arithmetic(p).itemsize
    if found.is_long:
        of_strip, rows = strips.scratch(p, workers, backward=False)
        dealt, matrices = launches.long_dealt(of_strip, found.at.N, workers, 2, False)
        return taps + rows + dealt.bytes + matrices
    tilings = launches.forward_tilings(p, found, workers, p.channels_last)
    return taps + max(tiling.dealt.bytes for tiling in tilings)


def _backward_bytes(p: Problem, found: Layout, workers: int) -> int:
    """What a backward allocates beside the gradients, all of which are wanted."""
    back = found.backward or found
    sums = (p.batch if p.per_sample else 1) * p.channels * found.taps * arithmetic(p).itemsize * (1 + bool(found.filter_again))
    if found.is_long:
        of_strip, rows = strips.scratch(p, workers, backward=True)
        dealt, matrices = launches.long_dealt(of_strip, found.at.N, workers, 4, True)
        return sums + rows + dealt.bytes + matrices
    found_tilings, products = launches.backward_tilings(p, back, workers, p.channels_last, True)
    tilings = [tiling.dealt for tiling in found_tilings]
    if products:
        tilings.append(launches.sums_tiling(p, back).dealt)
    return sums + products + max(dealt.bytes for dealt in tilings)


def masks(problem: Problem) -> bool:
    """Whether a Problem's frequency mask is for the engine's own transforms. Periods have other frequencies: such filters are
    masked before they come here."""
    p = problem
    if p.circular:
        return False
    found = [layout(document.problem) for document in documents(p)]
    return bool(found) and not any(one.at.empty or (one.is_long and one.at.N % tables.GRAIN**2) for one in found)


def spectrum_tag(problem: Problem) -> str:
    """What the filters' spectra of `prepare` depend on, or "" where there are none: a direct sum has no spectrum, and documents
    and filters of one sample have too many."""
    p = problem
    if direct.takes(p) or p.segments is not None or p.per_sample or p.history:
        return ""
    found = layout(p)
    N = found.at.N
    if found.at.empty or (found.zero_row and p.skip) or (found.is_long and N % tables.GRAIN**2):
        return ""
    shape = matrix_shape(N) if found.is_long else factors(N)
    return f"cpu {N} {shape}{' in windows' if found.windows else ''} {dtypes.name(arithmetic(p))} × {width(p)}"


def is_ready(problem: Problem, spectrum: Tensor | None) -> bool:
    """Whether a call can use spectra of `prepare`, which are one a filter, in memory that is aligned to any vector."""
    return problem.groups == problem.channels and _is_ours(problem, spectrum)


def _is_ours(p: Problem, spectrum: Tensor | None) -> bool:
    """Whether `prepare` made this spectrum for a problem's filters, one for each of their groups."""
    if spectrum is None or spectrum.dtype != torch.uint8 or not spectrum.is_contiguous() or spectrum.data_ptr() % 64:
        return False
    return spectrum.numel() == _prepared_bytes(p)


@lru_cache(maxsize=1024)
def _prepared_bytes(p: Problem) -> int:
    """What `prepare` makes of a problem's filters, -1 where it makes no spectra."""
    if (p.circular and p.mask is not None) or spectrum_tag(p) == "":
        return -1
    return launches.spectra_bytes(replace(p, channels=p.groups), layout(p))


def _lifts(p: Problem, spectrum: Tensor | None) -> bool:
    """Whether D is added to spectra, not to the taps: where spectra were prepared, whether or not as many channels as filters
    can use them as they are. A row has the same bits in either case."""
    return p.skip and p.mask is None and _is_ours(p, spectrum)


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra, for calls to come with `spectrum`."""
    p = replace(problem, batch=1, skip=False, pregate=False, postgate=False, dtype=dtypes.name(arithmetic(problem)))
    if not spectrum_tag(p):
        return None
    _check_mask(p)
    found = layout(p)
    k = taps.folded(p, found.period, taps.ordered(p, k))
    lists = {words.TAPS: _filter_moves(p, found, form(k), None)}
    spectra = pages.with_large_pages(torch.empty(launches.spectra_bytes(p, found), dtype=torch.uint8, device="cpu"))
    launch = launches.spectra_launch(p, found, threads.width(), lists)
    launch.run((None, k, *[None] * (launches.SPECTRA - 2), spectra, None))
    return spectra


def forward(
    problem: Problem,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None = None,
) -> Tensor:
    p = problem
    _check_mask(p)
    y = empty(p, p.out_len, u)
    found = documents(p)
    if not cover(p, found):
        y.zero_()
    for alone, inputs, outputs in found:
        past = history if alone.history else None
        tensors = (_cut(y, outputs), _cut(u, inputs), k, D, _cut(pregate, inputs), _cut(postgate, outputs), past)
        if direct.takes(alone):
            direct.convolve(alone, *tensors)
        else:
            _convolve(alone, *tensors, spectrum)
    return y


def _check_mask(p: Problem) -> None:
    """Raises ArgumentError where the mask keeps nothing of the whole row; a short document among others may well vanish."""
    if p.mask is not None and p.segments is None:
        kept.check_some(p.mask, layout(p).at.N)


def _convolve(
    p: Problem,
    y: Tensor,
    u: Tensor,
    k: Tensor,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None,
) -> None:
    ready, lifts, found = is_ready(p, spectrum), _lifts(p, spectrum), layout(p)
    if _connects_nothing(p, found):
        if D is None:
            y.zero_()
        else:
            direct.convolve(_one_tap(p), y, u, D.unsqueeze(-1), None, pregate, postgate, None)
        return
    filters, spectra = (None, spectrum) if ready else (taps.folded(p, found.period, taps.ordered(p, k)), None)
    places = (u, filters, D, pregate, postgate, history, y)
    for part, tensors in strips.parts(p, found, (*places, *[None] * (launches.SPECTRA - len(places)), spectra, None)):
        launch = _forward_launch(part, threads.width(), ready, lifts, *map(form, tensors[: launches.DY]))
        launch.run(tensors)


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
    spectrum: Tensor | None = None,
) -> list[Tensor]:
    p = problem
    need_u, need_k, need_D, need_pregate, need_postgate, need_history = needs
    wide = arithmetic(p)
    du = empty(p, p.in_len - p.history, u) if need_u else None
    dpregate = empty(p, p.in_len - p.history, u) if need_pregate else None
    dpostgate = empty(p, p.out_len, u) if need_postgate else None
    dhistory = empty(p, p.history, history) if need_history and history is not None else None
    dk = u.new_zeros(filter_shape(p), dtype=wide) if need_k else None
    dD = u.new_zeros(p.channels, dtype=wide) if need_D and D is not None else None
    found = documents(p)
    if not cover(p, found):
        for grad in (du, dpregate, dpostgate):
            if grad is not None:
                grad.zero_()
    if dhistory is not None and not any(document.problem.history for document in found):
        dhistory.zero_()
    if dD is not None and not (p.segments is None and direct.takes(p)):
        _add_skip_gradient(p, dD, dy, u, pregate, postgate)
    for alone, inputs, outputs in found:
        past = history if alone.history else None
        by_sums = direct.takes(alone)
        into = Gradients(
            u=_cut(du, inputs), k=dk, D=dD if by_sums and p.segments is None else None, pregate=_cut(dpregate, inputs),
            postgate=_cut(dpostgate, outputs), history=None if past is None else dhistory,
        )  # fmt: skip
        tensors = (_cut(dy, outputs), _cut(u, inputs), k, D, _cut(pregate, inputs), _cut(postgate, outputs), past)
        if by_sums:
            direct.differentiate(alone, into, *tensors)
        else:
            _differentiate(alone, into, *tensors, spectrum)
    if dk is not None and p.rev_taps:
        _sum_few_taps(p, dk, dy, u, pregate, postgate, history)
    dk = None if dk is None else dk.to(dtypes.named(p.filter_dtype))
    dD = None if dD is None or D is None else dD.to(D.dtype)
    return [grad for grad in (du, dk, dD, dpregate, dpostgate, dhistory) if grad is not None]


def _differentiate(
    p: Problem,
    into: Gradients,
    dy: Tensor,
    u: Tensor,
    k: Tensor | None,
    D: Tensor | None,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
    spectrum: Tensor | None,
) -> None:
    ready, lifts, found = is_ready(p, spectrum), _lifts(p, spectrum), layout(p)
    if _connects_nothing(p, found):
        nothing = (into.u, into.pregate, into.postgate, into.history) if D is None else (into.history,)
        for grad in nothing:
            if grad is not None:
                grad.zero_()
        if D is not None:
            of_D = into._replace(k=None, history=None)
            direct.differentiate(_one_tap(p), of_D, dy, u, D.unsqueeze(-1), None, pregate, postgate, None)
        return
    # The second sum is that of a circular convolution's second copy of the taps.
    count = (1 + bool(found.filter_again)) * (into.k is not None)
    sums = [u.new_empty(p.batch if p.per_sample else 1, p.channels, found.taps, dtype=arithmetic(p)) for _ in range(count)]
    filters = None if k is None or ready else taps.folded(p, found.period, taps.ordered(p, k))
    places = (
        u, filters, D, pregate, postgate, history, None, dy, into.u, into.pregate, into.postgate, into.history,
        *(total if p.per_sample else total[0] for total in sums), *[None] * (2 - count),
    )  # fmt: skip
    for part, tensors in strips.parts(p, found, (*places, spectrum if ready else None, None)):
        launch = _backward_launch(part, threads.width(), ready, lifts, *map(form, tensors[: launches.SPECTRA]))
        launch.run(tensors)
    if into.k is not None:
        if found.filter_again:
            sums[0][..., 1:] += sums[1][..., 1:]
        taps.add_gradient(p, found.period, found.first_tap, into.k, sums[0])


def _connects_nothing(p: Problem, found: Layout) -> bool:
    """Whether no tap that is kept connects any input with any output."""
    return found.at.empty or (p.mask is not None and not kept.any_of(p.mask, found.at.N))


def _add_skip_gradient(p: Problem, dD: Tensor, dy: Tensor, u: Tensor, pregate: Tensor | None, postgate: Tensor | None) -> None:
    """That of D as one direct sum: as a lag among the filter's, small beside them, it would have their rounding errors."""
    only_D = Gradients(None, None, dD, None, None, None)
    direct.differentiate(_one_tap(p), only_D, dy, u, None, None, pregate, postgate, None)


def _one_tap(p: Problem) -> Problem:
    """What D does, as a filter of every channel; with no other."""
    return replace(
        p, taps=1, lag0=0, reverse=False, circular=False, groups=p.channels, per_sample=False, history=0, segments=None,
        in_start=p.in_start + p.history, in_len=p.in_len - p.history, mask=None,
    )  # fmt: skip


def _sum_few_taps(
    p: Problem,
    dk: Tensor,
    dy: Tensor,
    u: Tensor,
    pregate: Tensor | None,
    postgate: Tensor | None,
    history: Tensor | None,
) -> None:
    """The gradient of a filter of few taps beside another one, as direct sums: spectra of both have rounding errors of the size
    of a whole row's gradient at every lag, and few of them may be anything beside theirs."""
    found = documents(p)
    if p.mask is not None or all(direct.takes(document.problem) for document in found):
        return
    for first, count in {(0, p.rev_taps), (p.rev_taps - 1, p.taps - p.rev_taps + 1)}:
        if count > FEW_TAPS:
            continue
        total = dk[..., first : first + count].zero_()
        part = torch.zeros_like(total, memory_format=torch.contiguous_format)
        only_k = Gradients(None, part, None, None, None, None)
        for alone, inputs, outputs in found:
            tensors = (_cut(dy, outputs), _cut(u, inputs), None, None, _cut(pregate, inputs), _cut(postgate, outputs))
            low, L = alone.lag0 + first, alone.in_len
            # With a period, a tap has every lag that it is congruent to and that connects two samples.
            turns = range(-((L - 1 + low + count - 1) // L), (L - 1 - low) // L + 1) if alone.circular else range(1)
            for turn in turns:
                taps = replace(alone, taps=count, lag0=low + turn * L, circular=False, skip=False)
                direct.differentiate(taps, only_k, *tensors, history if alone.history else None)
        total += part


# Launches: everything that is decided before a kernel runs, kept for tensors of the same strides.


@lru_cache(maxsize=1024)
def _forward_launch(
    p: Problem,
    workers: int,
    ready: bool,
    lifts: bool,
    u: Form,
    k: Form | None,
    D: Form | None,
    pregate: Form | None,
    postgate: Form | None,
    history: Form | None,
    y: Form,
) -> Launch:
    found = layout(p)
    moves = found.windows > 0
    source, past, before = view(U, u, moves=moves), _maybe(HISTORY, history, moves), _maybe(PREGATE, pregate, moves)
    of_D, _ = _beside_a_mask(p, found, D, (source, before))
    lists = {
        words.TAPS: _filter_moves(p, found, k, None if lifts else D),
        words.LIFT: [_at_lag_0(found, D)] if lifts and D is not None else [],
        words.INPUT: _input_moves(found, source, before, past),
        words.OUTPUT: [*of_D, Move(view(Y, y, moves=moves), _maybe(POSTGATE, postgate, moves), found.result)],
    }
    if found.is_long:
        script = (*launches.filter_script(lists, ready), *CONVOLVE)
        return launches.long_rows(p, found, workers, lists, script, 2, ready=ready)
    return launches.forward_tiles(p, found, workers, lists, _neighbours(u), source, ready)


@lru_cache(maxsize=1024)
def _backward_launch(
    p: Problem,
    workers: int,
    ready: bool,
    lifts: bool,
    u: Form,
    k: Form | None,
    D: Form | None,
    pregate: Form | None,
    postgate: Form | None,
    history: Form | None,
    _y: None,
    dy: Form,
    du: Form | None,
    dpregate: Form | None,
    dpostgate: Form | None,
    dhistory: Form | None,
    dk: Form | None,
    dk_again: Form | None,
) -> Launch:
    found = layout(p)
    moves, back = found.windows > 0, found.backward or found
    source, gradient = view(U, u, moves=moves), view(DY, dy, moves=moves)
    before, after = _maybe(PREGATE, pregate, moves), _maybe(POSTGATE, postgate, moves)
    past = _maybe(HISTORY, history, moves)
    filters: launches.Lists = {
        words.TAPS: _filter_moves(p, found, k, None if lifts else D) if ready or k is not None else [],
        words.LIFT: [_at_lag_0(found, D)] if lifts and D is not None else [],
    }
    lists = {
        **filters,
        words.INPUT: _input_moves(back, source, before, past),
        words.DZ: [Move(gradient, after, back.result)],
        words.DX: [],
        words.DPOSTGATE: [],
        words.DK: [],
    }
    of_D, of_D_back = _beside_a_mask(p, found, D, (source, before), (gradient, after))
    if du is not None or dpregate is not None:
        lists[words.DX] += of_D_back
    if du is not None:
        lists[words.DX].append(Move(view(DU, du, moves=moves), before, back.source))
    if dpregate is not None:
        lists[words.DX].append(Move(view(DPREGATE, dpregate, moves=moves), source, back.source))
    if dhistory is not None:
        lists[words.DX].append(Move(view(DHISTORY, dhistory, moves=moves), None, back.past))
    of_postgate = []
    if dpostgate is not None:
        of_postgate = [*of_D, Move(view(DPOSTGATE, dpostgate, moves=moves), gradient, found.result)]
        lists[words.DPOSTGATE] = [] if moves else of_postgate
    for slot, form_, segments in ((DK, dk, found.filter), (DK_AGAIN, dk_again, found.filter_again)):
        if form_ is not None and segments:
            lists[words.DK].append(Move(view(slot, form_), None, segments))
    if found.is_long:
        script = launches.backward_script(lists, ready)
        return launches.long_rows(p, found, workers, lists, script, 4, dk is not None, ready)
    if not moves:
        return launches.backward_tiles(p, found, workers, lists, _neighbours(u), dk is not None, ready)
    parts: list[Launch] = []
    if lists[words.DX] or lists[words.DK]:
        parts.append(launches.backward_tiles(p, back, workers, lists, _neighbours(u), dk is not None, ready))
    if of_postgate:  # its windows are those of the convolution itself
        lists = {**filters, words.INPUT: _input_moves(found, source, before, past), words.OUTPUT: of_postgate}
        parts.append(launches.forward_tiles(p, found, workers, lists, _neighbours(u), ready=ready))
    return Several(tuple(parts))


def _neighbours(u: Form) -> bool:
    _dtype, (*_, h, t) = u
    return h == 1 and t != 1


def _maybe(slot: int, form: Form | None, moves: bool = False) -> View | None:
    return None if form is None else view(slot, form, moves=moves)


def _input_moves(found: Layout, u: View, pregate: View | None, history: View | None) -> list[Move]:
    moves = [Move(u, pregate, found.source)]
    return moves if history is None or not found.past else [*moves, Move(history, None, found.past)]


def _filter_moves(p: Problem, found: Layout, k: Form | None, D: Form | None) -> list[Move]:
    """The taps at their lags, unless their spectra are ready, and without a mask D as one more tap at lag 0."""
    moves = []
    if k is not None:
        taps = view(K, k, found.first_tap, p.channels // p.groups)
        moves += [Move(taps, None, segments) for segments in (found.filter, found.filter_again) if segments]
    if D is not None and p.mask is None:
        moves.append(_at_lag_0(found, D))
    return moves


def _at_lag_0(found: Layout, D: Form) -> Move:
    return Move(view(SKIP, D), None, [found.zero_lag], add=True)


def _beside_a_mask(
    p: Problem, found: Layout, D: Form | None, v: tuple[View, View | None], dz: tuple[View, View | None] | None = None
) -> tuple[list[Move], list[Move]]:
    """What D adds to results, and to the gradients of inputs, where a mask leaves frequencies out: D reaches them all."""
    if p.mask is None or D is None:
        return [], []
    scale = view(SKIP, D)
    results, inputs = beside(p, found)
    added = [Move(*v, results, add=True, scale=scale)]
    return added, [] if dz is None else [Move(*dz, inputs, add=True, scale=scale)]


def _cut(x: Any, samples: slice) -> Any:
    return x if x is None or samples.stop - samples.start == x.shape[-1] else x[..., samples]
