"""The next base of DNA, of E. coli or of a FASTA file, judged on held-out bases beside a Markov model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from longwave.train.task import Batch, Option, Reads, Reference, Setting, Task, bits_per

if TYPE_CHECKING:
    from longwave.data.codes import Codes, Record
    from longwave.train.tasks import Codec

HELP = "train a language model of DNA on E. coli, or on a FASTA file"
UNIT = "base"
METRIC = bits_per("base")
CONTEXTS = (1_024, 1_048_576)
OPTIONS = (
    Option(
        "fasta",
        "",
        "train on this file, plain or gzip, its records kept apart (default: E. coli 536, in the package)",
        metavar="FILE",
        is_file=True,
    ),
    Option(
        "corpus",
        "ecoli",
        "ecoli, or what the task promoters, species or genes trains on, to --init-from for it (default: ecoli)",
        metavar="NAME",
        choices=("ecoli", "promoters", "species", "genes"),
    ),
    Option(
        "packed",
        "off",
        "on: read the plain file --fasta in rows of packed records, of which only what a step needs is in memory, and test on "
        "1,048,576 bases at most (default: off)",
        metavar="MODE",
        choices=("on", "off"),
    ),
    Option(
        "eval_bases",
        lambda context: max(65_536, 2 * context),
        "most bases of a validation (default: 65536 or two contexts)",
        metavar="BASES",
        least=1,
    ),
)


def prepare(own: Mapping[str, Any]) -> None:
    """Raises DataError where the index of a file in rows cannot be made."""
    from longwave.data.indexed import leave_index

    if own["packed"] == "on" and own["fasta"]:
        leave_index(own["fasta"])


def make(setting: Setting) -> Task:
    """Raises DataError where the file cannot be used or holds too little, ArgumentError where a number is out of range."""
    from longwave.data import dna, markov
    from longwave.data.codes import UNKNOWN
    from longwave.data.examples import EVERY
    from longwave.errors import ArgumentError
    from longwave.train.rows import packed_task
    from longwave.train.stretches import shifted

    path, context = setting.own["fasta"], setting.context
    if path and setting.own["corpus"] != "ecoli":
        raise ArgumentError(f"--fasta {path} and --corpus {setting.own['corpus']} are two sets of data; leave one of them out")
    if setting.own["packed"] == "on":
        if not path:
            raise ArgumentError("--packed on reads rows of a file; name it with --fasta")
        return packed_task(path, setting)
    source, records = _records(setting.own)
    data = dna.split(records, context)
    validation = data.validation[: setting.own["eval_bases"]]

    windows = dna.Windows(data.train, context, setting.batch, setting.seed, records=data.train_records)

    def batches(step: int, rows: slice = EVERY) -> Batch:
        return shifted(windows.batch(step, rows), windows.documents(step, rows), unknown=UNKNOWN)

    def references() -> list[Reference]:
        best = markov.fit_best(data.train, data.validation)
        cost = best.bits_per_base
        return [
            Reference("uniform", "uniform", 2.0, 2.0),
            Reference("markov", f"Markov, order {best.order}", cost(data.test), cost(validation)),
        ]

    return Task(
        reads=Reads(vocabulary=5, predicted=4, causal=True),
        classes=None,
        about=_about(source, records),
        batches=batches,
        validation=lambda: _windows(validation, context, records=data.validation_records),
        test=lambda: _windows(data.test, context, overlap=context // 2, records=data.test_records),
        references=references,
    )


def held_out(setting: Setting, fasta: str | None = None, overlap: int | None = None) -> Iterator[tuple[str, Iterable[Batch]]]:
    """The records of a file, or the test bases of the embedded genome, in windows that share `overlap` bases, half the
    context when not given.
    """
    from longwave.data import dna, genome
    from longwave.data.fasta import read_fasta
    from longwave.errors import ArgumentError

    context = setting.context
    overlap = context // 2 if overlap is None else overlap
    if not 0 <= overlap < context:
        raise ArgumentError(f"--overlap must be from 0 to {context - 1:,} (the context - 1), but {overlap:,} was given")
    if fasta is None:
        corpus = setting.own["corpus"]
        data = dna.split(_records({"fasta": "", "corpus": corpus})[1], context)
        yield (
            f"{genome.ACCESSION if corpus == 'ecoli' else corpus}:test",
            _windows(data.test, context, overlap=overlap, records=data.test_records),
        )
        return
    for record in read_fasta(fasta):
        yield record.name, _windows(record.codes, context, overlap=overlap)


def _records(own: Mapping[str, Any]) -> tuple[str, Sequence[Record]]:
    """What is read, and what it is called."""
    from longwave.data import fasta, genes, genome, promoters, species

    if own["fasta"]:
        return own["fasta"], fasta.read_fasta(own["fasta"])
    if own["corpus"] == "ecoli":
        return f"E. coli 536, {genome.ACCESSION}, in the package", [genome.ecoli()]
    trained = {"promoters": promoters.training_records, "species": species.training_records, "genes": genes.training_records}
    return f"training data of {own['corpus']}", _ends_last(trained[own["corpus"]]())


def _ends_last(records: Sequence[Record]) -> list[Record]:
    """The end of every record after the beginnings of all: what is held out is of all of them, and so is what is trained on."""
    import numpy as np

    from longwave.data.codes import Record
    from longwave.data.dna import HELD_OUT_SHARE

    parts = []
    for record in records:
        held_out = len(record.codes) // HELD_OUT_SHARE
        parts.append(np.split(record.codes, [len(record.codes) - 2 * held_out, len(record.codes) - held_out]))
    return [
        Record(f"{r.name} part {i + 1}", part[i])
        for i in range(3)
        for r, part in zip(records, parts, strict=True)
        if len(part[i])
    ]


def codec(setting: Setting) -> Codec:
    """The letters of DNA."""
    import torch

    from longwave.data.codes import ALPHABET, encode
    from longwave.train.tasks import Codec

    return Codec(lambda text: torch.from_numpy(encode(text)), ALPHABET.__getitem__)


def _windows(codes: Codes, context: int, **options: Any) -> Iterator[Batch]:
    from longwave.data.codes import UNKNOWN
    from longwave.train.stretches import consecutive

    return consecutive(codes, context, start=UNKNOWN, unknown=UNKNOWN, **options)


def _about(source: str, records: Sequence[Record]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for record in records:
        digest.update(len(record.codes).to_bytes(8, "little"))
        digest.update(record.codes.tobytes())
    bases = sum(len(record.codes) for record in records)
    return {"source": source, "records": len(records), "bases": bases, "sha256": digest.hexdigest()}
