"""The loss of a batch, and the score of many: what training, its end and the commands behind it all report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from longwave.nn import chunked_cross_entropy
from longwave.train.heads import Classifier, Trained, body_of
from longwave.train.task import IGNORE, Batch, Score

POSITIONS_AT_A_TIME = 65_536


def features(model: Trained, batch: Batch, *, autocast: bool) -> Tensor:
    """What the head looks at: (B, L, d), or (B, d) where one answer a sequence is given.

    Args:
        model: on the device of the batch.
        autocast: whether it runs in bfloat16.
    """
    inputs = batch.inputs if batch.inputs.is_floating_point() else batch.inputs.long()
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=autocast):
        if batch.cu_seqlens is None:
            return model(inputs)
        packed = model(inputs.reshape(1, -1, *inputs.shape[2:]), cu_seqlens=batch.cu_seqlens)
        return packed.view(*inputs.shape[:2], -1)


def loss_nats(model: Trained, batch: Batch, *, autocast: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss of a batch, how many targets count, and the features that were judged.

    Args:
        model: on the device of the batch.
        autocast: whether the model runs in bfloat16; the loss never does.

    Returns:
        The loss in nats and the number of targets, scalars; and `features`.
    """
    hidden = features(model, batch, autocast=autocast)
    nats, count = chunked_cross_entropy(
        hidden, model.head_weight(), batch.targets.long(), bias=_bias(model), ignore_index=IGNORE
    )
    return nats, count, hidden


@torch.no_grad()
def right_answers(model: Trained, hidden: Tensor, targets: Tensor) -> Tensor:
    """How many of the targets that count are the likeliest answers: an int64 scalar."""
    weight, bias = model.head_weight(), _bias(model)
    right = torch.zeros((), dtype=torch.int64, device=targets.device)
    pairs = zip(
        hidden.reshape(-1, hidden.shape[-1]).split(POSITIONS_AT_A_TIME),
        targets.reshape(-1).split(POSITIONS_AT_A_TIME),
        strict=True,
    )
    for h, t in pairs:  # an ignored target is no class
        right += (F.linear(h.to(weight.dtype), weight, bias).argmax(dim=-1) == t).sum()
    return right


@torch.no_grad()
def score(model: Trained, batches: Iterable[Batch], *, device: torch.device, autocast: bool = False) -> Score:
    """The cost and the right answers of everything asked in `batches`.

    Args:
        model: on `device`; its mode (train or eval) is left alone.
        batches: on the CPU.
        device: where the model is.
        autocast: whether it runs in bfloat16.
    """
    total, places = Score(0, 0.0), body_of(model).places
    for batch in itertools.chain.from_iterable(_at_a_time(batch, places) for batch in batches):
        batch = on_device(batch, device)
        nats, count, hidden = loss_nats(model, batch, autocast=autocast)
        total += Score(int(count), float(nats) / math.log(2), int(right_answers(model, hidden, batch.targets)))
    return total


def _at_a_time(batch: Batch, places: int) -> Iterator[Batch]:
    """The batch, in parts of at most POSITIONS_AT_A_TIME hidden states (one row at least): a model of frames has one for each
    place of a position, on a task of tokens too."""
    rows = max(POSITIONS_AT_A_TIME // (batch.inputs.shape[1] * places), 1)
    if places == 1 or batch.cu_seqlens is not None:
        yield batch
        return
    for inputs, targets in zip(batch.inputs.split(rows), batch.targets.split(rows), strict=True):
        yield batch._replace(inputs=inputs, targets=targets)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its inputs and targets there; the bounds of documents stay on the CPU."""
    return batch._replace(inputs=batch.inputs.to(device), targets=batch.targets.to(device))


def _bias(model: Trained) -> Tensor | None:
    return model.head_bias if isinstance(model, Classifier) else None
