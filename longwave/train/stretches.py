"""Windows of a long sequence of tokens, in which the next one is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from longwave.data.codes import Codes
from longwave.data.dna import Starts, documents
from longwave.errors import ArgumentError
from longwave.train.score import POSITIONS_AT_A_TIME
from longwave.train.task import IGNORE, Batch


def shifted(tokens: Tensor, cu_seqlens: Tensor | None = None, *, unknown: int | None = None) -> Batch:
    """Windows (B, L + 1) of uint8 as inputs, and one place on as targets; those that are `unknown` are not asked for."""
    targets = tokens[:, 1:].long()
    if unknown is not None:
        targets.masked_fill_(targets == unknown, IGNORE)
    return Batch(tokens[:, :-1], targets, cu_seqlens)


def consecutive(
    codes: Codes, context: int, *, start: int, overlap: int = 0, records: Starts | None = None, unknown: int | None = None
) -> Iterator[Batch]:
    """Every token of `codes` as a target once, from the ones before it: how next tokens are scored.

    The input before the first token is `start`. A window begins `context - overlap` tokens after the one before it, and only
    tokens that no earlier window asked for are asked for in it: with overlap, all but the first tokens see at least `overlap`
    before them.

    Args:
        codes: (n,) uint8.
        context: inputs of a window, at least 1.
        start: the token before the first one.
        overlap: 0 to `context` - 1 tokens; half the context costs twice the time of none.
        records: (m,) ascending indices of `codes` at which a record begins with a token of its own that stands before it;
            no record sees another.
        unknown: a token that is never asked for.

    Returns:
        Batches of windows of `context` inputs, or of fewer in the last one.

    Raises:
        ArgumentError: an overlap that is negative or leaves a window nothing new.
    """
    if not 0 <= overlap < context:
        raise ArgumentError(f"the overlap must be between 0 and {context - 1:,} (the context - 1), but {overlap:,} was given")
    # As inputs, all codes stand one place later than as targets.
    begins = np.zeros(0, dtype=np.int64) if records is None else records + 1
    inputs = np.concatenate([np.array([start], dtype=np.uint8), codes[:-1]])
    asked = codes.astype(np.int64)
    if unknown is not None:
        asked[codes == unknown] = IGNORE
    at_a_time = max(POSITIONS_AT_A_TIME // context, 1)
    rows: list[int] = []
    targets: list[np.ndarray] = []

    def batch() -> Batch:
        length = len(targets[0])
        stacked = torch.from_numpy(np.stack([inputs[row : row + length] for row in rows]))
        return Batch(stacked, torch.from_numpy(np.stack(targets)), documents(rows, length, begins))

    scored = 0  # tokens that an earlier window has asked for
    for first in range(0, max(len(codes) - overlap, 1), context - overlap):
        window = asked[first : first + context].copy()
        window[: scored - first] = IGNORE
        scored = first + len(window)
        if rows and len(window) < context:  # the last window, shorter: it cannot be stacked with the others
            yield batch()
            rows, targets = [], []
        rows.append(first)
        targets.append(window)
        if len(rows) == at_a_time:
            yield batch()
            rows, targets = [], []
    if rows:
        yield batch()
