"""FASTA reading against a naive reader, on ugly files, and its refusals."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.data import fasta
from longwave.data.codes import unknown_runs
from longwave.data.fasta import ALPHABET, decode, encode, read_fasta
from longwave.errors import ArgumentError, DataError

AMBIGUOUS = "RYSWKMBDHVN-"


def _read(path: Path, content: bytes) -> list[tuple[str, str]]:
    path.write_bytes(content)
    return [(record.name, decode(record.codes)) for record in read_fasta(path)]


def _bgzf(*blocks: bytes) -> bytes:
    """bgzip's format, written from the SAM specification: gzip members that carry their own size."""

    def member(data: bytes) -> bytes:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = compressor.compress(data) + compressor.flush()
        head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff\x06\x00BC\x02\x00" + struct.pack("<H", len(body) + 25)
        return head + body + struct.pack("<2I", zlib.crc32(data), len(data))

    return b"".join(member(block) for block in (*blocks, b""))


def test_codes_of_every_letter() -> None:
    assert encode("ACGTN").tolist() == [0, 1, 2, 3, 4]
    assert encode("acgtuU").tolist() == [0, 1, 2, 3, 3, 3]
    assert set(encode(AMBIGUOUS + AMBIGUOUS.lower()).tolist()) == {4}
    accepted = [chr(i) for i in range(256) if _is_accepted(chr(i))]
    assert sorted(accepted) == sorted(set("ACGTU" + AMBIGUOUS + "acgtu" + AMBIGUOUS.lower()))


def _is_accepted(letter: str) -> bool:
    try:
        encode(letter)
    except ArgumentError:
        return False
    return True


def test_decode_undoes_encode() -> None:
    text = "ACGTNNTTGCA"
    assert decode(encode(text)) == text
    assert decode(encode("")) == ""
    assert encode(text).dtype == np.uint8
    assert encode(text).flags.writeable


def test_encode_names_the_first_offender() -> None:
    with pytest.raises(ArgumentError, match="'E' at index 2"):
        encode("ACEGF")
    with pytest.raises(ArgumentError, match="'→' at index 1"):
        encode("A→C")
    with pytest.raises(ArgumentError, match="' ' at index 1"):
        encode("A C")


@pytest.mark.parametrize(
    "codes", [np.array([5], np.uint8), np.array([0, 255], np.uint8), np.zeros(3, int), np.zeros((1, 2), np.uint8), "AC"]
)
def test_decode_refuses_what_is_not_codes(codes: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match="was given"):
        decode(codes)


@pytest.mark.parametrize(
    ("text", "runs"),
    [("", []), ("ACGT", []), ("N", [[0, 1]]), ("NNACNGTNN", [[0, 2], [4, 5], [7, 9]]), ("NNNN", [[0, 4]])],
)
def test_unknown_runs(text: str, runs: list[list[int]]) -> None:
    found = unknown_runs(encode(text))
    assert found.tolist() == runs
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b">r\nACGT\n", [("r", "ACGT")], id="plain"),
        pytest.param(b">r\nACGT", [("r", "ACGT")], id="no final newline"),
        pytest.param(b">r\nA", [("r", "A")], id="one base"),
        pytest.param(b">a\nA\n>b\nC\n>c\nG", [("a", "A"), ("b", "C"), ("c", "G")], id="records of one base"),
        pytest.param(b">r\r\nacgt\r\nAC\r\n\r\n>s\r\nnn\r\n", [("r", "ACGTAC"), ("s", "NN")], id="CRLF and lower case"),
        pytest.param(b"\n\n>r\n\nAC\n\n\nGT\n\n", [("r", "ACGT")], id="blank lines"),
        pytest.param(b">r\nAC GT\tA C\n", [("r", "ACGTAC")], id="blanks inside lines"),
        pytest.param(b">r some words > ; here\nUu-RN\n", [("r", "TTNNN")], id="words, U, gap, ambiguity"),
        pytest.param(b"> r x\nA\n", [("r", "A")], id="blank before the name"),
        pytest.param(b";c\n>r\n;ACGT\nAC\n;>no\nGT\n;end", [("r", "ACGT")], id="comment lines"),
        pytest.param(b"\xef\xbb\xbf>r\nAC\n", [("r", "AC")], id="byte-order mark"),
        pytest.param(b">r\nA\n>r\nC\n", [("r", "A"), ("r", "C")], id="a name twice"),
        pytest.param(">ré x\nA\n".encode(), [("ré", "A")], id="UTF-8 name"),
        pytest.param(b">r\xe9 x\nA\n", [("r\ufffd", "A")], id="Latin-1 name"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 1 << 20])
