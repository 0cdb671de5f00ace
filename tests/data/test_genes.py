"""GenBank records become labelled bases: by hand, and by what introns of real genes begin and end with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from longwave.data import genes
from longwave.data.codes import decode
from longwave.data.examples import IGNORE
from longwave.errors import ArgumentError, DataError

RECORD = """LOCUS       {name}   30 bp  DNA
FEATURES             Location/Qualifiers
     source          1..30
     CDS             {location}
                     /gene="1"
BASE COUNT     8 a   7 c  8 g   7 t
ORIGIN
        1 aaaaaccccc gtggagttta
       21 gcccccatgn
//
"""


def _file(path: Path, *records: tuple[str, str]) -> Path:
    path.write_text("".join(RECORD.format(name=name, location=location) for name, location in records))
    return path


def test_labels_by_hand(tmp_path: Path) -> None:
    forward, backward, one = genes.read_genbank(
        _file(
            tmp_path / "a.gb",
            ("c_1-30", "join(6..10,20..24,26)"),
            ("c_31-60", "complement(join(6..10,\n                     21..24))"),
            ("d", "<3..>7"),
        )
    )
    assert decode(forward.codes) == "AAAAACCCCCGTGGAGTTTAGCCCCCATGN"
    assert "".join(map(str, forward.labels)) == "000001111122222222211111210000"
    assert forward.introns.tolist() == [[10, 19], [24, 25]]
    assert decode(backward.codes) == "NCATGGGGGCTAAACTCCACGGGGGTTTTT"
    assert "".join(map(str, backward.labels)) == "000000111122222222221111100000"
    assert "".join(map(str, one.labels)) == "00111110" + 22 * "0"


@pytest.mark.parametrize("location", ["3..31", "join(9..10,4..5)", "0..3", "join(1..4,4..9)", "x"])
def test_a_cds_that_does_not_fit_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(DataError, match="does not fit its 30 bases; mend the record"):
        genes.read_genbank(_file(tmp_path / "a.gb", ("c", location)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gb"
    for text, expected in (
        ("", "holds no GenBank record"),
        (">fasta\nACGT\n", "has no LOCUS or no ORIGIN"),
        (RECORD.replace("CDS", "exon").format(name="c", location="1..2"), "the record c of .* has 0 CDS"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=expected):
            genes.read_genbank(path)
    with pytest.raises(DataError, match="cannot read"):
        genes.read_genbank(tmp_path / "missing.gb")
    same = _file(tmp_path / "b.gb", ("c_1-30", "1..3"), ("c_30-59", "1..3"))
    with pytest.raises(DataError, match="the records c_1-30 and c_30-59 share bases"):
        genes.load(8, same, _file(tmp_path / "c.gb", ("c_60-89", "1..3")))
    with pytest.raises(ArgumentError, match="at least 1 base"):
        genes.load(0)


def test_windows_hold_what_the_genes_hold(tmp_path: Path) -> None:
    train = _file(tmp_path / "a.gb", *((f"c_{at}-{at + 29}", "join(6..10,20..24)") for at in range(1, 31, 30)), ("d", "1..3"))
    split = genes.load(8, train, _file(tmp_path / "b.gb", ("e", "join(6..10,20..24)")))
    (test,) = split.test.batches(100)
    assert test.inputs.shape == (4, 8)
    assert decode(test.inputs.flatten().numpy()) == "AAAAACCCCCGTGGAGTTTAGCCCCCATGNNN"
    assert test.labels.flatten().tolist()[:30] == [int(digit) for digit in "000001111122222222211111000000"]
    assert test.labels.flatten().tolist()[30:] == [IGNORE] * 2
    batch = split.train.batch(2, 50, seed=1)
    text = "AAAAACCCCCGTGGAGTTTAGCCCCCATGN"
    starts = Counter(text.index(decode(row.numpy())[:8]) for row in batch.inputs)
    assert len(starts) > 12
    assert batch.labels[0].tolist() == split.train.batch(2, 50, seed=1).labels[0].tolist()
    long = genes.load(40, train, _file(tmp_path / "b.gb", ("e", "6..10"))).train.batch(0, 3)
    assert (long.labels[:, 30:] == IGNORE).all()
    assert (long.labels[:, :30] != IGNORE).all()


def test_real_introns_are_spliced_where_introns_are(real) -> None:
    split = real(lambda: genes.load(1_024))
    train = split.train.genes
    ends = Counter(decode(gene.codes[a : a + 2]) + decode(gene.codes[b - 2 : b]) for gene in train for a, b in gene.introns)
    assert ends.total() > 1_400
    # A label one base off would have a sixteenth of these at random.
    assert ends["GTAG"] / ends.total() > 0.97
    exons = [gene.labels == genes.EXON for gene in train]
    assert np.mean([(exon.sum() % 3 == 0) for exon in exons]) > 0.95
    starts = Counter(decode(gene.codes[np.flatnonzero(exon)[:3]]) for gene, exon in zip(train, exons, strict=True))
    assert starts["ATG"] / starts.total() > 0.95
    for part in (split.validation, split.test):
        labels = part.labels[part.labels != IGNORE]
        assert labels.bincount(minlength=3).double().div(len(labels)).min() > 0.1
    seen = {gene.codes.tobytes()[:400] for gene in train}
    assert (len(train), len(seen)) == (437, 435)  # two genes were doubled as a pair, and all four train
    assert not seen & {row.numpy().tobytes()[:400] for row in split.test.inputs}
