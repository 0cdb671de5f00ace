"""FASTA files of any size, read where asked: an index says where records stand, and nothing else is held in memory.

The index is a `.fai` file beside the FASTA file, as `samtools faidx` and pyfaidx write and read it: a line a record, with name,
bases, the byte of its first base, bases a line and bytes a line. It is made where it is missing, older than the file or of
another size. Lines of a record must be equally long but for the last; compressed files cannot be read in the middle.

Source: http://www.htslib.org/doc/faidx.html
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from longwave.data.codes import AMBIGUOUS, CODE_OF_BYTE, NOT_DNA, Codes
from longwave.errors import ArgumentError, DataError

_CHUNK_BYTES = 1 << 24
# Behind the last base stand line ends, or what an index does not know.
_TAIL_BYTES = 1 << 12
_LINE_END, _RETURN, _HEADER = ord("\n"), ord("\r"), ord(">")


class IndexedRecord(NamedTuple):
    """A record of a FASTA file, as a line of its index."""

    name: str
    bases: int
    offset: int
    line_bases: int
    line_bytes: int


class IndexedFasta:
    """A plain FASTA file of DNA, of which any stretch can be read, by any number of threads and processes.

    Args:
        path: the file.

    Attributes:
        records: in file order, at least one.

    Raises:
        DataError: the file is missing, compressed, not FASTA, or its lines differ in length.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            status = self.path.stat()
            self.records = _kept(self.path, status) or _made(self.path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; give the path of a plain FASTA file") from error

    def read(self, record: int, start: int, stop: int) -> Codes:
        """The bases [start, stop) of a record, by its number: (stop - start,) uint8, 0…4 = A C G T N.

        Raises:
            ArgumentError: there is no such stretch.
            DataError: it holds something else than DNA, or the file has been cut off.
        """
        if not 0 <= record < len(self.records):
            raise ArgumentError(f"record {record} was asked for and {self.path} has {len(self.records)}; the first is 0")
        of = self.records[record]
        if not 0 <= start <= stop <= of.bases:
            raise ArgumentError(f"bases {start} to {stop} were asked for and record {of.name!r} has {of.bases:,}")
        if start == stop:
            return np.zeros(0, dtype=np.uint8)
        first, last = _byte(of, start), _byte(of, stop - 1) + 1
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(first)
                text = file.read(last - first)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}; put the file back") from error
        codes = text.translate(CODE_OF_BYTE, b"\r\n")
        if len(codes) != stop - start:
            raise DataError(
                f"{self.path} is not as its index says: {len(codes):,} bases stand where record {of.name!r} should have "
                f"{stop - start:,}; delete {_index_path(self.path)}, or fetch the file again"
            )
        if (at := codes.find(NOT_DNA)) >= 0:
            raise DataError(
                f"{self.path} is not DNA: base {start + at:,} of record {of.name!r} is none of A C G T U and {AMBIGUOUS}; give "
                "nucleotide sequences"
            )
        return np.frombuffer(bytearray(codes), dtype=np.uint8)


def _byte(of: IndexedRecord, base: int) -> int:
    line, column = divmod(base, of.line_bases)
    return of.offset + line * of.line_bytes + column


def _index_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.fai")


def _kept(path: Path, status: os.stat_result) -> tuple[IndexedRecord, ...] | None:
    """The index beside the file, if it is newer, whole, and ends where the file does."""
    try:
        if _index_path(path).stat().st_mtime < status.st_mtime:
            return None
        lines = [line.split("\t") for line in _index_path(path).read_text(encoding="utf-8").splitlines()]
        records = tuple(IndexedRecord(name, *map(int, numbers)) for name, *numbers in lines)
    except (OSError, ValueError, TypeError):
        return None
    if not records or any(r.bases < 1 or r.offset < 0 or not 1 <= r.line_bases < r.line_bytes for r in records):
        return None
    end = _byte(records[-1], records[-1].bases - 1) + 1
    if end > status.st_size:
        return None
    with path.open("rb", buffering=0) as file:  # a file may have grown and kept its time, as copies do
        file.seek(end)
        return None if file.read(_TAIL_BYTES).strip() else records


def leave_index(path: str | os.PathLike[str]) -> None:
    """Have the index stand beside the file: what one process does before several open it.

    Raises:
        DataError: as `IndexedFasta` does, or it cannot be written there.
    """
    file = Path(path)
    try:
        if _kept(file, file.stat()) is not None:
            return
        records = _Scan(file).records()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; give the path of a plain FASTA file") from error
    try:
        _leave(file, records)
    except OSError as error:
        raise DataError(
            f"the index {_index_path(file)} cannot be written ({error.strerror or error}), and every process would make its "
            "own; link the file into a folder that can be written to, or have `samtools faidx` make the index"
        ) from error


def _made(path: Path) -> tuple[IndexedRecord, ...]:
    """The index of the file, which is also left beside it where that can be written."""
    records = _Scan(path).records()
    with contextlib.suppress(OSError):  # a folder that cannot be written to: the index is made again the next time
        _leave(path, records)
    return records


