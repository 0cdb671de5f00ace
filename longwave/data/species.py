"""Which of eight vertebrates a window of DNA is from: a locus of each, 100 to 541 kb, homologous to 16:186,965-397,118 of hg38.

Of every locus the first 70 % train, the next 15 % validate and the last 15 % test. A window never holds an unknown base, whose
runs would give an assembly away. Every species is drawn equally often, and held-out parts give as many windows of each, evenly
spread; where a part is short they overlap.

Source: the tutorial of AUGUSTUS's comparative mode (König et al. 2016, Bioinformatics 32:3388); `SOURCES.md` says more. The
task is that of HyenaDNA (2306.15794, section 4.4), which has whole genomes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from longwave.data import draws
from longwave.data.codes import ALPHABET, UNKNOWN, Codes, Record
from longwave.data.examples import EVERY, Examples, Split, check_batch
from longwave.data.fasta import read_fasta
from longwave.data.packages import fetched
from longwave.errors import ArgumentError, DataError

SPECIES = ("human", "macaque", "mouse", "rat", "cow", "dog", "opossum", "chicken")
HELD_OUT_SHARE = 0.15
HELD_OUT_WINDOWS = 64
"""Windows of a species in validation and test, each."""

_PACKAGE = "augustus-doc"
_FOLDER = "usr/share/doc/augustus/tutorial-cgp/data/genomes/"
_FILES = {
    "hg38.fa": "b391dd0ef768bfbfae787ce9fd947e9d380e37d7b2817579042bc543a6d31c7a",
    "rheMac3.fa": "0e3b8af8ed04b16897ebb2ea05c4b6d7ea7b7b0c7f5bf1e589bc76d12ab150e8",
    "mm10.fa": "3be109e6293c18ab0e278e2226169186b043aeb9edb0977d55d82e97454dcd48",
    "rn6.fa": "33531fa8240447d4483f3cbc85b60fe92c442b63eec840bddb2d0b73998c9369",
    "bosTau8.fa": "93c4d4062d92f0d43b31f8d55a496962b4ec85e3d5290bae4591e447ce6a5768",
    "canFam3.fa": "6865d6493c812a10171be1ee2101a9884763adb80dd2012f540c13b755108074",
    "monDom5.fa": "18e0ea52d6c4d3d72c363d9803c7c4fed89c2e3d3d187b162fd0e89d52fb0554",
    "galGal4.fa": "67244a3eebf37b9349e2bf4c90e428c195353b5039b42f33bbc4ff4460f72273",
}


def load(length: int, folder: str | os.PathLike[str] | None = None) -> Split:
    """Windows of eight loci, or of files of your own.

    Args:
        length: bases in a window, ≥ 1.
        folder: with one FASTA file a class, in the order of their names; without it the package's eight.

    Returns:
        inputs (n, length) uint8, 0…3 = A C G T; labels (n,), the number in `SPECIES`, or of the file.

    Raises:
        ArgumentError: a length below 1.
        DataError: a file cannot be had or read, or a part has no window of known bases.
    """
    if length < 1:
        raise ArgumentError(f"a window has at least 1 base and a length of {length} was given")
    names, loci = _loci(folder)
    train, validation, test = (LocusWindows(part, length) for part in zip(*loci, strict=True))
    source = ", ".join(SPECIES if folder is None else names)
    return Split(train, validation.spread(HELD_OUT_WINDOWS), test.spread(HELD_OUT_WINDOWS), len(loci), len(ALPHABET), source)


def training_records(folder: str | os.PathLike[str] | None = None) -> list[Record]:
    """What of every locus trains: DNA without a base of what is held out.

    Raises:
        DataError: a file cannot be had or read.
    """
    return [Record(name, train) for name, (train, *_) in zip(*_loci(folder), strict=True)]


def _loci(folder: str | os.PathLike[str] | None) -> tuple[list[str], list[list[Codes]]]:
    """The names of the files, and what of each trains, validates and tests."""
    instead = "give a folder of FASTA files of your own"
    files = (
        sorted(path for path in Path(folder).glob("*") if path.is_file())
        if folder
        else [fetched(_PACKAGE, _FOLDER + name, sha256, instead=instead) for name, sha256 in _FILES.items()]
    )
    if len(files) < 2:
        raise DataError(f"{folder} has {len(files)} files and telling apart takes two; {instead}")
    loci = []
    for path in files:
        codes = read_fasta(path)[0].codes
        held_out = int(HELD_OUT_SHARE * codes.size)
        loci.append(np.split(codes, [codes.size - 2 * held_out, codes.size - held_out]))
    return [path.name for path in files], loci


class LocusWindows:
    """Random windows of known bases, the loci in turns, every window of one equally likely: a `Source`."""

    def __init__(self, loci: Sequence[Codes], length: int) -> None:
        """
        Args:
            loci: (n,) uint8 each, 0…4 = A C G T N.
            length: bases in a window, ≥ 1.

        Raises:
            DataError: a locus has no window of known bases.
        """
        self.loci, self.length = loci, length
        self.starts = []
        for number, codes in enumerate(loci):
            unknown = np.concatenate([[0], np.cumsum(codes == UNKNOWN)])
            starts = np.flatnonzero(unknown[length:] == unknown[: len(unknown) - length]) if codes.size >= length else ()
            if not len(starts):
                raise DataError(
                    f"a part of locus {number} has no window of {length:,} known bases among its {codes.size:,}; "
                    "choose a shorter length or give more DNA"
                )
            self.starts.append(np.asarray(starts, dtype=np.int64))

    def batch(self, step: int, size: int, seed: int = 0, rank: int = 0, rows: slice = EVERY) -> Examples:
        """`size` windows, or `rows` of them; Raises ArgumentError for a number out of range."""
        check_batch(step, size)
        loci = np.arange(step * size, (step + 1) * size)[rows] % len(self.loci)
        limits = np.array([len(starts) for starts in self.starts], dtype=np.int64)[loci]
        return self._windows(loci, (draws.unit(draws.words(size, seed, step, rank)[rows]) * limits).astype(np.int64))

    def spread(self, count: int) -> Examples:
        """`count` windows of every locus, evenly spread over it, the loci in turn."""
        loci = np.tile(np.arange(len(self.loci)), count)
        limits = np.array([len(starts) for starts in self.starts], dtype=np.int64)[loci]
        return self._windows(loci, np.repeat(np.arange(count), len(self.loci)) * (limits - 1) // max(count - 1, 1))

    def _windows(self, loci: draws.Indices, places: draws.Indices) -> Examples:
        firsts = [(locus, int(self.starts[locus][place])) for locus, place in zip(loci.tolist(), places.tolist(), strict=True)]
        windows = np.stack([self.loci[locus][first : first + self.length] for locus, first in firsts])
        return Examples(torch.from_numpy(windows), torch.from_numpy(loci))
