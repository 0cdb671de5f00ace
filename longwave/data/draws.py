"""Random numbers that follow from (seed, step, rank) and what they are for, alone: the same words in every NumPy version.

A run that resumes at a step draws what it would have drawn, and no other split is ever drawn from the same words.

Source: `numpy.random.SeedSequence`, which promises its words; a Generator's methods promise none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from longwave.errors import ArgumentError

SPLITS = ("train", "validation", "test")

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def words(count: int, seed: int, step: int, rank: int = 0, split: str = "train") -> Words:
    """Words of 64 random bits.

    Args:
        count: how many, ≥ 0.
        seed, step, rank: ≥ 0 each.
        split: one of `SPLITS`.

    Returns:
        (count,) uint64.

    Raises:
        ArgumentError: a negative number or another split.
    """
    for name, value in (("seed", seed), ("step", step), ("rank", rank)):
        if value < 0:
            raise ArgumentError(f"{name} must be at least 0 and {value} was given")
    if split not in SPLITS:
        raise ArgumentError(f"a split is one of {', '.join(SPLITS)} and {split!r} was given")
    # SeedSequence fills its entropy up with zeros: training, number 0, has the words of (seed, step, rank).
    entropy = np.random.SeedSequence((seed, step, rank, SPLITS.index(split)))
    return entropy.generate_state(count, np.uint64).astype(np.uint64, copy=False)


def below(limit: int, drawn: Words) -> Indices:
    """Whole numbers from 0 to `limit` - 1, 1 ≤ limit < 2^33: no number is favoured by more than one part in 2^31."""
    return (drawn % np.uint64(limit)).astype(np.int64)


def unit(drawn: Words) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), of 53 bits each."""
    return (drawn >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(count: int, seed: int, epoch: int, rank: int = 0) -> Indices:
    """A random order of `count` things: (count,) int64, every number from 0 to count - 1 once."""
    # Orders are told from batches by the highest number a step may have.
    return np.argsort(words(count, seed, 2**62 + epoch, rank), kind="stable")


def streams(keys: Words, first: int, count: int) -> Words:
    """Words of streams without end, each of which follows from its key alone.

    Args:
        keys: (n,) uint64, as `words` gives them.
        first: how many words of every stream were taken before, ≥ 0.
        count: how many to take, ≥ 0.

    Returns:
        (n, count) uint64.

    Source: SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, figure 17).
    """
    numbers = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    mixed = keys[:, None] + numbers * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
