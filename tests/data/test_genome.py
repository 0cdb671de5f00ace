"""The embedded genome is the published one, and the package refuses clearly without NumPy."""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import longwave.data
from longwave.data.fasta import Record, decode
from longwave.data.genome import ecoli
from longwave.data.twobit import write_twobit
from longwave.errors import MissingDependencyError

SEQUENCE_SHA256 = "169aeb32aa5f16e93aa7789f8fe1ce9f19d8de4c48c1dfafd05bcf772cb2c84a"


def test_ecoli_is_the_published_sequence() -> None:
    record = ecoli()
    assert record.name == "NC_008253.1"
    assert record.codes.shape == (4_938_920,)
    assert record.codes.dtype == np.uint8
    assert hashlib.sha256(decode(record.codes).encode()).hexdigest() == SEQUENCE_SHA256
    # The header line of the record in GenBank's own FASTA is followed by these bases.
    assert decode(record.codes[:30]) == "AGCTTTTCATTCTGACTGCAACGGGCAATA"


def test_ecoli_gives_a_fresh_array_each_time() -> None:
    first = ecoli()
    first.codes[:] = 4
    assert ecoli().codes.max() == 3


def test_embedded_file_is_what_our_writer_makes(tmp_path: Path) -> None:
    embedded = (files("longwave.data") / "ecoli_536.2bit").read_bytes()
    write_twobit([Record("gi|110640213|ref|NC_008253.1|", ecoli().codes)], tmp_path / "x.2bit")
    assert (tmp_path / "x.2bit").read_bytes() == embedded
    sources = (files("longwave.data") / "SOURCES.md").read_text(encoding="utf-8")
    assert hashlib.sha256(embedded).hexdigest() in sources
    assert SEQUENCE_SHA256 in sources


def test_missing_numpy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'longwave\[train\]'"):
        importlib.reload(longwave.data)
