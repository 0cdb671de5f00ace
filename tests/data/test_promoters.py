"""Promoters and background: where every window stands is looked up in the chromosome, and no base is in two parts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from longwave.data import promoters
from longwave.data.codes import decode, reverse_complement
from longwave.data.examples import Examples, Split
from longwave.data.fasta import read_fasta
from longwave.data.packages import fetched
from longwave.errors import ArgumentError, DataError


def test_no_base_is_in_two_parts_and_background_is_no_promoter(real) -> None:
    split: Split = real(promoters.load)
    chromosome = read_fasta(fetched(*promoters._CHROMOSOME, instead=""))[0].codes
    names = [record.name for record in read_fasta(fetched(*promoters._UPSTREAM, instead=""))]
    known = sorted({(int(m[1]) - 1, int(m[2] == "r")) for n in names if (m := re.search(r"_chr2R_(\d+)_([fr])$", n))})
    assert len(known) == 3_414
    upstream = np.zeros(chromosome.size, dtype=bool)
    for start, _ in known:
        upstream[start : start + 2_000] = True
    seen = np.zeros(chromosome.size, dtype=np.int8)
    total = 0
    windows = promoters.placed(*np.array(known).T, chromosome)
    examples = [part for part in (split.train, split.validation, split.test) if isinstance(part, Examples)]
    for number, (part, places) in enumerate(zip(examples, windows, strict=True), 1):
        labels = part.labels.tolist()
        assert labels == places.labels.tolist()
        assert labels.count(1) == labels.count(0)
        assert 0.4 < places.strands.mean() < 0.6
        total += labels.count(1)
        # In a random order, or the first batches of a held-out part would hold one class.
        assert 4 < sum(labels[:32]) < 28
        for window, start, strand, label in zip(part.inputs.numpy(), places.starts, places.strands, labels, strict=True):
            there = chromosome[start : start + 2_000]
            np.testing.assert_array_equal(reverse_complement(there) if strand else there, window)
            before = seen[start : start + 2_000]
            assert not ((before != 0) & (before != number)).any()
            before[:] = number
            assert upstream[start : start + 2_000].any() == label
        background = np.sort(places.starts[places.labels == 0])
        assert np.diff(background).min() >= 2_000
    assert 3_300 < total <= 3_414  # those across two blocks are left out
    texts = [{window.tobytes() for window in part.inputs.numpy()} for part in examples]
    assert not texts[0] & texts[1]
    assert not (texts[0] | texts[1]) & texts[2]


def _write(path: Path, records: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{text}\n" for name, text in records.items()))
    return path


def test_a_small_chromosome_and_its_strands(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 10 * promoters.BLOCK, dtype=np.uint8)
    named = {}
    for block in range(10):
        for strand, start in (("f", block * promoters.BLOCK + 5_000), ("r", block * promoters.BLOCK + 50_000)):
            there = codes[start : start + 2_000]
            named[f"g{block}_up_2000_chrZ_{start + 1}_{strand}"] = decode(there if strand == "f" else reverse_complement(there))
    chromosome = _write(tmp_path / "z.fa", {"chrZ": decode(codes)})
    split = promoters.load(_write(tmp_path / "up.fa", named), chromosome)
    parts = (split.train, split.validation, split.test)
    assert [len(part) for part in parts] == [32, 4, 4]
    expected = set(named.values())
    assert {decode(window.numpy()) for part in parts for window in part.inputs[part.labels == 1]} == expected
    assert not {decode(window.numpy()) for part in parts for window in part.inputs[part.labels == 0]} & expected

    near = promoters.load(_write(tmp_path / "up.fa", named), chromosome, length=300)
    assert torch.equal(near.train.inputs, split.train.inputs[:, -300:])
    assert torch.equal(near.test.labels, split.test.labels)
    with pytest.raises(ArgumentError, match="the last 2,001 were asked"):
        promoters.load(_write(tmp_path / "up.fa", named), chromosome, length=2_001)

    wrong = {name.replace("_up_2000_chrZ_5001_", "_up_2000_chrZ_5002_"): text for name, text in named.items()}
    with pytest.raises(DataError, match=r"is not what chrZ has at 5,002; give files of one assembly"):
        promoters.load(_write(tmp_path / "wrong.fa", wrong), chromosome)
    with pytest.raises(DataError, match="no promoter stands on chrZ"):
        promoters.load(_write(tmp_path / "none.fa", {"a": "ACGT"}), chromosome)
