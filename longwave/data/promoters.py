"""Promoter or background: 2,000 bases of the fruit fly's chromosome arm 2R, from before a gene or from elsewhere.

The promoters are the 2,000 bases upstream of every RefSeq transcript on chr2R of the assembly dm3: 4,954, of which 3,414 stand
in different places. The background is cut from the same chromosome: as many windows of 2,000 bases, none of which overlaps a
promoter or another of them, with the promoters' strands and from the same blocks as far as those have room.

The chromosome is cut into blocks of 200,000 bases; of ten blocks in a row eight train, one validates and one tests, and what
stands across two blocks is left out. So no base is in two parts. Sequences that resemble each other, such as transposons,
may still be in two.

Source: Biostrings' dm3_upstream2000 and the chromosome of AUGUSTUS's tutorial; `SOURCES.md` says more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longwave.data import draws
from longwave.data.codes import ALPHABET, UNKNOWN, Codes, Record, reverse_complement
from longwave.data.examples import Examples, Split
from longwave.data.fasta import read_fasta
from longwave.data.packages import fetched
from longwave.errors import ArgumentError, DataError

LENGTH = 2_000
BLOCK = 200_000
PARTS = np.array([0] * 8 + [1, 2])
"""Which of training, validation and test a block belongs to, by its number modulo ten."""
PROMOTER = 1
BACKGROUND = 0

_UPSTREAM = (
    "r-bioc-biostrings",
    "usr/lib/R/site-library/Biostrings/extdata/dm3_upstream2000.fa.gz",
    "78076ae22e0084cfb4d6775b000ed9d8fadcefe2469aacce76b78f5a427a08f4",
)
_CHROMOSOME = (
    "augustus-doc",
    "usr/share/doc/augustus/tutorial/data/chr2R.fa",
    "dcf0f58d162c93f8f629d2f55374e916015987092f0fefdd0bbeb03c3e854547",
)
_PLACE = re.compile(r"_up_2000_(?P<chromosome>\w+)_(?P<start>\d+)_(?P<strand>[fr])$")

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Where the windows of a part stand, in the order of its examples.

    Attributes:
        starts: (n,) int64, the first index.
        strands: (n,) int64, 1 for windows that are read on the other strand.
        labels: (n,) int64, `PROMOTER` or `BACKGROUND`.
    """

    starts: Places
    strands: Places
    labels: Places


def load(
    upstream: str | os.PathLike[str] | None = None,
    chromosome: str | os.PathLike[str] | None = None,
    *,
    length: int = LENGTH,
) -> Split:
    """Promoters and background, as many of each in every part.

    Args:
        upstream: FASTA of promoters of 2,000 bases, named …_up_2000_CHROMOSOME_START_f, or _r for the other strand, START
            counted from 1; without it the package's.
        chromosome: FASTA with the chromosome they stand on as its first record; without it chr2R.
        length: the last so many bases of each, 1 to 2,000: those next to the gene.

    Returns:
        inputs (n, length) uint8, 0…4 = A C G T N; labels (n,), `PROMOTER` or `BACKGROUND`.

    Raises:
        DataError: a file cannot be had or read, the two do not belong together, or a part is empty.
        ArgumentError: a length out of range.
    """
    if not 1 <= length <= LENGTH:
        raise ArgumentError(f"a promoter here has {LENGTH:,} bases, but the last {length:,} were asked; give 1 to {LENGTH:,}")
    instead = "give FASTA files of your own, of promoters and of their chromosome"
    record = read_fasta(chromosome or fetched(*_CHROMOSOME, instead=instead))[0]
    found = read_fasta(upstream or fetched(*_UPSTREAM, instead=instead))
    windows = placed(*_places(found, record), record.codes)
    train, validation, test = (_cut(part, record.codes, length) for part in windows)
    source = f"promoters and background of {record.name}, dm3"
    return Split(train, validation, test, classes=2, vocabulary=len(ALPHABET), source=source)


def training_records(chromosome: str | os.PathLike[str] | None = None) -> list[Record]:
    """The chromosome's blocks that train, those in a row joined: DNA without a base of what is held out.

    Raises:
        DataError: the file cannot be had or read.
    """
    record = read_fasta(chromosome or fetched(*_CHROMOSOME, instead="give the FASTA file of a chromosome"))[0]
    whole, trained = len(PARTS) * BLOCK, int((PARTS == 0).sum()) * BLOCK
    return [
        Record(f"{record.name}:{first + 1}", record.codes[first : first + trained])
        for first in range(0, len(record.codes), whole)
    ]


