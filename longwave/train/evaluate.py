"""What `longwave eval` writes: the cost of every record under a checkpoint's model, as tab-separated lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from longwave.data import dna, fasta, genome
from longwave.data.codes import Record
from longwave.errors import ArgumentError
from longwave.train import checkpoint
from longwave.train.options import choose_autocast, choose_device
from longwave.train.score import Score, score


def lines(
    path: Path, *, fasta_path: str | None, overlap: int | None, backend: str, device: str, autocast: str
) -> Iterator[str]:
    """A header, a line for every record, and a total: name, known bases, bits per base (nan where no base is known).

    Args:
        path: folder of a run, or weights.
        fasta_path: the records; None for the held-out test bases of the embedded genome.
        overlap: bases that neighbouring windows share, 0 to context - 1; None for half the context.
        backend, device, autocast: as in training.

    Raises:
        ArgumentError: an option is out of range.
        DataError: the checkpoint or the file cannot be used.
    """
    where = choose_device(device)
    half = choose_autocast(autocast, where)
    model, description = checkpoint.load_model(path, backend=backend, device=where)
    context = description.context
    overlap = context // 2 if overlap is None else overlap
    if not 0 <= overlap < context:
        raise ArgumentError(f"--overlap must be from 0 to {context - 1:,} (the context - 1), but {overlap:,} was given")
    records = fasta.read_fasta(fasta_path) if fasta_path else [_held_out(context)]
    total = Score(0, 0.0)
    for number, record in enumerate(records):
        cost = score(model, record.codes, context, overlap=overlap, device=where, autocast=half)
        total += cost
        if number == 0:  # not before a score is there: a backend that refuses leaves no half of a table
            yield "record\tbases\tbits_per_base"
        yield _line(record.name, cost)
    yield _line("total", total)


def _held_out(context: int) -> Record:
    return Record(f"{genome.ACCESSION}:test", dna.split([genome.ecoli()], context).test)


def _line(name: str, cost: Score) -> str:
    return f"{name}\t{cost.bases}\t{cost.bits_per_base:.4f}"
