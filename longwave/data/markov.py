"""Order-k Markov models of DNA: the classical baseline a trained model has to beat.

The probability of base x behind the k bases `c` mixes the counts of all orders up to k, from the shortest up:

    p_j(x) = (count(c_j x) + w · p_{j-1}(x)) / (count(c_j) + w),   j = 0 … k,   p_{-1}(x) = 1/4,

where c_j are the j bases directly before x and w, the *pseudocount*, says how many sightings of a context weigh as much
as what all shorter ones say. A base with only j < k known bases directly before it (at the start of a sequence, behind
an N) is predicted by p_j: the longest context there is. N is never counted, in contexts or as a target, and never
scored.

Source: interpolated Markov models as in Salzberg et al. 1998 (Nucleic Acids Research 26:544), with the weights of the
Dirichlet prior of MacKay and Peto 1995 (Natural Language Engineering 1:289).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longwave.data.codes import UNKNOWN, Codes, check_codes
from longwave.errors import ArgumentError, DataError

MAX_ORDER = 12
"""Counts of order k take 4^(k+2) bytes: 268 MB at 12, and a third more for all orders below."""

PSEUDOCOUNTS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""What `fit_best` tries."""

_CHUNK_BASES = 1 << 17


@dataclass(frozen=True, eq=False)
class MarkovModel:
    """A fitted model; the module docstring has its formula.

    Attributes:
        order: the number k of bases it looks back.
        pseudocount: the weight w of the shorter contexts, in sightings.
        counts: for each order j = 0 … k the (4^j, 4) uint32 counts of a base (column) behind a context (row; its latest
        base
            is the lowest base-4 digit).
    """

    order: int
    pseudocount: float
    counts: tuple[npt.NDArray[np.uint32], ...]

    @classmethod
    def fit(cls, codes: Codes, order: int, *, pseudocount: float = 16.0) -> MarkovModel:
        """Count the contexts of all orders up to `order`.

        Args:
            codes: (n,) uint8, 0…4 = A C G T N; may be shorter than the order.
            order: 0 … MAX_ORDER.
            pseudocount: > 0, finite.

        Returns:
            The model.

        Raises:
            ArgumentError: an order or pseudocount out of range, or `codes` are not codes.
            DataError: no known base.
        """
        if not 0 <= order <= MAX_ORDER:
            raise ArgumentError(f"the order of a Markov model is 0 to {MAX_ORDER} and {order} was given")
        _check_pseudocount(pseudocount)
        _check_has_bases(codes, "to count")
        counts = tuple(np.zeros((4**j, 4), dtype=np.uint32) for j in range(order + 1))
        for start in range(0, codes.size, _CHUNK_BASES):
            for table, (_, context, base) in zip(counts, _levels(codes, start, order), strict=True):
                np.add.at(table.reshape(-1), 4 * context + base, np.uint32(1))
        return cls(order, float(pseudocount), counts)

    def bits_per_base(self, codes: Codes) -> float:
        """How many bits a base costs under this model; 2 is chance.

        Args:
            codes: (n,) uint8, 0…4 = A C G T N: each of its known bases is a target, from the first on.

        Returns:
            The mean of -log2 p over the known bases, in bits.

        Raises:
            ArgumentError: `codes` are not codes.
            DataError: no known base.
        """
        return float(_bits_per_base(self.counts, codes, (self.pseudocount,))[self.order, 0])


def fit_best(
    train: Codes,
    validation: Codes,
    orders: Sequence[int] = range(MAX_ORDER + 1),
    pseudocounts: Sequence[float] = PSEUDOCOUNTS,
) -> MarkovModel:
    """Fit on `train`; take the order and the pseudocount that cost the fewest bits on `validation`.

    Args:
        train, validation: (n,) uint8, 0…4 = A C G T N.
        orders: those to try, 0 … MAX_ORDER each; of equals the earlier is taken.
        pseudocounts: those to try, > 0 each; of equals the earlier is taken.

    Returns:
        The best model.

    Raises:
        ArgumentError: nothing to try, or a number out of range, or not codes.
        DataError: no known base in `train` or `validation`.
    """
    if not orders or not pseudocounts:
        raise ArgumentError("choosing a Markov model needs at least one order and one pseudocount to try")
    for order in orders:
        if not 0 <= order <= MAX_ORDER:
            raise ArgumentError(f"the order of a Markov model is 0 to {MAX_ORDER} and {order} was given")
    for pseudocount in pseudocounts:
        _check_pseudocount(pseudocount)
    # The counts of a lower order are among those of a higher one: one pass over `train` serves them all.
    largest = MarkovModel.fit(train, max(orders))
    bits = _bits_per_base(largest.counts, validation, pseudocounts)[list(orders)]
    best_order, best_pseudocount = np.unravel_index(int(bits.argmin()), bits.shape)
    order = orders[int(best_order)]
    return MarkovModel(order, float(pseudocounts[int(best_pseudocount)]), largest.counts[: order + 1])


def _bits_per_base(
    counts: Sequence[npt.NDArray[np.uint32]], codes: Codes, pseudocounts: Sequence[float]
) -> npt.NDArray[np.float64]:
    """(orders, pseudocounts) float64: the cost of `codes` under every order `counts` holds and every pseudocount."""
    _check_has_bases(codes, "to score")
    weights = np.asarray(pseudocounts, dtype=np.float64)[:, None]
    bits = np.zeros((len(counts), len(pseudocounts)))
    targets = 0
    for start in range(0, codes.size, _CHUNK_BASES):
        in_chunk = int(np.count_nonzero(codes[start : start + _CHUNK_BASES] != UNKNOWN))
        targets += in_chunk
        probability = np.full((len(pseudocounts), in_chunk), 0.25)
        for order, (kept, context, base) in enumerate(_levels(codes, start, len(counts) - 1)):
            rows = counts[order][context]
            seen = rows[np.arange(len(base)), base]
            total = rows.sum(axis=1, dtype=np.float64)
            probability[:, kept] = (seen + weights * probability[:, kept]) / (total + weights)
            bits[order] -= np.log2(probability).sum(axis=1)
    return bits / targets


def _levels(
    codes: Codes, start: int, order: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """The known bases of the chunk from `start`, with their contexts of 0, 1, …, `order` bases.

    Yields per order, of those with a context so long: their indices among the chunk's known bases, contexts, bases.
    """
    chunk = codes[start : start + _CHUNK_BASES]
    position = np.flatnonzero(chunk != UNKNOWN) + start
    kept = np.arange(len(position))
    base = codes[position].astype(np.int64)
    context = np.zeros(len(position), dtype=np.int64)  # 64 bits: uint8 digits would wrap at the fourth base
    yield kept, context, base
    for length in range(1, order + 1):
        # Index -1 would read the far end of the array: positions without a base that far back leave first.
        inside = position >= length
        position, kept, base, context = position[inside], kept[inside], base[inside], context[inside]
        digit = codes[position - length]
        known = digit != UNKNOWN
        if not known.all():
            position, kept, base, context, digit = (a[known] for a in (position, kept, base, context, digit))
        context = context + (digit.astype(np.int64) << (2 * (length - 1)))
        yield kept, context, base


def _check_pseudocount(pseudocount: float) -> None:
    if not 0 < pseudocount < float("inf"):
        raise ArgumentError(f"a pseudocount is a positive number and {pseudocount} was given")


def _check_has_bases(codes: Codes, purpose: str) -> None:
    if not (check_codes(codes) != UNKNOWN).any():
        raise DataError(f"there is no known base {purpose} among {codes.size:,}; give DNA with A, C, G or T in it")
