"""Markov models of any tokens, with the contexts that occurred alone: the classical baseline for text and music.

The formula is that of `markov`, with 1/V for tokens of V kinds below the shortest context. There counts are tables, which four
letters allow; here they are the sorted n-grams that were seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longwave.data.streams import Tokens
from longwave.errors import ArgumentError, DataError

MAX_ORDER = 7
"""A context and its token are one 64-bit number, at 8 bits each."""

PSEUDOCOUNTS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""What `fit_best` tries."""

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A fitted model.

    Attributes:
        vocabulary: kinds of tokens, V.
        order: the number k of tokens it looks back.
        pseudocount: the weight of the shorter contexts, in sightings.
        grams: for each order j = 0 … k the sorted n-grams of j + 1 tokens and how often each was seen.
    """

    vocabulary: int
    order: int
    pseudocount: float
    grams: tuple[tuple[Keys, Counts], ...]

    @classmethod
    def fit(cls, pieces: Sequence[Tokens], vocabulary: int, order: int, *, pseudocount: float = 4.0) -> NgramModel:
        """Count the n-grams of all orders up to `order`, none of which crosses two pieces.

        Args:
            pieces: (n,) uint8 each, values 0 … vocabulary - 1.
            vocabulary: 1 … 256.
            order: 0 … MAX_ORDER.
            pseudocount: > 0, finite.

        Raises:
            ArgumentError: a number is out of range.
            DataError: there is no token.
        """
        if not 1 <= vocabulary <= 256 or any(piece.size and int(piece.max()) >= vocabulary for piece in pieces):
            raise ArgumentError(f"tokens are below a vocabulary of at most 256 and {vocabulary} was given; give a larger one")
        if not 0 <= order <= MAX_ORDER:
            raise ArgumentError(f"the order of an n-gram model is 0 to {MAX_ORDER} and {order} was given")
        _check_pseudocount(pseudocount)
        if not any(piece.size for piece in pieces):
            raise DataError("there is no token to count; give more data")
        grams = tuple(
            np.unique(np.concatenate([_grams(piece, j) for piece in pieces]), return_counts=True) for j in range(order + 1)
        )
        return cls(vocabulary, order, float(pseudocount), grams)

    def bits_per_token(self, pieces: Sequence[Tokens]) -> float:
        """The mean of -log2 p over every token that has one before it, as in the held-out windows of `streams`.

        Raises:
            DataError: there is no such token.
        """
        return float(_bits(self.vocabulary, self.grams, pieces, (self.pseudocount,))[self.order, 0])


def fit_best(
    train: Sequence[Tokens],
    validation: Sequence[Tokens],
    vocabulary: int,
    orders: Sequence[int] = range(MAX_ORDER + 1),
    pseudocounts: Sequence[float] = PSEUDOCOUNTS,
) -> NgramModel:
    """Fit on `train`; take the order and the pseudocount that cost the fewest bits on `validation`, of equals the earlier.

    Raises:
        ArgumentError: nothing to try, or a number out of range.
        DataError: no token to count or to score.
    """
    if not orders or not pseudocounts:
        raise ArgumentError("choosing an n-gram model needs at least one order and one pseudocount to try")
    for pseudocount in pseudocounts:
        _check_pseudocount(pseudocount)
    largest = NgramModel.fit(train, vocabulary, max(orders))
    bits = _bits(vocabulary, largest.grams, validation, pseudocounts)[list(orders)]
    best_order, best_pseudocount = np.unravel_index(int(bits.argmin()), bits.shape)
    order = orders[int(best_order)]
    return NgramModel(vocabulary, order, float(pseudocounts[int(best_pseudocount)]), largest.grams[: order + 1])


def _bits(
    vocabulary: int, grams: Sequence[tuple[Keys, Counts]], pieces: Sequence[Tokens], pseudocounts: Sequence[float]
) -> npt.NDArray[np.float64]:
    """(orders, pseudocounts) float64: the cost of `pieces` under every order and pseudocount."""
    weights = np.asarray(pseudocounts, dtype=np.float64)[:, None]
    bits = np.zeros((len(grams), len(weights)))
    targets = sum(max(piece.size - 1, 0) for piece in pieces)
    if not targets:
        raise DataError("there is no token with one before it to score; give more data")
    totals = [_contexts(keys, counts) for keys, counts in grams]
    for piece in pieces:
        if piece.size < 2:
            continue
        probability = np.full((len(weights), piece.size), 1 / vocabulary)
        for order, ((keys, counts), (contexts, sums)) in enumerate(zip(grams, totals, strict=True)):
            asked = _grams(piece, order)
            if asked.size:
                seen = _looked_up(keys, counts, asked)
                total = _looked_up(contexts, sums, asked >> np.uint64(8))
                probability[:, order:] = (seen + weights * probability[:, order:]) / (total + weights)
            bits[order] -= np.log2(probability[:, 1:]).sum(axis=1)
    return bits / targets


def _grams(piece: Tokens, order: int) -> Keys:
    """The n-grams of `order` + 1 tokens in a piece, the latest in the lowest byte."""
    keys = np.zeros(max(piece.size - order, 0), dtype=np.uint64)
    for back in range(order + 1 if keys.size else 0):
        keys |= piece[order - back : piece.size - back].astype(np.uint64) << np.uint64(8 * back)
    return keys


def _contexts(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """The contexts of sorted n-grams, sorted, and how often each was followed by something."""
    contexts, first = np.unique(keys >> np.uint64(8), return_index=True)
    return contexts, np.add.reduceat(counts, first) if len(first) else counts


def _looked_up(keys: Keys, counts: Counts, asked: Keys) -> Counts:
    if not len(keys):
        return np.zeros(asked.shape, dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    found: Counts = np.where(keys[at] == asked, counts[at], 0)
    return found


def _check_pseudocount(pseudocount: float) -> None:
    if not 0 < pseudocount < float("inf"):
        raise ArgumentError(f"a pseudocount is a positive number and {pseudocount} was given")
