"""What a sequence said before, asked for at its end: associative recall and induction heads.

*Associative recall*: pairs of a key and a value, then a key that came before; the answer is its value. A key has one value in
a sequence, and another in the next. The first half of the vocabulary are keys, the second values; of an even length the first
pair is its value alone.

*Induction heads*: random tokens, among them once a special one; at the end it comes again, and the answer is the token that
followed it. The special token is the last of the vocabulary.

Only the last position is asked; everywhere else the label is `IGNORE`.

Source: H3 (2212.14052), section 3.1 and table 1: 20 tokens of a vocabulary of 10, and 30 of 20; Hyena (2302.10866), section
4.1, takes recall to vocabularies of 40 and to 131,072 tokens.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from longwave.data import draws
from longwave.data.examples import EVERY, IGNORE, Examples, Split
from longwave.data.generated import generated
from longwave.errors import ArgumentError

LARGEST_VOCABULARY = 256


def load(length: int = 20, vocabulary: int = 10, held_out: int = 1_000) -> Split:
    """Associative recall.

    Args:
        length: tokens of a sequence, ≥ 3.
        vocabulary: keys and values, even, 4 … 256.
        held_out: sequences in validation and test, each.

    Returns:
        inputs (n, length) uint8; labels (n, length), `IGNORE` but for the last.

    Raises:
        ArgumentError: a number is out of range.
    """
    _check(length, vocabulary, 4)
    if vocabulary % 2:
        raise ArgumentError(f"half of a vocabulary are keys and half are values, but {vocabulary} is odd; give an even one")
    draw = partial(associative_recall, length=length, vocabulary=vocabulary)
    source = f"associative recall, {length:,} tokens of {vocabulary}"
    return generated(draw, held_out, classes=vocabulary, vocabulary=vocabulary, source=source)


def load_induction(length: int = 30, vocabulary: int = 20, held_out: int = 1_000) -> Split:
    """Induction heads.

    Args:
        length: tokens of a sequence, ≥ 3.
        vocabulary: tokens and the special one, 3 … 256.
        held_out: sequences in validation and test, each.

    Returns:
        inputs (n, length) uint8; labels (n, length), `IGNORE` but for the last.

    Raises:
        ArgumentError: a number is out of range.
    """
    _check(length, vocabulary, 3)
    draw = partial(induction_heads, length=length, vocabulary=vocabulary)
    source = f"induction heads, {length:,} tokens of {vocabulary}"
    return generated(draw, held_out, classes=vocabulary, vocabulary=vocabulary, source=source)


def associative_recall(
    size: int, seed: int, step: int, rank: int = 0, part: str = "train", rows: slice = EVERY, *, length: int, vocabulary: int
) -> Examples:
    """`size` sequences of `length` tokens, or `rows` of them: a function of the arguments alone; the module says which."""
    pairs, keys, cut = length // 2, vocabulary // 2, 1 - length % 2
    drawn = draws.words(size * (pairs + keys + 1), seed, step, rank, part).reshape(size, -1)[rows]
    key = draws.below(keys, drawn[:, :pairs])
    value_of = keys + draws.below(keys, drawn[:, pairs : pairs + keys])
    value = np.take_along_axis(value_of, key, axis=1)
    said = np.stack([key, value], axis=2).reshape(len(key), -1)[:, cut:]
    # A key that was cut off is not asked for: nothing before its value would tell.
    asked = np.take_along_axis(key, cut + draws.below(pairs - cut, drawn[:, -1:]), axis=1)
    return _examples(np.concatenate([said, asked], axis=1), np.take_along_axis(value_of, asked, axis=1))


def induction_heads(
    size: int, seed: int, step: int, rank: int = 0, part: str = "train", rows: slice = EVERY, *, length: int, vocabulary: int
) -> Examples:
    """`size` sequences of `length` tokens, or `rows` of them: a function of the arguments alone; the module says which."""
    drawn = draws.words(size * (length + 1), seed, step, rank, part).reshape(size, -1)[rows]
    tokens = draws.below(vocabulary - 1, drawn[:, :length])
    at = draws.below(length - 2, drawn[:, -1:])
    np.put_along_axis(tokens, at, vocabulary - 1, axis=1)
    tokens[:, -1] = vocabulary - 1
    return _examples(tokens, np.take_along_axis(tokens, at + 1, axis=1))


def _examples(tokens: draws.Indices, answers: draws.Indices) -> Examples:
    labels = np.full(tokens.shape, IGNORE, dtype=np.int64)
    labels[:, -1] = answers[:, 0]
    return Examples(torch.from_numpy(tokens.astype(np.uint8)), torch.from_numpy(labels))


def _check(length: int, vocabulary: int, least: int) -> None:
    if length < 3:
        raise ArgumentError(f"a pair and a question take 3 tokens and a length of {length} was given")
    if not least <= vocabulary <= LARGEST_VOCABULARY:
        raise ArgumentError(f"the vocabulary is {least} to {LARGEST_VOCABULARY} tokens and {vocabulary} was given")
