"""What `longwave eval` writes: the score of every part under a checkpoint's model, as tab-separated lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from longwave import models
from longwave.train import checkpoint, tasks
from longwave.train.checkpoint import Description
from longwave.train.heap import keep_freed_memory
from longwave.train.options import choose_autocast, choose_device
from longwave.train.score import score
from longwave.train.task import Batch, Metric, Score, Setting


def lines(path: Path, *, fasta: str | None, overlap: int | None, backend: str, device: str, autocast: str) -> Iterator[str]:
    """A header, a line for every part, and a total: name, how much was asked, score (nan where nothing was).

    Args:
        path: folder of a run, or weights.
        fasta: DNA to score, every record a part; None for the task's held-out test data.
        overlap: positions that neighbouring windows of DNA share, 0 to context - 1; None for half the context.
        backend, device, autocast: as in training.

    Raises:
        ArgumentError: an option is out of range, or not one of the checkpoint's task.
        DataError: the checkpoint or the file cannot be used.
    """
    where = choose_device(device)
    half = choose_autocast(autocast, where)
    model, description = checkpoint.load_model(path, backend=backend, device=where)
    keep_freed_memory(description.context)
    metric = tasks.find(description.task).METRIC
    total = Score(0, 0.0)
    for number, (name, batches) in enumerate(held_out(description, fasta=fasta, overlap=overlap)):
        cost = score(model, batches, device=where, autocast=half)
        total += cost
        if number == 0:  # not before a score is there: a backend that refuses leaves no half of a table
            yield f"record\t{metric.counted}s\t{metric.name}"
        yield _line(name, cost, metric)
    yield _line("total", total, metric)


def setting(description: Description, *, batch: int = 1) -> Setting:
    """What the task of a checkpoint was opened with, for `batch` sequences a step."""
    config = models.find(description.model).Config(**description.config)
    causal = models.is_causal(description.model, config)
    own = tasks.own_options(description.task, description.own, description.context)
    return Setting(context=description.context, batch=batch, seed=0, causal=causal, own=own)


def held_out(
    description: Description, *, fasta: str | None = None, overlap: int | None = None
) -> Iterator[tuple[str, Iterable[Batch]]]:
    """Names and batches: what a checkpoint is scored on.

    Raises:
        ArgumentError: an option is out of range, or not one of the checkpoint's task.
        DataError: the data cannot be used.
    """
    said = {name: value for name, value in (("fasta", fasta), ("overlap", overlap)) if value is not None}
    module, where = tasks.find(description.task), setting(description)
    if not said and not hasattr(module, "held_out"):
        yield "test", module.make(where).test()
        return
    yield from tasks.offered(description.task, "held_out", f"--{next(iter(said), '')}")(where, **said)


def _line(name: str, cost: Score, metric: Metric) -> str:
    return f"{name}\t{cost.targets}\t{metric.of(cost):.4f}"
