"""Calls: from a Problem and the forms of its tensors to launches, which are kept for tensors of the same strides."""

from __future__ import annotations

from functools import lru_cache

from longwave.backends.cpu import long_rows, tilings, words
from longwave.backends.cpu.launches import (
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
    Lists,
    Several,
    U,
    Y,
)
from longwave.backends.cpu.layouts import Layout, beside, layout
from longwave.backends.cpu.program import Form, Move, View, view
from longwave.problem import Problem


@lru_cache(maxsize=1024)
def forward_launch(
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
        words.TAPS: filter_moves(p, found, k, None if lifts else D),
        words.LIFT: [_at_lag_0(found, D)] if lifts and D is not None else [],
        words.INPUT: _input_moves(found, source, before, past),
        words.OUTPUT: [*of_D, Move(view(Y, y, moves=moves), _maybe(POSTGATE, postgate, moves), found.result)],
    }
    if found.is_long:
        script = (*long_rows.filter_script(lists, ready), *long_rows.CONVOLVE)
        return long_rows.long_rows(p, found, workers, lists, script, 2, ready=ready)
    return tilings.forward_tiles(p, found, workers, lists, _neighbours(u), source, ready)


@lru_cache(maxsize=1024)
def backward_launch(
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
    filters: Lists = {
        words.TAPS: filter_moves(p, found, k, None if lifts else D) if ready or k is not None else [],
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
        script = long_rows.backward_script(lists, ready)
        return long_rows.long_rows(p, found, workers, lists, script, 4, dk is not None, ready)
    if not moves:
        return tilings.backward_tiles(p, found, workers, lists, _neighbours(u), dk is not None, ready)
    parts: list[Launch] = []
    if lists[words.DX] or lists[words.DK]:
        parts.append(tilings.backward_tiles(p, back, workers, lists, _neighbours(u), dk is not None, ready))
    if of_postgate:  # its windows are those of the convolution itself
        lists = {**filters, words.INPUT: _input_moves(found, source, before, past), words.OUTPUT: of_postgate}
        parts.append(tilings.forward_tiles(p, found, workers, lists, _neighbours(u), ready=ready))
    return Several(tuple(parts))


def _neighbours(u: Form) -> bool:
    _dtype, (*_, h, t) = u
    return h == 1 and t != 1


def _maybe(slot: int, form: Form | None, moves: bool = False) -> View | None:
    return None if form is None else view(slot, form, moves=moves)


def _input_moves(found: Layout, u: View, pregate: View | None, history: View | None) -> list[Move]:
    moves = [Move(u, pregate, found.source)]
    return moves if history is None or not found.past else [*moves, Move(history, None, found.past)]


def filter_moves(p: Problem, found: Layout, k: Form | None, D: Form | None) -> list[Move]:
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
