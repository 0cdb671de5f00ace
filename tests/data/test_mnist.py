"""Digits: as many of each in every part, no image in two, pixels brought to mean 0 and deviation 1."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from longwave.data import mnist
from longwave.errors import DataError


def test_digits_of_ones_own(tmp_path: Path) -> None:
    rows = np.zeros((200, 785), dtype=int)
    rows[:, -1] = np.repeat(np.arange(10), 20)
    rows[:, 300] = np.arange(200)  # which row it is
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress("\n".join(",".join(map(str, row)) for row in rows).encode()))
    split = mnist.load(path)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [160, 20, 20]
    seen = np.concatenate([part.inputs[:, 300, 0].numpy() for part in parts])
    assert len(np.unique(seen)) == 200
    for part in parts:
        assert part.labels.bincount().tolist() == [len(part) // 10] * 10
        order = np.argsort(part.inputs[:, 300, 0].numpy(), kind="stable")
        assert (np.diff(part.labels.numpy()[order]) >= 0).all()  # labels went with their rows
    assert len(set(split.test.labels[:10].tolist())) > 4
    assert split.train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert split.train.inputs.std().item() == pytest.approx(1, abs=1e-3)

    path.write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(DataError, match=r"has lines of 3 numbers and 0 of the rarest digit; give a file with 785"):
        mnist.load(path)
    path.write_bytes(b"1,2,3\n")
    with pytest.raises(DataError, match=r"cannot read .*; give a gzip file"):
        mnist.load(path)


def test_the_five_thousand(real) -> None:
    split = real(mnist.load)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [4_000, 500, 500]
    images = [row.tobytes() for part in parts for row in part.inputs.numpy()]
    assert len(set(images)) == 5_000
    assert split.train.inputs.shape == (4_000, 784, 1)
    # The known picture: ink is in the middle, none in the corners.
    mean = split.train.inputs.mean(dim=0).view(28, 28)
    assert mean[14, 14] > 1 > -0.3 > mean[0, 0]
    ones, zeros = (split.train.inputs[split.train.labels == digit].mean(dim=0).view(28, 28) for digit in (1, 0))
    assert ones[14, 14] > 1 > zeros[14, 14]
