"""Cross entropy over long sequences without ever holding the logits of all positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from longwave.errors import ArgumentError


def _chunk_nats(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, ignore_index: int) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):  # float32 whatever the model ran in
        logits = F.linear(hidden.to(weight.dtype), weight, bias)
        return F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="sum")


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, ignore_index: int, chunk: int = 65_536
) -> tuple[Tensor, Tensor]:
    """Sum of -ln p(target) over positions, `chunk` positions at a time; the logits of a chunk live only while it is
    computed.

    Args:
        hidden: (..., d), any floating dtype.
        weight: (V, d), float32 or float64: the head's rows; log-softmax runs in its dtype.
        targets: (...), int64, 0 to V - 1, or `ignore_index` where nothing is to be predicted.
        bias: (V,), added to the logits; none without it.
        ignore_index: the target that does not count.
        chunk: positions at a time, at least 1; memory is chunk · V values.

    Returns:
        The summed loss in nats, a scalar in `weight`'s dtype, and the number of positions that count, an int64 scalar.
        Divide the one by the other for the mean; over several devices, sum both first.

    Raises:
        ArgumentError: the shapes do not fit, or `chunk` is below 1.
    """
    if hidden.shape[:-1] != targets.shape or hidden.shape[-1] != weight.shape[-1]:
        raise ArgumentError(
            "chunked_cross_entropy needs hidden (..., d), weight (V, d) and targets (...), "
            f"but got {tuple(hidden.shape)}, {tuple(weight.shape)} and {tuple(targets.shape)}"
        )
    if chunk < 1:
        raise ArgumentError(f"chunked_cross_entropy needs chunk >= 1, but got {chunk}")
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    total = weight.new_zeros(())
    for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if torch.is_grad_enabled():
            # Nothing in a chunk is random, so there is no generator to save and restore.
            part = checkpoint(_chunk_nats, h, weight, bias, t, ignore_index, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _chunk_nats(h, weight, bias, t, ignore_index)
        total = total + part
    return total, (targets != ignore_index).sum()
