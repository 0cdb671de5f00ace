"""Bits per base of a model on DNA: what training, its end and `longwave eval` all report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from longwave.data.codes import UNKNOWN, Codes
from longwave.data.dna import Starts, documents
from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.nn import chunked_cross_entropy

POSITIONS_AT_A_TIME = 65_536


@dataclass(frozen=True)
class Score:
    """`bases` known bases were predicted at a cost of `bits` bits in all."""

    bases: int
    bits: float

    @property
    def bits_per_base(self) -> float:
        """The mean cost of a base; NaN where there was none to predict."""
        return self.bits / self.bases if self.bases else math.nan

    def __add__(self, other: Score) -> Score:
        return Score(self.bases + other.bases, self.bits + other.bits)


def loss_nats(
    model: SequenceModel, inputs: Tensor, targets: Tensor, cu_seqlens: Tensor | None = None, *, autocast: bool
) -> tuple[Tensor, Tensor]:
    """Summed loss of a batch, and how many targets count.

    Args:
        model: tokens (B, L) to hidden states, with `head_weight()`.
        inputs, targets: (B, L), integers 0 to 4 on the model's device; the target N does not count.
        cu_seqlens: (S + 1,) int32: the rows, one after the other, hold documents that do not see each other, as
            `longwave.data.dna.documents` gives them.
        autocast: whether the model runs in bfloat16; the loss never does.

    Returns:
        The loss in nats and the number of targets, scalars.
    """
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=autocast):
        if cu_seqlens is None:
            hidden = model(inputs.long())
        else:
            hidden = model(inputs.long().reshape(1, -1), cu_seqlens=cu_seqlens).view(*inputs.shape, -1)
    return chunked_cross_entropy(hidden, model.head_weight(), targets.long(), ignore_index=UNKNOWN)


@torch.no_grad()
def score(
    model: SequenceModel,
    codes: Codes,
    context: int,
    *,
    overlap: int = 0,
    records: Starts | None = None,
    device: torch.device,
    autocast: bool = False,
) -> Score:
    """Cost of every known base of `codes` under `model`, in windows of `context` inputs.

    The input before the first base is an N. A window begins `context - overlap` bases after the one before it, and only
    bases that no earlier window predicted are scored in it: with overlap, all but the first bases see at least
    `overlap` before them.

    Args:
        model: as in `loss_nats`, on `device`; its mode (train or eval) is left alone.
        codes: (n,) uint8, 0 to 4 = A C G T N.
        context: inputs of a window, at least 1.
        overlap: 0 to `context` - 1 bases; half the context costs twice the time of none.
        records: (m,) ascending indices of `codes` at which a record begins with an N; no record sees another.
        device: where the model is.
        autocast: whether it runs in bfloat16.

    Raises:
        ArgumentError: an overlap that is negative or leaves a window nothing new.
    """
    total = Score(0, 0.0)
    # As inputs, all codes stand one place later than as targets.
    begins = np.zeros(0, dtype=np.int64) if records is None else records + 1
    for rows, batch in _batches(codes, context, overlap):
        inputs, targets = batch.to(device).unbind(1)
        cu_seqlens = documents(rows, inputs.shape[1], begins)
        nats, count = loss_nats(model, inputs, targets, cu_seqlens, autocast=autocast)
        total += Score(int(count), float(nats) / math.log(2))
    return total


def _batches(codes: Codes, context: int, overlap: int) -> Iterator[tuple[list[int], Tensor]]:
    """The index of every row's first input, and (B, 2, T) inputs and targets; T is `context`, or less in the last batch."""
    if not 0 <= overlap < context:
        raise ArgumentError(f"the overlap must be between 0 and {context - 1:,} (the context - 1), but {overlap:,} was given")
    inputs = np.concatenate([np.array([UNKNOWN], dtype=np.uint8), codes[:-1]])
    at_a_time = max(POSITIONS_AT_A_TIME // context, 1)
    rows: list[int] = []
    batch: list[Codes] = []
    scored = 0  # bases that an earlier window has predicted
    for start in range(0, max(len(codes) - overlap, 1), context - overlap):
        targets = codes[start : start + context].copy()
        targets[: scored - start] = UNKNOWN
        scored = start + len(targets)
        if batch and len(targets) < context:  # the last window, shorter: it cannot be stacked with the others
            yield rows, torch.from_numpy(np.stack(batch))
            rows, batch = [], []
        rows.append(start)
        batch.append(np.stack([inputs[start : start + context], targets]))
        if len(batch) == at_a_time:
            yield rows, torch.from_numpy(np.stack(batch))
            rows, batch = [], []
    if batch:
        yield rows, torch.from_numpy(np.stack(batch))
