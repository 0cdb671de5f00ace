"""Heads: what makes answers of hidden states, where it is not the model's own next-token head."""

from __future__ import annotations

from torch import Tensor, nn

from longwave.errors import ArgumentError
from longwave.models import SequenceModel
from longwave.train.task import Classes

POOLS = ("positions", "mean", "last")


class Classifier(nn.Module):
    """A `SequenceModel` under a linear head of classes.

    Args:
        body: the model; its config says `d_model`.
        classes: how many, and at each position or for the whole sequence.

    Raises:
        ArgumentError: an unknown pool, or fewer than 2 classes.
    """

    def __init__(self, body: SequenceModel, classes: Classes) -> None:
        super().__init__()
        if classes.pool not in POOLS or classes.count < 2:
            raise ArgumentError(
                f"a head has at least 2 classes and a pool of {', '.join(POOLS)}, but "
                f"{classes.count} and {classes.pool!r} were given"
            )
        self.body, self.pool = body, classes.pool
        self.head = nn.Linear(body.config.d_model, classes.count)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def head_bias(self) -> Tensor:
        """(classes,): added to the logits that `head_weight` gives."""
        return self.head.bias

    def head_weight(self) -> Tensor:
        """(classes, d_model)."""
        return self.head.weight

    def forward(self, inputs: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """What the head looks at: (B, L, d_model), or (B, d_model) for one answer a sequence.

        Raises:
            ArgumentError: the inputs are not what the body reads, or documents are packed and answers are one a sequence.
        """
        if cu_seqlens is None:
            hidden = self.body(inputs)
        elif self.pool == "positions":
            hidden = self.body(inputs, cu_seqlens=cu_seqlens)
        else:
            raise ArgumentError("one answer a sequence cannot be given of packed documents; give one document a row")
        if self.pool == "mean":
            return hidden.mean(dim=1, dtype=self.head.weight.dtype)  # not of 16 bits
        return hidden[:, -1] if self.pool == "last" else hidden


Trained = SequenceModel | Classifier


def body_of(model: Trained) -> SequenceModel:
    """The model under the head."""
    return model.body if isinstance(model, Classifier) else model


def with_head(model: SequenceModel, classes: Classes | None) -> Trained:
    """The model itself where `classes` is None."""
    return model if classes is None else Classifier(model, classes)
