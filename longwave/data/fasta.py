"""FASTA files of DNA as records of codes.

What is read: plain or gzip files (told by their first bytes, whatever the name; bgzip and several gzip members too),
any number of records, both cases, Unix and Windows line ends, blank lines and blanks inside lines, lines of any length,
a byte-order mark, and comment lines that begin with ';'.

What letters mean: U is T. The ambiguity codes R Y S W K M B D H V N become N, and so does the gap '-': the bases on its
two sides are not neighbours in the molecule, and N is what says so, because no model is asked to predict it. Everything
else (E F I J L O P Q X Z, '*', '.', digits) is refused: those mark protein, alignments or other formats.

Names may repeat: they label records (reads, contigs of several assemblies) and nothing here looks a record up by name.

Source: the FASTA definition of the NCBI (https://www.ncbi.nlm.nih.gov/genbank/fastaformat/); gzip RFC 1952; BGZF from
the SAM specification, section 4.1.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, cast

import numpy as np

from longwave.data.codes import (
    ALPHABET,
    AMBIGUOUS,
    CODE_OF_BYTE,
    NOT_DNA,
    Codes,
    Record,
    decode,
    encode,
)
from longwave.errors import DataError

__all__ = ["ALPHABET", "Codes", "Record", "decode", "encode", "read_fasta"]

_BLANKS = b" \t\r\n"
_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A whole bgzip file ends with this empty block. One cut between two blocks is whole to gzip; only the missing end
# tells.
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def read_fasta(path: str | os.PathLike[str]) -> list[Record]:
    """Read every record of a FASTA file of DNA, plain or gzip; the module docstring says what is accepted.

    Beside the codes themselves (one byte a base, up to an eighth more while a record grows) it holds a few MB.

    Args:
        path: the file.

    Returns:
        The records in file order, at least one, each with at least one base.

    Raises:
        DataError: the file is missing, a directory, empty, cut off, binary, not FASTA, or not DNA; a record has no name
        or
            no sequence.
    """
    records: list[Record] = []
    name, name_line, codes = "", 0, bytearray()

    def finish() -> None:
        if not codes:
            raise DataError(f"record {name!r} (line {name_line}) of {path} has no sequence; add its bases or delete its header")
        records.append(Record(name, np.frombuffer(codes, dtype=np.uint8)))

    for line, is_header, piece in _pieces(_chunks(path)):
        if is_header:
            if name_line:
                finish()
            name, name_line, codes = _name_in(piece, line, path), line, bytearray()
            continue
        found = piece.translate(CODE_OF_BYTE, _BLANKS)
        if found and (not name_line or NOT_DNA in found):
            raise _refusal(piece, line, name if name_line else None, path)
        codes += found
    if not name_line:
        raise DataError(f"{path} holds no FASTA record; a record is a line '>name' and lines of A C G T N below it")
    finish()
    return records


def _pieces(chunks: Iterable[bytes]) -> Iterator[tuple[int, bool, bytes]]:
    """Cut a stream into whole header lines and pieces of sequence, dropping comment lines.

    Yields the number of the piece's first line, whether it is a header, and its bytes. Only a header or comment waits
    for its end of line; sequence flows through, so that a chromosome on one line needs no more memory than one on many.
    """
    line, begun, at_line_start = 1, b"", True
    for chunk in chunks:
        text, begun = begun + chunk, b""
        position = 0
        for mark in _line_marks(text, at_line_start):
            if mark > position:
                yield line, False, text[position:mark]
                line += text.count(b"\n", position, mark)
            end = text.find(b"\n", mark)
            if end < 0:
                begun, position = text[mark:], len(text)
                break
            if text[mark] == ord(">"):
                yield line, True, text[mark:end]
            line += 1
            position = end + 1
        if position < len(text):
            yield line, False, text[position:]
            line += text.count(b"\n", position)
        at_line_start = bool(begun) or text.endswith(b"\n")
    if begun.startswith(b">"):
        yield line, True, begun


def _line_marks(text: bytes, at_line_start: bool) -> list[int]:
    """Where a line of `text` begins with '>' or ';'; `at_line_start` says whether `text` itself begins a line."""
    array = np.frombuffer(text, dtype=np.uint8)
    marks = np.flatnonzero((array == ord(">")) | (array == ord(";")))
    begins_line = np.where(marks > 0, array[marks - 1] == ord("\n"), at_line_start)
    return cast("list[int]", marks[begins_line].tolist())


def _name_in(header: bytes, line: int, path: str | os.PathLike[str]) -> str:
    if b"\r" in header.rstrip(b"\r"):
        raise DataError(f"line {line} of {path} holds a bare carriage return; convert its line ends to '\\n' or '\\r\\n' first")
    words = header[1:].split(maxsplit=1)
    if not words:
        raise DataError(f"the header in line {line} of {path} has no name; write one word behind its '>'")
    return words[0].decode("utf-8", errors="replace")


def _refusal(piece: bytes, line: int, name: str | None, path: str | os.PathLike[str]) -> DataError:
    """The sentence for a piece of sequence that does not belong: `name` is its record's, None before the first
    header."""
    accepted = b"" if name is None else bytes(byte for byte in range(256) if CODE_OF_BYTE[byte] != NOT_DNA)
    rest = piece.lstrip(_BLANKS + accepted)
    byte, line = rest[0], line + piece.count(b"\n", 0, len(piece) - len(rest))
    if not 32 < byte < 127:
        return DataError(
            f"{path} is not FASTA text: line {line} holds the byte 0x{byte:02x}; give a FASTA file of DNA, plain or gzip"
        )
    if name is None:
        return DataError(
            f"{path} is not FASTA: {chr(byte)!r} in line {line} stands before the first header; begin it with '>name'"
        )
    return DataError(
        f"{path} is not DNA: {chr(byte)!r} in line {line}, record {name!r}, is none of A C G T U and {AMBIGUOUS}; "
        "give nucleotide sequences"
    )


def _chunks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The text of the file, decompressed if it is gzip."""
    try:
        with open(path, "rb") as file:
            is_gzip = file.peek(2)[:2] == _GZIP_MAGIC
            if is_gzip:
                _refuse_cut_bgzf(file)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if is_gzip else file
            head = stream.read(len(_BYTE_ORDER_MARK))
            if not head:
                raise DataError(f"{path} is empty; give a FASTA file with at least one record")
            if head != _BYTE_ORDER_MARK:
                yield head
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged or cut-off gzip file ({error}); fetch or compress it again") from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; give the path of a FASTA file, plain or gzip"
        ) from error


def _refuse_cut_bgzf(file: io.BufferedReader) -> None:
    """Raise EOFError if `file` is bgzip without its closing block; leaves the position at 0."""
    head = file.peek(14)[:14]
    if not file.seekable() or len(head) < 14 or head[12:14] != b"BC" or not head[3] & 4:
        return
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(_BGZF_END)))
    end = file.read()
    file.seek(0)
    if end != _BGZF_END:
        raise EOFError("bgzip without its closing block")
