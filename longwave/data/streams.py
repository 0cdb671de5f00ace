"""Windows of long sequences of tokens: what comes next, or what stands under a mask.

A sequence comes in pieces (movements, files) that no window crosses. Training windows are random, each equally likely;
held-out pieces are cut into windows that ask every token once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from longwave.data import draws
from longwave.data.examples import EVERY, IGNORE, Examples, check_batch
from longwave.errors import ArgumentError, DataError

Tokens = npt.NDArray[np.uint8]
Ask = Callable[[Tokens, draws.Words], Examples]
"""What turns windows (n, length + 1) and words (n, length) of random bits into examples."""

HELD_OUT_SHARE = 20
"""Validation and test take one part in this many of every piece, each."""

MASKED_SHARE = 0.15


def split_in_time(pieces: Sequence[Tokens]) -> tuple[list[Tokens], list[Tokens], list[Tokens]]:
    """Of every piece the first 90 %, the next 5 % and the last 5 %: views."""
    parts: tuple[list[Tokens], list[Tokens], list[Tokens]] = ([], [], [])
    for piece in pieces:
        held_out = piece.size // HELD_OUT_SHARE
        for part, cut in zip(parts, np.split(piece, [piece.size - 2 * held_out, piece.size - held_out]), strict=True):
            part.append(cut)
    return parts


def following(windows: Tokens, words: draws.Words) -> Examples:
    """Ask for the token after every input; draws nothing."""
    return Examples(torch.from_numpy(windows[:, :-1].copy()), torch.from_numpy(windows[:, 1:].astype(np.int64)))


def masked(mask: int, characters: int) -> Ask:
    """Ask for 15 % of a window's tokens, at least one: 80 % of them become `mask`, 10 % a random token below `characters`,
    and 10 % stay.

    Source: BERT (Devlin et al. 2018, arXiv 1810.04805), section 3.1.
    """

    def ask(windows: Tokens, words: draws.Words) -> Examples:
        tokens = windows[:, :-1].copy()
        count = max(1, round(MASKED_SHARE * tokens.shape[1]))
        at = np.argsort(words, axis=1, kind="stable")[:, :count]
        labels = np.full(tokens.shape, IGNORE, dtype=np.int64)
        np.put_along_axis(labels, at, np.take_along_axis(tokens, at, axis=1).astype(np.int64), axis=1)
        # The smallest words chose the places, so they are not random any more; multiplied, their bits are as good as new.
        dice = np.take_along_axis(words, at, axis=1) * np.uint64(0x9E3779B97F4A7C15)
        kind = draws.unit(dice)
        other = draws.below(characters, dice ^ (dice >> np.uint64(32)))
        replaced = np.where(kind < 0.8, mask, np.where(kind < 0.9, other, np.take_along_axis(tokens, at, axis=1)))
        np.put_along_axis(tokens, at, replaced.astype(np.uint8), axis=1)
        return Examples(torch.from_numpy(tokens), torch.from_numpy(labels))

    return ask


class TokenWindows:
    """Random windows of pieces: a `Source`."""

    def __init__(self, pieces: Sequence[Tokens], length: int, ask: Ask = following) -> None:
        """
        Args:
            pieces: (n,) uint8 each; those with less than a window are left out.
            length: inputs of a window, ≥ 1.
            ask: what is asked of a window.

        Raises:
            ArgumentError: a length below 1.
            DataError: no piece has a window.
        """
        check_length(pieces, length)
        self.pieces, self.length, self.ask = [piece for piece in pieces if piece.size > length], length, ask
        self._ends = np.cumsum([piece.size - length for piece in self.pieces], dtype=np.int64)

    def batch(self, step: int, size: int, seed: int = 0, rank: int = 0, rows: slice = EVERY) -> Examples:
        """`size` windows, or `rows` of them; Raises ArgumentError for a number out of range."""
        check_batch(step, size)
        words = draws.words(size * (self.length + 1), seed, step, rank).reshape(size, self.length + 1)[rows]
        at = draws.below(int(self._ends[-1]), words[:, -1])
        which = np.searchsorted(self._ends, at, side="right")
        ends = np.array([piece.size for piece in self.pieces], dtype=np.int64)[which] - (self._ends[which] - at) + 1
        places = zip(which.tolist(), ends.tolist(), strict=True)
        windows = np.stack([self.pieces[piece][end - self.length - 1 : end] for piece, end in places])
        return self.ask(windows, words[:, :-1])


class HeldOutPieces:
    """Windows that follow each other, no target in two of them: a `HeldOut`.

    The last window of a piece begins early, so that it is as long as the others, and asks what is left.
    """

    def __init__(self, pieces: Sequence[Tokens], length: int, part: str, ask: Ask = following) -> None:
        """
        Args:
            pieces: (n,) uint8 each; those with less than a window are left out.
            length: inputs of a window, ≥ 1.
            part: "validation" or "test": for which of them random numbers are drawn.
            ask: what is asked of a window.

        Raises:
            ArgumentError: a length below 1.
            DataError: no piece has a window.
        """
        check_length(pieces, length)
        self.pieces = [piece for piece in pieces if piece.size > length]
        windows, asked_before = [], []
        for piece in self.pieces:
            for start in range(0, piece.size - 1, length):
                first = min(start, piece.size - 1 - length)
                windows.append(piece[first : first + length + 1])
                asked_before.append(start - first)
        words = draws.words(len(windows) * length, 0, 0, 0, part).reshape(len(windows), length)
        examples = ask(np.stack(windows), words)
        old = torch.arange(length) < torch.tensor(asked_before)[:, None]
        self.examples = Examples(examples.inputs, examples.labels.masked_fill(old, IGNORE))

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, size: int) -> Iterator[Examples]:
        """All windows in order, at most `size` at a time; Raises ArgumentError for a size below 1."""
        return self.examples.batches(size)


def check_length(pieces: Sequence[Tokens], length: int) -> None:
    """Refuse a length of which no piece has a window.

    Raises:
        ArgumentError: it is below 1.
        DataError: it is too long.
    """
    if length < 1:
        raise ArgumentError(f"a window has at least 1 token and a length of {length} was given")
    longest = max((piece.size for piece in pieces), default=0)
    if longest <= length:
        raise DataError(
            f"a window of {length:,} tokens takes {length + 1:,} in a row and the longest piece has {longest:,}; "
            f"choose a length of at most {max(longest - 1, 0):,} or give more data"
        )
