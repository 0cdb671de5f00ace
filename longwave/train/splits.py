"""A `longwave.data.examples.Split` as a task: what every task but the next base of DNA is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from longwave.data.baselines import Baseline
from longwave.data.examples import EVERY, Examples, HeldOut, Split
from longwave.errors import DataError
from longwave.train.score import POSITIONS_AT_A_TIME
from longwave.train.task import Batch, Classes, Reads, Reference, Setting, Task


def as_task(
    split: Split,
    setting: Setting,
    *,
    reads: Reads,
    classes: Classes | None,
    validated: int,
    references: Callable[[], list[Reference]],
    files: Iterable[str] = (),
) -> Task:
    """The task of a split.

    Args:
        split: the data.
        setting: of the run.
        reads, classes, references: of the `Task`.
        validated: examples of a validation, at most.
        files: the user's own files and folders, of which a resumed run must find the same bytes; "" for none.

    Raises:
        DataError: a file cannot be read.
    """
    about: dict[str, Any] = {"source": split.source}
    if given := [file for file in files if file]:
        about["sha256"] = _digest(given)

    def batches(step: int, rows: slice = EVERY) -> Batch:
        return _batch(split.train.batch(step, setting.batch, setting.seed, rows=rows))

    positions = setting.context * (classes.places if classes else 1)

    def held_out(part: HeldOut, most: int) -> Iterator[Batch]:
        for examples in part.batches(min(max(POSITIONS_AT_A_TIME // positions, 1), most)):
            yield _batch(Examples(examples.inputs[:most], examples.labels[:most]))
            if (most := most - len(examples)) <= 0:
                return

    return Task(
        reads=reads,
        classes=classes,
        about=about,
        batches=batches,
        validation=lambda: held_out(split.validation, validated),
        test=lambda: held_out(split.test, len(split.test)),
        references=references,
    )


def compared(name: str, baseline: Baseline) -> Reference:
    """A baseline by the name of its kind."""
    return Reference(name, baseline.name, baseline.score)


def _batch(examples: Examples) -> Batch:
    return Batch(examples.inputs, examples.labels)


def _digest(paths: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in map(Path, paths):
        try:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                digest.update(file.name.encode() + file.stat().st_size.to_bytes(8, "little") + file.read_bytes())
        except OSError as error:
            raise DataError(f"cannot read {path} ({error.strerror}); give a file that is there") from error
    return digest.hexdigest()