def _leave(path: Path, records: Iterable[IndexedRecord]) -> None:
    """Whole or not at all, whoever else does the same. Raises OSError."""
    text = "".join("\t".join(map(str, record)) + "\n" for record in records)
    temporary = path.with_name(f".{path.name}.fai.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(_index_path(path))
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class _Scan:
    """One pass over a FASTA file, a chunk at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, list[IndexedRecord]()
        self.header: bytes | None = None  # as much of a header line as has been seen
        self.name, self.offset = "", -1
        self.lines = self.line_bytes = self.line_bases = 0
        self.ended = -1  # where a line ended that was shorter than the first
        self.ending = 1  # bytes of its end
        self.last_end = -1
        self.previous = 0  # the byte before the sequence in hand

    def records(self) -> tuple[IndexedRecord, ...]:
        position = 0
        with self.path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                if position == 0 and chunk[:2] == b"\x1f\x8b":
                    raise DataError(
                        f"{self.path} is compressed and cannot be read in the middle; decompress it with gzip -d first"
                    )
                self._take(chunk, position)
                position += len(chunk)
        if self.header is not None:
            self._name(self.header, position)
        self._finish(position)
        if not self.found:
            raise DataError(f"{self.path} holds no FASTA record; a record is a line '>name' and lines of A C G T N below it")
        return tuple(self.found)

    def _take(self, chunk: bytes, position: int) -> None:
        at = 0
        while at < len(chunk):
            if self.header is not None:
                end = chunk.find(b"\n", at)
                self.header += chunk[at : len(chunk) if end < 0 else end]
                at = len(chunk) if end < 0 else end + 1
                if end >= 0:
                    self._name(self.header, position + at)
                continue
            begins_line = position + at in (0, self.last_end + 1) or position + at == self.offset
            if begins_line and chunk[at] == _HEADER:
                self._finish(position + at)
                self.header, at = b"", at + 1
                continue
            following = chunk.find(b"\n>", at)
            stop = len(chunk) if following < 0 else following + 1
            self._sequence(np.frombuffer(chunk, dtype=np.uint8)[at:stop], position + at)
            at = stop

    def _name(self, header: bytes, offset: int) -> None:
        words = header.split(maxsplit=1)
        if not words:
            raise DataError(f"a header of {self.path} before byte {offset:,} has no name; write one word behind its '>'")
        self.header, self.name, self.offset = None, words[0].decode("utf-8", errors="replace"), offset
        self.lines = self.line_bytes = self.line_bases = 0
        self.ended, self.last_end = -1, offset - 1

    def _sequence(self, text: npt.NDArray[np.uint8], position: int) -> None:
        if self.offset < 0:
            raise DataError(f"{self.path} is not FASTA: it does not begin with a header; begin it with '>name'")
        ends = np.flatnonzero(text == _LINE_END) + position
        if len(ends) and not self.lines:
            self.line_bytes = int(ends[0]) - self.offset + 1
            self.line_bases = self.line_bytes - 1 - self._returned(text, int(ends[0]) - position)
        expected = self.offset + self.line_bytes * (self.lines + 1 + np.arange(len(ends))) - 1
        odd = np.flatnonzero(ends != expected)
        if self.ended < 0 and len(odd):
            self.ended, before = int(ends[odd[0]]), self.last_end if odd[0] == 0 else int(ends[odd[0] - 1])
            if self.ended - before > self.line_bytes:
                raise self._uneven()
            self.ending = 1 + self._returned(text, self.ended - position)
        if self.ended >= 0 and len(rest := text[max(0, self.ended + 1 - position) :]) and not np.isin(rest, (10, 13)).all():
            raise self._uneven()
        if len(ends):
            self.last_end = int(ends[-1])
        self.previous = int(text[-1])
        self.lines += len(ends)

    def _returned(self, text: npt.NDArray[np.uint8], end: int) -> bool:
        """Whether a line that ends there ends as on Windows."""
        return bool((text[end - 1] if end else self.previous) == _RETURN)

    def _uneven(self) -> DataError:
        return DataError(
            f"record {self.name!r} of {self.path} has lines of different lengths and cannot be read in the middle; write it "
            "again with equal ones, as `seqkit seq -w 60` does"
        )

    def _finish(self, end: int) -> None:
        if self.offset < 0:
            return
        body = end - self.offset
        if not self.line_bytes:  # one line, which the file ends in
            self.line_bases, self.line_bytes = body, body + 1
        if self.ended >= 0:
            whole, rest = divmod(self.ended + 1 - self.offset, self.line_bytes)
            bases = whole * self.line_bases + max(0, rest - self.ending)
        else:
            whole, rest = divmod(body, self.line_bytes)
            bases = whole * self.line_bases + min(rest, self.line_bases)
        if not bases:
            raise DataError(f"record {self.name!r} of {self.path} has no sequence; add its bases or delete its header")
        self.found.append(IndexedRecord(self.name, bases, self.offset, self.line_bases, self.line_bytes))
        self.offset = -1
