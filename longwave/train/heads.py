"""Heads: what makes answers of hidden states, where it is not the model's own next-token head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.train.task import Classes

POOLS = ("positions", "mean", "last")
PLACE_FEATURES = 8
"""Of each of a position's places, made by a linear map where hidden states are not of places."""


class Classifier(nn.Module):
    """A `SequenceModel` under a linear head of classes.

    Args:
        body: the model; its config says `d_model`.
        classes: how many, and at each position, each of its places, or for the whole sequence.
        total: the sum over the processes that have spans of the same sequences; none without it.
        ends: whether this one's span is the last.

    Raises:
        ArgumentError: an unknown pool, several places where answers are not of positions, or fewer than 2 classes.
    """

    def __init__(
        self, body: SequenceModel, classes: Classes, *, total: Callable[[Tensor], Tensor] | None = None, ends: bool = True
    ) -> None:
        super().__init__()
        self.total, self.ends = total, ends
        if classes.pool not in POOLS or classes.count < 2:
            raise ArgumentError(
                f"a head has at least 2 classes and a pool of {', '.join(POOLS)}, but "
                f"{classes.count} and {classes.pool!r} were given"
            )
        if classes.places < 1 or (classes.places > 1 and classes.pool != "positions"):
            raise ArgumentError(
                f"several answers are given at positions only, but {classes.places} of the pool {classes.pool!r} were asked"
            )
        self.body, self.pool, self.places = body, classes.pool, classes.places
        spread = 1 < classes.places != body.places
        width = PLACE_FEATURES if spread else body.config.d_model // classes.places
        self.spread = nn.Linear(body.config.d_model, classes.places * width) if spread else None
        self.head = nn.Linear(width, classes.count)
        for linear in (self.head, self.spread):
            if linear is not None:
                nn.init.normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    @property
    def head_bias(self) -> Tensor:
        """(classes,): added to the logits that `head_weight` gives."""
        return self.head.bias

    def head_weight(self) -> Tensor:
        """(classes, d_model)."""
        return self.head.weight

    def forward(self, inputs: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """What the head looks at: (B, L, d_model), (B, L, places, features), or (B, d_model) for one answer a sequence.

        Raises:
            ArgumentError: the inputs are not what the body reads, or documents are packed and answers are one a sequence.
        """
        if cu_seqlens is None:
            hidden = self.body(inputs)
        elif self.pool == "positions":
            hidden = self.body(inputs, cu_seqlens=cu_seqlens)
        else:
            raise ArgumentError("one answer a sequence cannot be given of packed documents; give one document a row")
        if self.places > 1:
            return (hidden if self.spread is None else self.spread(hidden)).unflatten(-1, (self.places, -1))
        if self.pool == "positions":
            return hidden
        if self.total is not None:
            return self._pooled(hidden)
        return hidden.mean(dim=1, dtype=self.head.weight.dtype) if self.pool == "mean" else hidden[:, -1]  # not of 16 bits

    def _pooled(self, hidden: Tensor) -> Tensor:
        """(B, d_model) of a whole sequence, of which `hidden` is a span: the same on every process that has one."""
        total = cast(Callable[[Tensor], Tensor], self.total)
        if self.pool == "last":
            return total(hidden[:, -1] if self.ends else 0 * hidden[:, 0])
        length = total(torch.tensor(float(hidden.shape[1]), device=hidden.device))
        return total(hidden.sum(dim=1, dtype=self.head.weight.dtype)) / length


Trained = SequenceModel | Classifier


def body_of(model: Trained) -> SequenceModel:
    """The model under the head."""
    return model.body if isinstance(model, Classifier) else model


def with_head(model: SequenceModel, classes: Classes | None, **spans: Any) -> Trained:
    """The model itself where `classes` is None; `spans`: keywords of `Classifier`."""
    return model if classes is None else Classifier(model, classes, **spans)
