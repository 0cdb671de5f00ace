"""`Inputs`: what a model reads, as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longwave.errors import ArgumentError


def check_inputs(inputs: Tensor, vocabulary: int, values: int) -> None:
    """Hold inputs to tokens (B, L) where there is a vocabulary, else to numbers (B, L, values).

    Raises:
        ArgumentError: they are something else.
    """
    if vocabulary:
        if inputs.is_floating_point() or inputs.is_complex() or inputs.dtype == torch.bool or inputs.ndim != 2:
            raise ArgumentError(
                f"this model takes integer tokens (B, L), but got {inputs.dtype} {tuple(inputs.shape)}; "
                "a model with vocabulary=0 and values=... takes numbers"
            )
    elif not inputs.is_floating_point() or inputs.ndim != 3 or inputs.shape[-1] != values:
        raise ArgumentError(
            f"this model takes numbers (B, L, {values}), but got {inputs.dtype} {tuple(inputs.shape)}; "
            "a model with a vocabulary takes tokens"
        )


def check_kind(vocabulary: int, values: int) -> None:
    """Raises ArgumentError if both, or neither, of `vocabulary` and `values` are given."""
    if (vocabulary > 0) == (values > 0) or min(vocabulary, values) < 0:
        raise ArgumentError(
            f"a model reads tokens or numbers, but got a vocabulary of {vocabulary} and {values} values a position; "
            "make one of them 0"
        )


class Inputs(nn.Module):
    """Tokens, or numbers, to vectors of `d_model`.

    Tokens are rows of an embedding, `weight` (vocabulary, d_model); numbers go through a linear map, `weight` (d_model, values)
    and `bias` (d_model,).

    Args:
        d_model: channels of the result.
        vocabulary: tokens that can be read, or 0 where inputs are numbers.
        values: numbers a position, at least 1, where `vocabulary` is 0; 0 otherwise.

    Raises:
        ArgumentError: both, or neither, of `vocabulary` and `values` are given.
    """

    def __init__(self, d_model: int, *, vocabulary: int, values: int = 0) -> None:
        super().__init__()
        check_kind(vocabulary, values)
        self.vocabulary, self.values = vocabulary, values
        shape = (vocabulary, d_model) if vocabulary else (d_model, values)
        self.weight = nn.Parameter(torch.randn(shape) * 0.02 if vocabulary else torch.randn(shape) * values**-0.5)
        if values:
            self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, inputs: Tensor) -> Tensor:
        """Vectors, (B, L, d_model).

        Args:
            inputs: (B, L) integers from 0 to vocabulary - 1, or (B, L, values) floating point.

        Raises:
            ArgumentError: tokens where numbers are read or the other way round, another number of values, or on a CPU a token
                that the vocabulary does not have.
        """
        check_inputs(inputs, self.vocabulary, self.values)
        if self.vocabulary:
            try:
                return nn.functional.embedding(inputs, self.weight)
            except IndexError:  # a GPU looks up tokens later, and says so itself
                raise ArgumentError(
                    f"tokens are {int(inputs.min())} to {int(inputs.max())}, and this model reads 0 to {self.vocabulary - 1}; "
                    "encode the data with the model's own alphabet"
                ) from None
        return nn.functional.linear(inputs, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"vocabulary={self.vocabulary}" if self.vocabulary else f"values={self.values}"
