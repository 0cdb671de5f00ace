"""UCSC .2bit files: DNA at two bits a base, with its runs of N.

`python -m longwave.data.twobit IN.fa.gz OUT.2bit` makes one from a FASTA file. Files are written little endian, version
0, without mask blocks; either byte order is read, and mask blocks (the lower case of a FASTA file) are skipped.

Layout, all numbers uint32 unless said:
    header      0x1A412743, version = 0, number of records, 0
    index       per record: name length (uint8), name, offset of the record in the file
    record      n, N-run count, N-run starts, N-run lengths, mask count, mask starts, mask lengths, 0, bases
The bases take ceil(n/4) bytes, four in each, the first in its highest bits; T C A G are 0 1 2 3; an N is written as T.

Source: https://genome.ucsc.edu/FAQ/FAQformat.html#format7
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longwave.data.codes import UNKNOWN, Codes, Record, check_codes, unknown_runs
from longwave.data.fasta import read_fasta
from longwave.errors import ArgumentError, DataError, LongwaveError

_SIGNATURE = 0x1A412743
_OFFSET_LIMIT = 1 << 32
_CODE_OF_BITS = np.array([3, 1, 0, 2], dtype=np.uint8)  # T C A G
_BITS_OF_CODE = np.array([2, 1, 3, 0, 0], dtype=np.uint8)  # A C G T N
_SHIFTS = np.array([6, 4, 2, 0], dtype=np.uint8)
_CODES_OF_BYTE = _CODE_OF_BITS[(np.arange(256)[:, None] >> _SHIFTS) & 3]


def read_twobit(path: str | os.PathLike[str]) -> list[Record]:
    """Read every record of a .2bit file.

    Args:
        path: the file.

    Returns:
        The records in the order of the index, at least one, each with at least one base.

    Raises:
        DataError: the file is missing, cut off, of another format or version, or contradicts itself.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; give the path of a .2bit file") from error
    return parse_twobit(data, str(path))


def parse_twobit(data: bytes, source: str) -> list[Record]:
    """Read the bytes of a .2bit file; `source` names them in errors. Returns and raises as `read_twobit`."""
    reader = _Reader(data, source)
    if reader.uint32() != _SIGNATURE:
        reader = _Reader(data, source, order=">")
        if reader.uint32() != _SIGNATURE:
            raise DataError(f"{source} is not a .2bit file (its first bytes are {data[:4].hex()}); give one, or FASTA")
    if (version := reader.uint32()) != 0:
        raise DataError(f"{source} is .2bit version {version} and only version 0 is read; write it again as version 0")
    count, _ = reader.uint32(), reader.uint32()
    if not count:
        raise DataError(f"{source} holds no record; write at least one sequence into it")
    index = []
    for _ in range(count):
        name = reader.take(reader.take(1)[0]).decode("utf-8", errors="replace")
        index.append((name, reader.uint32()))
    return [Record(name, reader.codes_at(offset, name)) for name, offset in index]


class _Reader:
    """A position in the bytes of a .2bit file; whatever would pass the end is a DataError."""

    def __init__(self, data: bytes, source: str, order: str = "<") -> None:
        self.data, self.source, self.position = data, source, 0
        self.dtype = np.dtype(f"{order}u4")

    def take(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > len(self.data):
            raise DataError(
                f"{self.source} is cut off: it has {len(self.data):,} bytes and its contents go on to byte "
                f"{self.position:,} or beyond; fetch or write it again"
            )
        return self.data[start : self.position]

    def uint32(self) -> int:
        return int(self.uint32s(1)[0])

    def uint32s(self, count: int) -> npt.NDArray[np.int64]:
        return np.frombuffer(self.take(4 * count), dtype=self.dtype).astype(np.int64)

    def codes_at(self, offset: int, name: str) -> Codes:
        self.position = offset
        n = self.uint32()
        run_count = self.uint32()
        starts, lengths = self.uint32s(run_count), self.uint32s(run_count)
        self.take(8 * self.uint32())  # mask blocks: case is not part of a base here
        self.uint32()  # reserved
        packed = np.frombuffer(self.take((n + 3) // 4), dtype=np.uint8)
        if not n:
            raise DataError(f"record {name!r} of {self.source} has no sequence; write the file again without it")
        if run_count and int((starts + lengths).max()) > n:
            raise DataError(
                f"record {name!r} of {self.source} has {n:,} bases and a run of N beyond them; fetch or write it again"
            )
        codes = np.ascontiguousarray(_CODES_OF_BYTE[packed].reshape(-1)[:n])
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            codes[start : start + length] = UNKNOWN
        return codes


def write_twobit(records: Sequence[Record], path: str | os.PathLike[str]) -> None:
    """Write records to a .2bit file, little endian, version 0; the file appears whole or not at all.

    Args:
        records: at least one, each with at least one base; names differ and take at most 255 bytes of UTF-8.
        path: the file; one that exists is replaced.

    Raises:
        ArgumentError: the records cannot be written in this format.
        DataError: the path cannot be written.
    """
    data = _serialize(records)
    path = Path(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)  # a temporary file is private, and the finished one is not meant to be
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; name a file in a folder you own") from error


def _serialize(records: Sequence[Record]) -> bytes:
    if not records:
        raise ArgumentError("a .2bit file needs at least one record and none was given")
    names = [record.name.encode("utf-8") for record in records]
    if len(set(names)) < len(names):
        repeated = next(name for i, name in enumerate(names) if name in names[:i]).decode("utf-8")
        raise ArgumentError(f"a .2bit file finds records by name and {repeated!r} is given twice; rename one")
    if len(longest := max(names, key=len)) > 255:
        raise ArgumentError(
            f"a .2bit file holds names of at most 255 bytes and {longest.decode('utf-8')!r} has {len(longest)}; shorten it"
        )
    bodies = [_body(record) for record in records]
    offset = 16 + sum(5 + len(name) for name in names)
    parts = [struct.pack("<4I", _SIGNATURE, 0, len(records), 0)]
    for name, body in zip(names, bodies, strict=True):
        if offset >= _OFFSET_LIMIT:
            raise ArgumentError(
                f"a .2bit file of version 0 addresses 4 GiB and record {name.decode('utf-8')!r} would begin beyond "
                "them; write several files"
            )
        parts.append(struct.pack("<B", len(name)) + name + struct.pack("<I", offset))
        offset += len(body)
    return b"".join(parts + bodies)


def _body(record: Record) -> bytes:
    codes = check_codes(record.codes)
    if not codes.size:
        raise ArgumentError(f"record {record.name!r} has no sequence; give each record at least one base")
    runs = unknown_runs(codes)
    bits = np.zeros((codes.size + 3) // 4 * 4, dtype=np.uint8)
    bits[: codes.size] = _BITS_OF_CODE[codes]
    packed = np.bitwise_or.reduce(bits.reshape(-1, 4) << _SHIFTS, axis=1)
    run_block = np.concatenate([runs[:, 0], runs[:, 1] - runs[:, 0]]).astype("<u4").tobytes()
    return struct.pack("<2I", codes.size, len(runs)) + run_block + struct.pack("<2I", 0, 0) + packed.tobytes()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m longwave.data.twobit", description="FASTA to .2bit.")
    parser.add_argument("fasta", help="FASTA file of DNA, plain or gzip")
    parser.add_argument("twobit", help="the .2bit file to write")
    args = parser.parse_args(argv)
    try:
        write_twobit(read_fasta(args.fasta), args.twobit)
    except LongwaveError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