def _places(promoters: Sequence[Record], record: Record) -> tuple[Places, Places]:
    """The first index of every promoter on `record`, ascending, and its strand, 1 for the other one; each place once."""
    places = set()
    for promoter in promoters:
        place = _PLACE.search(promoter.name)
        if not place or place["chromosome"] != record.name:
            continue
        start, strand = int(place["start"]) - 1, int(place["strand"] == "r")
        there = record.codes[start : start + LENGTH]
        if not np.array_equal(reverse_complement(there) if strand else there, promoter.codes):
            raise DataError(
                f"the promoter {promoter.name} is not what {record.name} has at {start + 1:,}; give files of one assembly"
            )
        places.add((start, strand))
    if not places:
        raise DataError(
            f"no promoter stands on {record.name}; give promoters whose names end in _up_2000_{record.name}_START_f"
        )
    starts, strands = np.array(sorted(places), dtype=np.int64).T
    return starts, strands


def placed(starts: Places, strands: Places, codes: Codes) -> list[Windows]:
    """Where the windows of training, validation and test stand, from where promoters do.

    Args:
        starts: (n,) the first index of every promoter, ascending.
        strands: (n,) 1 for those of the other strand.
        codes: (m,) uint8, the chromosome.

    Raises:
        DataError: a part has no promoter or no background.
    """
    free = _background(starts, codes)
    parts = []
    for number, name in enumerate(draws.SPLITS):
        mine = _part(starts) == number
        positive, strand = starts[mine], strands[mine]
        negative = _like(positive, free[_part(free) == number])
        if not len(positive) or not len(negative):
            raise DataError(f"the {name} blocks hold no promoter or no background; give a chromosome of some million bases")
        order = draws.order(len(positive) + len(negative), 0, number)
        labels = np.repeat([PROMOTER, BACKGROUND], [len(positive), len(negative)])
        both = np.concatenate([strand, strand[: len(negative)]])
        parts.append(Windows(np.concatenate([positive, negative])[order], both[order], labels[order]))
    return parts


def _cut(windows: Windows, codes: Codes, length: int) -> Examples:
    cut = codes[windows.starts[:, None] + np.arange(LENGTH)]
    cut[windows.strands == 1] = reverse_complement(cut[windows.strands == 1])
    return Examples(torch.from_numpy(cut[:, LENGTH - length :].copy()), torch.from_numpy(windows.labels))


def _part(starts: Places) -> Places:
    """The number of the part in which the windows from `starts` lie as a whole, -1 where they reach into another block."""
    block = starts // BLOCK
    inside = (starts + LENGTH - 1) // BLOCK == block
    return np.where(inside, PARTS[block % len(PARTS)], -1)


def _background(starts: Places, codes: Codes) -> Places:
    """Where windows that overlap neither a promoter nor each other nor an unknown base begin, ascending."""
    taken = codes == UNKNOWN
    for start in starts:
        taken[start : start + LENGTH] = True
    edges = np.flatnonzero(np.diff(taken.view(np.int8), prepend=np.int8(1), append=np.int8(1))).reshape(-1, 2)
    edges = edges[edges[:, 1] - edges[:, 0] >= LENGTH]
    # A gap begins where transcription does: a window from its first base would tell itself by that.
    slack = (edges[:, 1] - edges[:, 0]) % LENGTH
    firsts = edges[:, 0] + (draws.unit(draws.words(len(edges), 0, len(draws.SPLITS))) * (slack + 1)).astype(np.int64)
    windows = [np.arange(first, end - LENGTH + 1, LENGTH) for first, end in zip(firsts, edges[:, 1], strict=True)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *windows])


def _like(positive: Places, free: Places) -> Places:
    """As many of `free` as there are promoters, from the same blocks as far as those reach: genes are not spread evenly."""
    shuffled = free[draws.order(len(free), 0, len(draws.SPLITS))]
    wanted = {int(block): int(count) for block, count in zip(*np.unique(positive // BLOCK, return_counts=True), strict=True)}
    beyond = np.empty(len(shuffled), dtype=np.int64)
    seen: dict[int, int] = {}
    for index, block in enumerate((shuffled // BLOCK).tolist()):
        seen[block] = seen.get(block, 0) + 1
        beyond[index] = max(0, seen[block] - wanted.get(block, 0))
    return shuffled[np.argsort(beyond, kind="stable")][: len(positive)]
