"""Windows of loci: as many of every species, none with an unknown base, no base in two parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from longwave.data import species
from longwave.data.codes import decode
from longwave.errors import ArgumentError, DataError


def _folder(path: Path, *sequences: str) -> Path:
    for number, sequence in enumerate(sequences):
        (path / f"{number}.fa").write_text(f">s\n{sequence}\n")
    return path


def test_windows_come_from_their_own_part_of_their_own_locus(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [decode(rng.integers(0, 4, size, dtype=np.uint8)) for size in (2_000, 900, 5_000)]
    texts[0] = texts[0][:200] + "NN" + texts[0][202:]
    split = species.load(40, _folder(tmp_path, *texts))
    assert split.classes == 3
    cuts = [(len(text) - 2 * int(0.15 * len(text)), len(text) - int(0.15 * len(text)), len(text)) for text in texts]
    for number, part in enumerate((split.train.batch(3, 300, seed=2), split.validation, split.test)):
        counts = part.labels.bincount().tolist()
        assert counts == [64] * 3 if number else min(counts) > 70
        for window, label in zip(part.inputs.numpy(), part.labels.tolist(), strict=True):
            start = texts[label].index(decode(window))
            assert (0, *cuts[label])[number] <= start <= cuts[label][number] - 40
    spread = [texts[1].index(decode(w.numpy())) for w in split.test.inputs[split.test.labels == 1]]
    assert (spread[0], spread[-1]) == (cuts[1][1], cuts[1][2] - 40)  # from the first window of the part to its last
    assert split.test.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    again = split.train.batch(3, 300, seed=2)
    assert (again.inputs == split.train.batch(3, 300, seed=2).inputs).all()
    assert (again.inputs != split.train.batch(4, 300, seed=2).inputs).any()


def test_refusals(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "ACGTACGTACGT" * 5, "ACGTN" * 12)
    with pytest.raises(DataError, match="a part of locus 1 has no window of 5 known bases among its"):
        species.load(5, folder)
    assert species.load(4, folder).classes == 2
    with pytest.raises(ArgumentError, match="at least 1 base"):
        species.load(0, folder)
    (folder / "1.fa").unlink()
    with pytest.raises(DataError, match="has 1 files and telling apart takes two"):
        species.load(4, folder)


def test_the_eight_loci(real) -> None:
    split = real(lambda: species.load(1_024))
    assert split.classes == len(species.SPECIES) == 8
    for part in (split.train.batch(0, 64), split.validation, split.test):
        assert part.inputs.shape[1] == 1_024
        assert int(part.inputs.max()) == 3
    assert split.test.labels.bincount().tolist() == [species.HELD_OUT_WINDOWS] * 8
    # Every locus as long as the coordinates in its header say, less its last 30 %.
    assert split.train.loci[0].size == 210_155 - 2 * int(0.15 * 210_155)
    assert split.train.loci[7].size == 149_999 - 2 * int(0.15 * 149_999)