def test_read_ugly_but_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: list[tuple[str, str]], chunk_bytes: int
) -> None:
    monkeypatch.setattr(fasta, "_CHUNK_BYTES", chunk_bytes)
    assert _read(tmp_path / "x.fa", content) == expected
    assert _read(tmp_path / "misnamed.txt", gzip.compress(content)) == expected
    members = gzip.compress(content[: len(content) // 2]) + gzip.compress(content[len(content) // 2 :])
    assert _read(tmp_path / "members.gz", members) == expected
    assert _read(tmp_path / "x.bgz", _bgzf(content[:4], content[4:])) == expected


LINES = st.lists(
    st.one_of(
        st.text("ACGTNacgtuRYK-", max_size=9).map(lambda bases: bases.encode()),
        st.sampled_from([b";note > x", b";", b">a", b">b two; > words", b"  ", b"AC\tG "]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(lines=LINES, end=st.sampled_from([b"\n", b"\r\n"]), final=st.booleans(), chunk_bytes=st.integers(1, 40))
def test_read_equals_a_naive_reader(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes, final: bool, chunk_bytes: int
) -> None:
    lines = [b">first", b"A", *lines]
    expected: list[list[str]] = []
    for line in lines:
        if line.startswith(b">"):
            expected.append([line[1:].split()[0].decode(), ""])
        elif not line.startswith(b";"):
            letters = line.decode().upper().replace(" ", "").replace("\t", "").replace("U", "T")
            expected[-1][1] += "".join(letter if letter in "ACGT" else "N" for letter in letters)
    path = tmp_path_factory.mktemp("naive") / "x.fa"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasta, "_CHUNK_BYTES", chunk_bytes)
        content = end.join(lines) + (end if final else b"")
        if any(not bases for _, bases in expected):
            with pytest.raises(DataError, match="has no sequence"):
                _read(path, content)
        else:
            assert _read(path, content) == [(name, bases) for name, bases in expected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(gzip.compress(b""), "is empty", id="empty gzip"),
        pytest.param(b"\n \r\n", "holds no FASTA record", id="blank"),
        pytest.param(b";only\n;comments\n", "holds no FASTA record", id="comments"),
        pytest.param(b"ACGT\n>r\nACGT\n", "'A' in line 1 stands before the first header", id="text first"),
        pytest.param(b"\nname,dna\n", "'n' in line 2 stands before", id="CSV"),
        pytest.param(b"@r\nACGT\n+\nIIII\n", "'@' in line 1 stands before", id="FASTQ"),
        pytest.param(b">r\n", "record 'r' .line 1. of .* has no sequence", id="header only"),
        pytest.param(b">r", "record 'r' .line 1. of .* has no sequence", id="header only, no newline"),
        pytest.param(b">r\nAC\n\n>s x\n\n>t\nAC", "record 's' .line 4. of .* has no sequence", id="no sequence"),
        pytest.param(b">r\nA\n>\nC\n", "line 3 of .* has no name", id="no name"),
        pytest.param(b">r\nACGT\n>p\nGA\nACMKVLEF\n", "'L' in line 5, record 'p'", id="protein"),
        pytest.param(b">r\nAC\nAC*\n", r"'\*' in line 3, record 'r'", id="stop codon"),
        pytest.param(b">r\nAC>GT\n", "'>' in line 2, record 'r'", id="header in mid-line"),
        pytest.param(b">r\nAC;GT\n", "';' in line 2, record 'r'", id="comment in mid-line"),
        pytest.param(b">r\n1 ACGT\n", "'1' in line 2", id="numbered lines"),
        pytest.param(b">r\rACGT\r>s\rACGT\r", "bare carriage return", id="old Macintosh"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0", "not FASTA text: line 1 holds the byte 0x89", id="PNG"),
        pytest.param(b">r\nAC\0\0GT\n", "not FASTA text: line 2 holds the byte 0x00", id="zeros"),
        pytest.param(">r\nACGT\n".encode("utf-16"), "not FASTA text: line 1 holds the byte 0xff", id="UTF-16"),
        pytest.param(gzip.compress(gzip.compress(b">r\nA\n")), "the byte 0x1f", id="gzip in gzip"),
        pytest.param(b"\x1f\x8b not gzip at all", "damaged or cut-off gzip", id="gzip's magic only"),
        pytest.param(gzip.compress(b">r\nACGT\n") + b"garbage", "damaged or cut-off gzip", id="garbage after gzip"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [3, 1 << 20])
def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str, chunk_bytes: int) -> None:
    monkeypatch.setattr(fasta, "_CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_fasta(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refusal_of_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_fasta(tmp_path / "missing.fa")
    with pytest.raises(DataError, match="Is a directory"):
        read_fasta(tmp_path)


def test_cut_gzip_is_refused_at_every_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = gzip.compress(b">r\n" + decode(rng.integers(0, 4, 500, dtype=np.uint8)).encode() + b"\n")
    path = tmp_path / "x.fa.gz"
    assert len(_read(path, whole)) == 1
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            read_fasta(path)


def test_bgzip_cut_between_blocks_is_refused(tmp_path: Path) -> None:
    first, end = _bgzf(b">r\nACGT\n"), _bgzf()
    assert end == fasta._BGZF_END
    assert _read(tmp_path / "x.gz", first) == [("r", "ACGT")]
    (tmp_path / "x.gz").write_bytes(first[: -len(end)])
    with pytest.raises(DataError, match="without its closing block"):
        read_fasta(tmp_path / "x.gz")


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(b">r\n" + b"ACGGTTAACC" * 400))
    whole[len(whole) - 6] ^= 0xFF  # the checksum
    (tmp_path / "x.gz").write_bytes(whole)
    with pytest.raises(DataError, match="damaged or cut-off"):
        read_fasta(tmp_path / "x.gz")


def test_memory_beyond_the_codes_is_small_even_on_one_line(tmp_path: Path) -> None:
    size = 16_000_000
    path = tmp_path / "x.fa"
    path.write_bytes(b">r\n" + b"ACGTTGCAAT" * (size // 10))
    tracemalloc.start()
    (record,) = read_fasta(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert record.codes.size == size
    assert decode(record.codes[-10:]) == "ACGTTGCAAT"
    assert peak < 1.2 * size + 8e6


def test_alphabet_order_is_the_code_order() -> None:
    assert decode(np.arange(5, dtype=np.uint8)) == ALPHABET == "ACGTN"
