"""Filters' spectra that are made once, for calls to come: when there are any, when a call can use them, and making them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from longwave import dtypes, taps
from longwave.backends.cpu import calls, direct, kept, launches, long_rows, pages, tables, threads, tilings, words
from longwave.backends.cpu.layouts import Layout, layout
from longwave.backends.cpu.program import form
from longwave.backends.cpu.results import arithmetic, width
from longwave.backends.cpu.tables import factors, matrix_shape
from longwave.problem import Problem


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
    return _spectra_bytes(replace(p, channels=p.groups), layout(p))


def lifts(p: Problem, spectrum: Tensor | None) -> bool:
    """Whether D is added to spectra, not to the taps: where spectra were prepared, whether or not as many channels as filters
    can use them as they are. A row has the same bits in either case."""
    return p.skip and p.mask is None and _is_ours(p, spectrum)


def prepare(problem: Problem, k: Tensor) -> Tensor | None:
    """The filters' spectra, for calls to come with `spectrum`."""
    p = replace(problem, batch=1, skip=False, pregate=False, postgate=False, dtype=dtypes.name(arithmetic(problem)))
    if not spectrum_tag(p):
        return None
    kept.check(p)
    found = layout(p)
    k = taps.folded(p, found.period, taps.ordered(p, k))
    lists = {words.TAPS: calls.filter_moves(p, found, form(k), None)}
    spectra = pages.with_large_pages(torch.empty(_spectra_bytes(p, found), dtype=torch.uint8, device="cpu"))
    if found.is_long:
        launch = long_rows.long_rows(p, found, threads.width(), lists, long_rows.TRANSFORM_FILTER, 1, makes=True)
    else:
        launch = tilings.spectra_tiles(p, found, lists)
    launch.run((None, k, *[None] * (launches.SPECTRA - 2), spectra, None))
    return spectra


def _spectra_bytes(p: Problem, found: Layout) -> int:
    if found.is_long:
        return p.channels * long_rows.matrix_bytes(p, found.at.N)
    return tilings.spectra_bytes(p, found)
