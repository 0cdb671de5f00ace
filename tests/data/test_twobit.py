"""The .2bit format against bytes written by hand from its specification, round trips, and refusals."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longwave.data import twobit
from longwave.data.fasta import Record, decode, encode
from longwave.data.twobit import parse_twobit, read_twobit, write_twobit
from longwave.errors import ArgumentError, DataError


def _by_hand(order: str) -> bytes:
    """Two records: 'ab' = TCAGNNT with mask block [1, 3), 'c' = G; T C A G are 00 01 10 11."""

    def words(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}I", *values)

    header = words(0x1A412743, 0, 2, 0)
    first_at = 16 + (1 + 2 + 4) + (1 + 1 + 4)
    first = words(7, 1, 4, 2, 1, 1, 2, 0) + bytes([0b00011011, 0b00000000])
    second = words(1, 0, 0, 0) + bytes([0b11000000])
    index = b"\x02ab" + words(first_at) + b"\x01c" + words(first_at + len(first))
    return header + index + first + second


@pytest.mark.parametrize("order", ["<", ">"])
def test_read_bytes_by_hand(tmp_path: Path, order: str) -> None:
    (tmp_path / "x.2bit").write_bytes(_by_hand(order))
    records = read_twobit(tmp_path / "x.2bit")
    assert [(record.name, decode(record.codes)) for record in records] == [("ab", "TCAGNNT"), ("c", "G")]
    assert all(record.codes.flags.writeable for record in records)


def test_write_bytes_by_hand(tmp_path: Path) -> None:
    write_twobit([Record("x", encode("GATTACANN"))], tmp_path / "x.2bit")
    expected = struct.pack("<4I", 0x1A412743, 0, 1, 0) + b"\x01x" + struct.pack("<I", 22)
    expected += struct.pack("<6I", 9, 1, 7, 2, 0, 0) + bytes([0b11_10_00_00, 0b10_01_10_00, 0])
    assert (tmp_path / "x.2bit").read_bytes() == expected
    assert os.listdir(tmp_path) == ["x.2bit"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ACGTN", min_size=1, max_size=40), min_size=1, max_size=5))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, sequences: list[str]) -> None:
    path = tmp_path_factory.mktemp("trip") / "x.2bit"
    write_twobit([Record(f"r{i}", encode(sequence)) for i, sequence in enumerate(sequences)], path)
    records = read_twobit(path)
    assert [record.name for record in records] == [f"r{i}" for i in range(len(sequences))]
    assert [decode(record.codes) for record in records] == sequences


def test_cut_off_at_every_byte() -> None:
    whole = _by_hand("<")
    assert len(parse_twobit(whole, "x")) == 2
    for size in range(len(whole)):
        with pytest.raises(DataError, match=r"x is (cut off|not a \.2bit file)"):
            parse_twobit(whole[:size], "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a .2bit file .its first bytes are 89504e47"),
        (b">r\nACGT\n", "not a .2bit file"),
        (struct.pack("<4I", 0x1A412743, 1, 1, 0), "version 1"),
        (struct.pack("<4I", 0x1A412743, 0, 0, 0), "no record"),
        (struct.pack("<4I", 0x1A412743, 0, 0xFFFFFFFF, 0), "cut off"),
        (struct.pack("<4I", 0x1A412743, 0, 1, 0) + b"\x01x" + struct.pack("<5I", 22, 0, 0, 0, 0), "no sequence"),
        (struct.pack("<4I", 0x1A412743, 0, 1, 0) + b"\x01x" + struct.pack("<5I", 22, 4294967295, 0, 0, 0), "cut off"),
        (struct.pack("<4I", 0x1A412743, 0, 1, 0) + b"\x01x" + struct.pack("<3I", 22, 8, 4294967295), "cut off"),
        (
            struct.pack("<4I", 0x1A412743, 0, 1, 0) + b"\x01x" + struct.pack("<7I", 22, 4, 1, 4294967295, 4, 0, 0) + b"\0",
            "run of N beyond",
        ),
    ],
)
def test_foreign_files(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_twobit(data, "x")
    assert "\n" not in str(caught.value)


def test_missing_file_and_unwritable_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_twobit(tmp_path / "missing.2bit")
    with pytest.raises(DataError, match="cannot write"):
        write_twobit([Record("x", encode("A"))], tmp_path / "no" / "x.2bit")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_twobit([Record("x", encode("A"))], tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "at least one record"),
        ([Record("a", encode("A")), Record("b", encode("C")), Record("a", encode("G"))], "'a' is given twice"),
        ([Record("n" * 256, encode("A"))], "has 256"),
        ([Record("a", encode(""))], "no sequence"),
    ],
)
def test_write_refusals(tmp_path: Path, records: list[Record], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        write_twobit(records, tmp_path / "x.2bit")
    assert not os.listdir(tmp_path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.fa").write_text(">r words\nacgtn\n")
    out = tmp_path / "x.2bit"
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-m",
        "longwave.data.twobit",
        str(tmp_path / "x.fa"),
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = read_twobit(out)
    assert (record.name, decode(record.codes)) == ("r", "ACGTN")
    assert twobit.main([str(tmp_path / "missing.fa"), str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
