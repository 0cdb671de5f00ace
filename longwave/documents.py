"""Packed documents: each is a Problem of its own, that of the document alone, and so has its bits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from longwave.problem import Problem


class Document(NamedTuple):
    """Its Problem, with sample 0 where it begins, and where it is in the packed input (without history) and output."""

    problem: Problem
    inputs: slice
    outputs: slice


@lru_cache(maxsize=8)
def documents(p: Problem) -> tuple[Document, ...]:
    """Those that have inputs and outputs, shorter ones first: those of one transform share its tables and follow each other. Or
    the whole Problem as one. The first of the row owns what lies before 0."""
    if p.segments is None:
        return (Document(p, slice(0, p.in_len - p.history), slice(0, p.out_len)),)
    found: list[Document] = []
    same: dict[Problem, Problem] = {}
    for i, (a, b) in enumerate(itertools.pairwise(p.segments)):
        in_a, out_a, P = (p.in_start, p.out_start, p.history) if i == 0 else (a, a, 0)
        if b > in_a and b > out_a:
            alone = replace(
                p, segments=None, in_start=in_a - a, in_len=b - in_a, out_start=out_a - a, out_len=b - out_a, history=P
            )  # fmt: skip
            inputs = slice(in_a - p.in_start - p.history + P, b - p.in_start - p.history)
            found.append(Document(same.setdefault(alone, alone), inputs, slice(out_a - p.out_start, b - p.out_start)))
    return tuple(sorted(found, key=lambda document: (document.problem.in_len, document.problem.out_len)))


def cover(p: Problem, found: tuple[Document, ...]) -> bool:
    """Whether every sample of input and output is in one of the documents: not where the packed row has outputs before its
    inputs, or the other way round."""
    inputs, outputs = (
        (sum(s.stop - s.start for s in slices) for slices in zip(*(d[1:] for d in found), strict=True)) if found else (0, 0)
    )
    return (inputs, outputs) == (p.in_len - p.history, p.out_len)
