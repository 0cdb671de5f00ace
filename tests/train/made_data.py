"""Files of every task's own kind, small and easy to learn from: the options that name them."""

from __future__ import annotations

import gzip
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np


def _bases(rng: np.random.Generator, count: int, gc: float) -> str:
    shares = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    return rng.choice(np.frombuffer(b"ACGT", dtype=np.uint8), count, p=shares).tobytes().decode()


def promoters(folder: Path) -> list[str]:
    """Promoters are poor in GC, the rest of the chromosome is not; ten blocks of 200,000 bases."""
    rng = np.random.default_rng(0)
    chromosome = _bases(rng, 2_000_000, 0.6)
    starts = [block * 200_000 + place for block in range(10) for place in (20_000, 90_000)]
    lines = []
    for start in starts:
        promoter = _bases(rng, 2_000, 0.3)
        chromosome = chromosome[:start] + promoter + chromosome[start + 2_000 :]
        lines.append(f">gene_up_2000_chrX_{start + 1}_f\n{promoter}\n")
    (folder / "chromosome.fa").write_text(f">chrX\n{chromosome}\n")
    (folder / "upstream.fa").write_text("".join(lines))
    return ["--upstream", str(folder / "upstream.fa"), "--chromosome", str(folder / "chromosome.fa")]


def genes(folder: Path) -> list[str]:
    """Exons are rich in GC, introns poor."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 20), ("test", 5)):
        records = []
        for number in range(count):
            shares = [(200, 0.5), (150, 0.9), (150, 0.1), (150, 0.9), (200, 0.5)]
            sequence = "".join(_bases(rng, length, gc) for length, gc in shares).lower()
            records.append(
                f"LOCUS       {name}{number}   850 bp  DNA\nFEATURES             Location/Qualifiers\n"
                f'     CDS             join(201..350,501..650)\n                     /gene="g"\n'
                f"ORIGIN\n        1 {sequence}\n//\n"
            )
        (folder / f"genes.{name}").write_text("".join(records))
    return ["--genes-train", str(folder / "genes.train"), "--genes-test", str(folder / "genes.test")]


def species(folder: Path) -> list[str]:
    """Three, told apart by GC."""
    rng = np.random.default_rng(0)
    (folder / "loci").mkdir()
    for number, gc in enumerate((0.2, 0.5, 0.8)):
        (folder / "loci" / f"{number}.fa").write_text(f">locus\n{_bases(rng, 5_000, gc)}\n")
    return ["--folder", str(folder / "loci")]


def text(folder: Path) -> list[str]:
    """Words that come again."""
    rng = np.random.default_rng(0)
    words = ["the ", "hacker ", "said ", "foo, ", "bar.\n"]
    (folder / "text").write_text("".join(words[i] for i in rng.integers(0, 5, 6_000)))
    return ["--text", str(folder / "text")]


def mnist(folder: Path) -> list[str]:
    """The greater the digit, the more is bright."""
    rng = np.random.default_rng(0)
    lines = []
    for digit in range(10):
        for _ in range(20):
            image = rng.integers(0, 30, (28, 28))
            image[: 2 * digit + 2] += 200
            lines.append(",".join(map(str, [*image.reshape(-1), digit])))
    with gzip.open(folder / "digits.csv.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    return ["--digits", str(folder / "digits.csv.gz")]


def audio(folder: Path) -> list[str]:
    """Two tones."""
    t = np.arange(24_000)
    samples = 8_000 * np.sin(t / 7) + 4_000 * np.sin(t / 31)
    with wave.open(str(folder / "tones.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(samples.astype("<i2").tobytes())
    return ["--wav", str(folder / "tones.wav")]


def dna(folder: Path) -> list[str]:
    """Bases that go round, A C G T, but for a few."""
    codes = np.arange(40_000) % 4
    codes[::9] = np.random.default_rng(0).integers(0, 4, len(codes[::9]))
    (folder / "genome.fa").write_text(">one\n" + "".join("ACGT"[code] for code in codes) + "\n")
    return ["--fasta", str(folder / "genome.fa")]


FILES: dict[str, Callable[[Path], list[str]]] = {
    "audio": audio, "dna": dna, "genes": genes, "mnist": mnist, "promoters": promoters, "species": species, "text": text,
    "induction": lambda folder: ["--vocabulary", "4", "--test-questions", "64"],
    "pathfinder": lambda folder: ["--test-images", "32"],
    "video": lambda folder: [*mnist(folder), "--side", "16", "--test-videos", "4"],
    "recall": lambda folder: ["--vocabulary", "4", "--test-questions", "64"],
}  # fmt: skip
"""Task -> a function of a folder for its files to the options of a small run."""
