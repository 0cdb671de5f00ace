"""Exon, intron or neither, for every base: genes of the fruit fly with about 1,000 bases on both sides.

A record is a gene as GenBank writes it, turned over where the gene is on the other strand, so that every gene reads
forward. Its coding exons are labelled `EXON`, what lies between them `INTRON`, all else `BETWEEN`: the untranslated ends of
its transcript, which the file does not mark, and its neighbourhood.

The file for training is split along the chromosome, the last tenth of its genes for validation; the file for testing has
other genes. No two records overlap: files in which records do are refused.

Source: the tutorial of AUGUSTUS (Hoff and Stanke 2019, Current Protocols in Bioinformatics 65:e57); `SOURCES.md` says more.
Format: GenBank flat files, NCBI release notes, section 3.4.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from longwave.data import draws
from longwave.data.codes import ALPHABET, UNKNOWN, Codes, Record, encode, reverse_complement
from longwave.data.examples import EVERY, IGNORE, Examples, Split, check_batch
from longwave.data.packages import fetched
from longwave.errors import ArgumentError, DataError

BETWEEN, EXON, INTRON = 0, 1, 2
VALIDATION_SHARE = 10
"""Of the genes for training one in this many validates."""

_PACKAGE = "augustus-doc"
_FOLDER = "usr/share/doc/augustus/tutorial/results/"
_TRAIN = ("genes.gb.train", "e401b3fe83568b5337e9f501dfa3291c8deea44ebbaf20d62a1e3ed308cea0a1")
_TEST = ("genes.gb.test", "d279fdf4c1e952fb2109bc559d269cb71590be618a6a7b6fa98730e631edd050")

Labels = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Gene:
    """A gene and its neighbourhood, read forward.

    Attributes:
        name: of the record: CHROMOSOME_FIRST-LAST in these files, counted from 1.
        codes: (n,) uint8, 0…4 = A C G T N.
        labels: (n,) int8, `BETWEEN`, `EXON` or `INTRON`.
    """

    name: str
    codes: Codes
    labels: Labels

    @property
    def introns(self) -> npt.NDArray[np.int64]:
        """(m, 2) int64: first index and end (exclusive) of every intron, ascending."""
        inside = (self.labels == INTRON).view(np.int8)
        return np.flatnonzero(np.diff(inside, prepend=np.int8(0), append=np.int8(0))).reshape(-1, 2)


def load(length: int, train: str | os.PathLike[str] | None = None, test: str | os.PathLike[str] | None = None) -> Split:
    """Windows of labelled bases.

    Training windows are random: a gene by its length, then a place in it. Held-out genes are cut into windows that follow
    each other. What a window has beyond its gene is N, labelled `IGNORE`.

    Args:
        length: bases in a window, ≥ 1.
        train, test: GenBank files with one CDS a record; without them the package's.

    Returns:
        inputs (n, length) uint8, 0…4 = A C G T N; labels (n, length), `BETWEEN`, `EXON`, `INTRON` or `IGNORE`.

    Raises:
        ArgumentError: a length below 1.
        DataError: a file cannot be had or read, or genes overlap.
    """
    if length < 1:
        raise ArgumentError(f"a window has at least 1 base and a length of {length} was given")
    first, validation, second = _parts(train, test)
    return Split(
        GeneWindows(first, length),
        consecutive(validation, length),
        consecutive(second, length),
        classes=3,
        vocabulary=len(ALPHABET),
        source=f"{len(first) + len(validation)} and {len(second)} annotated genes of chr2R, dm3",
    )


def training_records(train: str | os.PathLike[str] | None = None, test: str | os.PathLike[str] | None = None) -> list[Record]:
    """The genes that train, without their labels: DNA without a base of what is held out.

    Raises:
        DataError: a file cannot be had or read, or genes overlap.
    """
    return [Record(gene.name, gene.codes) for gene in _parts(train, test)[0]]


def _parts(
    train: str | os.PathLike[str] | None, test: str | os.PathLike[str] | None
) -> tuple[list[Gene], list[Gene], list[Gene]]:
    """The genes that train, validate and test."""
    instead = "give GenBank files of your own, for training and for testing"
    first, second = (
        read_genbank(given or fetched(_PACKAGE, _FOLDER + file, sha256, instead=instead))
        for given, (file, sha256) in ((train, _TRAIN), (test, _TEST))
    )
    first = sorted(first, key=_place)
    refuse_overlaps([*first, *second])
    held_out = -(-len(first) // VALIDATION_SHARE)
    if held_out == len(first):
        raise DataError("one gene cannot both train and validate; give a file with at least two")
    return first[:-held_out], first[-held_out:], second


def read_genbank(path: str | os.PathLike[str]) -> list[Gene]:
    """Read every record of a GenBank file with one CDS each.

    Raises:
        DataError: the file cannot be read, or a record has no sequence, no CDS or several, or one that does not fit.
    """
    try:
        with open(path, encoding="ascii") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}); give a GenBank file of DNA") from error
    genes = [_gene(record, path) for record in re.split(r"^//[ \t]*$", text, flags=re.MULTILINE) if record.strip()]
    if not genes:
        raise DataError(f"{path} holds no GenBank record; a record begins with LOCUS and ends with //")
    return genes


def _gene(record: str, path: str | os.PathLike[str]) -> Gene:
    head, _, sequence = record.partition("\nORIGIN")
    words = head.split(maxsplit=2)
    if not sequence or len(words) < 2 or words[0] != "LOCUS":
        raise DataError(f"a record of {path} has no LOCUS or no ORIGIN; give a GenBank file with sequences")
    name = words[1]
    found = re.findall(r"^ {5}CDS +([^/]+?)$(?=\n {21}/|\n\S|\Z)", head, flags=re.MULTILINE)
    if len(found) != 1:
        raise DataError(f"the record {name} of {path} has {len(found)} CDS; give a GenBank file with one a record")
    location = re.sub(r"\s", "", found[0])
    codes = encode(re.sub(r"[\s\d]", "", sequence))
    exons = np.array([(int(a) - 1, int(b or a)) for a, b in re.findall(r"(\d+)(?:\.\.>?(\d+))?", location)], dtype=np.int64)
    if not len(exons) or not (exons.min() >= 0 and exons.max() <= codes.size and (np.diff(exons.reshape(-1)) > 0).all()):
        raise DataError(f"the CDS {location[:60]} of {name} in {path} does not fit its {codes.size:,} bases; mend the record")
    labels = np.full(codes.size, BETWEEN, dtype=np.int8)
    labels[exons[0, 0] : exons[-1, 1]] = INTRON
    for first, end in exons:
        labels[first:end] = EXON
    if location.startswith("complement"):
        codes, labels = reverse_complement(codes), labels[::-1].copy()
    return Gene(name, codes, labels)


def _place(gene: Gene) -> tuple[str, int, int]:
    """Chromosome, first base and end (exclusive), from the name; a record that tells none stands for itself."""
    found = re.fullmatch(r"(.+)_(\d+)-(\d+)", gene.name)
    return (found[1], int(found[2]) - 1, int(found[3])) if found else (gene.name, 0, gene.codes.size)


def refuse_overlaps(genes: Sequence[Gene]) -> None:
    """Refuse records that share bases, which would train on what is scored.

    Raises:
        DataError: two records overlap.
    """
    placed = sorted((_place(gene), gene.name) for gene in genes)
    for ((chromosome, _, end), name), ((other, first, _), after) in pairwise(placed):
        if chromosome == other and first < end:
            raise DataError(f"the records {name} and {after} share bases; give genes that stand apart")


class GeneWindows:
    """Random windows of genes, every base as likely as any other: a `Source`."""

    def __init__(self, genes: Sequence[Gene], length: int) -> None:
        """
        Args:
            genes: at least one.
            length: bases in a window, ≥ 1.
        """
        self.genes, self.length = genes, length
        # A gene has as many windows as it has bases, or one if it fits into it.
        self._counts = np.array([max(gene.codes.size - length + 1, 1) for gene in genes], dtype=np.int64)
        self._weights = np.cumsum([gene.codes.size for gene in genes], dtype=np.int64)

    def batch(self, step: int, size: int, seed: int = 0, rank: int = 0, rows: slice = EVERY) -> Examples:
        """`size` windows, or `rows` of them; Raises ArgumentError for a number out of range."""
        check_batch(step, size)
        drawn = draws.words(2 * size, seed, step, rank).reshape(2, size)[:, rows]
        which = np.searchsorted(self._weights, draws.below(int(self._weights[-1]), drawn[0]), side="right")
        starts = (draws.unit(drawn[1]) * self._counts[which]).astype(np.int64)
        return _windows(
            [(self.genes[gene], start) for gene, start in zip(which.tolist(), starts.tolist(), strict=True)], self.length
        )


def consecutive(genes: Sequence[Gene], length: int) -> Examples:
    """Genes cut into windows that follow each other, every base in one of them, in order."""
    return _windows([(gene, start) for gene in genes for start in range(0, gene.codes.size, length)], length)


def _windows(places: Sequence[tuple[Gene, int]], length: int) -> Examples:
    inputs = np.full((len(places), length), UNKNOWN, dtype=np.uint8)
    labels = np.full((len(places), length), IGNORE, dtype=np.int64)
    for row, (gene, start) in enumerate(places):
        part = slice(0, min(length, gene.codes.size - start))
        inputs[row, part] = gene.codes[start : start + length]
        labels[row, part] = gene.labels[start : start + length]
    return Examples(torch.from_numpy(inputs), torch.from_numpy(labels))
