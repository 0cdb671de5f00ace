"""Random access to FASTA files against the reader of whole ones, and rows packed from them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.bench.memory import peak_extra_bytes
from longwave.data import indexed
from longwave.data.codes import UNKNOWN, decode
from longwave.data.fasta import read_fasta
from longwave.data.indexed import IndexedFasta
from longwave.data.packed import PackedRecords
from longwave.errors import ArgumentError, DataError


def _write(path: Path, records: Sequence[str], width: int, end: str = "\n", last: str = "\n") -> Path:
    lines = []
    for i, bases in enumerate(records):
        lines += [f">r{i} a comment", *(bases[j : j + width] for j in range(0, len(bases), width))]
    path.write_bytes((end.join(lines) + last).encode())
    return path


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.text("ACGTNacgtn", min_size=1, max_size=90), min_size=1, max_size=5),
    width=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.sampled_from(["", "\n", "\n\n"]),
    chunk=st.sampled_from([1, 2, 7, 64, 1 << 20]),
    data=st.data(),
)
def test_any_stretch_is_that_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[str],
    width: int,
    end: str,
    last: str,
    chunk: int,
    data: st.DataObject,
) -> None:
    path = _write(tmp_path_factory.mktemp("fasta") / "g.fa", records, width, end, last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexed, "_CHUNK_BYTES", chunk)
        opened = IndexedFasta(path)
    whole = read_fasta(path)
    assert [(r.name, r.bases) for r in opened.records] == [(r.name, len(r.codes)) for r in whole]
    for number, record in enumerate(whole):
        start = data.draw(st.integers(0, len(record.codes)))
        stop = data.draw(st.integers(start, len(record.codes)))
        assert decode(opened.read(number, start, stop)) == decode(record.codes[start:stop])
    again = IndexedFasta(path)  # from the index that the first one left
    assert again.records == opened.records


def test_the_index_is_that_of_samtools(tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(b">one\nATGCATGCATGCATGCATGCATGCATGCAT\nGCATGCATGCATGCATGCATGCATGCATGC\nATGCAT\n>two another chromosome\n"
                     b"ATGCATGCATGCAT\nGCATGCATGCATGC\n")  # fmt: skip
    IndexedFasta(path)
    # As in the documentation of faidx.
    assert (tmp_path / "g.fa.fai").read_text() == "one\t66\t5\t30\t31\ntwo\t28\t98\t14\t15\n"


def test_an_index_that_was_left_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "g.fa", ["ACGT" * 30, "TTA"], 50)
    indexed.leave_index(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.fa", "g.fa.fai"]
    monkeypatch.setattr(indexed, "_Scan", None)
    indexed.leave_index(path)
    assert [record.bases for record in IndexedFasta(path).records] == [120, 3]


def test_an_index_that_cannot_be_left_is_refused_where_several_need_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "g.fa", ["ACGT" * 30], 50)
    (tmp_path / "g.fa.fai").mkdir()  # rights would not keep root away
    with pytest.raises(DataError, match=r"the index .*g\.fa\.fai cannot be written.*link the file.*samtools faidx"):
        indexed.leave_index(path)
    assert IndexedFasta(path).records[0].bases == 120  # one process makes its own
    assert not list(tmp_path.glob(".g.fa*"))
    with pytest.raises(DataError, match=r"cannot read .*give the path of a plain FASTA file"):
        indexed.leave_index(tmp_path / "none.fa")


def test_an_older_index_is_made_again(tmp_path: Path) -> None:
    path = _write(tmp_path / "g.fa", ["ACGT"], 4)
    IndexedFasta(path)
    _write(path, ["AACCGGTT", "A"], 8)
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert [r.bases for r in IndexedFasta(path).records] == [8, 1]


@pytest.mark.parametrize("records", [["ACGT", "GGT"], ["ACGTAC"], ["AC"]])
def test_an_index_of_another_size_is_made_again(tmp_path: Path, records: list[str]) -> None:
    """Whatever the time of the file, which copies keep."""
    path = _write(tmp_path / "g.fa", ["ACGT"], 4, last="\n\n")
    IndexedFasta(path)
    _write(path, records, 4)
    os.utime(path, (0, 0))
    assert [r.bases for r in IndexedFasta(path).records] == [len(bases) for bases in records]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no FASTA record"),
        (b"ACGT\n", "does not begin with a header"),
        (b">a\nACGT\nAC\nACGT\n", "lines of different lengths"),
        (b">a\nAC\nACGT\n", "lines of different lengths"),
        (b">a\n>b\nACGT\n", "'a' of .* has no sequence"),
        (b">\nACGT\n", "has no name"),
        (b"\x1f\x8b\x08\x00", "compressed"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        IndexedFasta(path)


def test_reads_refuse_what_is_not_there(tmp_path: Path) -> None:
    opened = IndexedFasta(_write(tmp_path / "g.fa", ["ACGTEE"], 4))
    assert decode(opened.read(0, 1, 4)) == "CGT"
    with pytest.raises(DataError, match=r"base 4 of record 'r0' is none of A C G T"):
        opened.read(0, 2, 6)
    with pytest.raises(ArgumentError, match="bases 2 to 7 were asked for"):
        opened.read(0, 2, 7)
    with pytest.raises(ArgumentError, match="record 1 was asked for"):
        opened.read(1, 0, 1)
    with pytest.raises(DataError, match="cannot read"):
        IndexedFasta(tmp_path / "nothing.fa")


def test_ranks_read_every_base_of_an_epoch_once(tmp_path: Path) -> None:
    texts = ["ACGTACGTAC", "G", "TTTTTTTTTTTTTTTTTTTTTTT", "CCN"]
    opened = IndexedFasta(_write(tmp_path / "g.fa", texts, 7))
    shards = [PackedRecords(opened, 5, seed=3, rank=rank, ranks=3) for rank in range(3)]
    count = shards[0].count
    assert count == 8
    seen = [shards[i % 3].row_number(i // 3) for i in range(2 * count)]
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))
    assert seen[:count] != seen[count:]
    rows = {shards[i % 3].row_number(i // 3): shards[i % 3].batch(i // 3) for i in range(count)}
    joined = "".join(decode(rows[i].tokens[0].numpy()) for i in range(count))
    assert joined == "".join(texts) + "NNN"
    bounds = sorted({5 * i + b for i in range(count) for b in rows[i].cu_seqlens.tolist()})
    assert bounds == sorted({*range(0, 41, 5), 10, 11, 34, 37})
    targets = "".join(decode(rows[i].targets[0].numpy()) for i in range(count))
    assert targets == "".join(text[1:] + "N" for text in texts) + "NNN"


def test_a_step_is_a_function_of_its_number(tmp_path: Path) -> None:
    path = _write(tmp_path / "g.fa", ["ACGT" * 100, "GATTACA" * 9], 60)
    one, other = (PackedRecords(IndexedFasta(path), 16, seed=5) for _ in range(2))
    for _ in range(3):
        one.batch(0)
    for a, b in zip(one.batch(17), other.batch(17), strict=True):
        assert torch.equal(a, b)
    orders = [[PackedRecords(IndexedFasta(path), 16, seed=seed).row_number(i) for i in range(20)] for seed in (5, 6)]
    assert orders[0] != orders[1]
    with pytest.raises(ArgumentError, match="step must be at least 0"):
        one.batch(-1)
    with pytest.raises(ArgumentError, match="rank < ranks"):
        PackedRecords(IndexedFasta(path), 16, rank=2, ranks=2)


def _synthetic(path: Path, bases: int, width: int = 60) -> None:
    """Records of 2^27 bases, written a piece at a time."""
    generator = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)
    with path.open("wb") as file:
        left, number = bases, 0
        while left:
            here = min(left, 2**27)
            file.write(b">chr%d\n" % number)
            for _ in range(0, here, 2**24 // width * width):
                piece = letters[generator.integers(0, 4, min(here, 2**24 // width * width), dtype=np.uint8)]
                whole, rest = piece[: len(piece) // width * width], piece[len(piece) // width * width :]
                lines = np.full((len(whole) // width, width + 1), ord("\n"), dtype=np.uint8)
                lines[:, :width] = whole.reshape(-1, width)
                file.write(lines.tobytes() + (rest.tobytes() + b"\n" if len(rest) else b""))
                here -= len(piece)
                left -= len(piece)
            number += 1


# Less than the smallest of the files: who reads one whole is seen.
MOST_BYTES = 3 * 2**24


def _streams_in_constant_memory(path: Path, bases: int, steps: int) -> None:
    _synthetic(path, bases)
    assert path.stat().st_size > 1.3 * MOST_BYTES
    rows, known = [], []

    def stream() -> None:
        rows.append(PackedRecords(IndexedFasta(path), 2**16))
        known.extend(int((rows[0].batch(step).tokens != UNKNOWN).sum()) for step in range(steps))

    held = peak_extra_bytes(stream)
    assert sum(known) > (steps - 1) * 2**16
    assert rows[0].count == -(-bases // 2**16)
    assert held is None or held < MOST_BYTES, f"{held:,} bytes more than before"


def test_a_file_streams_in_constant_memory(tmp_path: Path) -> None:
    _streams_in_constant_memory(tmp_path / "g.fa", 2**26, 200)


@pytest.mark.slow
def test_three_gigabases_stream_in_constant_memory(tmp_path: Path) -> None:
    _streams_in_constant_memory(tmp_path / "g.fa", 3 * 10**9, 2_000)
    (tmp_path / "g.fa").unlink()
