"""`train dna --packed on`: rows of packed records, read where they are needed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from longwave.cli import main
from longwave.data.fasta import read_fasta
from longwave.train import options
from longwave.train.job import opened
from longwave.train.task import IGNORE, Batch, Task

QUICK = ("--steps", "4", "--eval-bases", "2048", "--checkpoint-every", "2")


@pytest.fixture
def contigs(tmp_path: Path) -> Path:
    """70,000 bases in records of 1 to 3,000, in lines of 60, and a long run of N."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 3_000, 40)
    lines = []
    for number, length in enumerate(lengths):
        text = "".join("ACGT"[code] for code in rng.integers(0, 4, length)) if number != 7 else "N" * length
        lines += [f">r{number}", *(text[i : i + 60] for i in range(0, len(text), 60))]
    path = tmp_path / "contigs.fa"
    path.write_text("\n".join(lines) + "\n")
    return path


def _task(path: Path, **more: object) -> Task:
    asked = {"context": 1024, "batch": 4, "fasta": str(path), "packed": "on", "eval_bases": 2048, **more}
    return opened(options.resolve("dna", asked))


def _places(batch: Batch, whole: bytes) -> set[int]:
    """Where the rows of a batch stand among all bases."""
    return {whole.index(row.numpy().tobytes()) // 1024 for row in batch.inputs}


def test_rows_of_training_validation_and_test_share_nothing(contigs: Path) -> None:
    records = read_fasta(contigs)
    whole = b"".join(record.codes.tobytes() for record in records)
    whole += b"\4" * (-len(whole) % 1024)
    count = len(whole) // 1024
    task = _task(contigs)
    train = [_places(task.batches(step), whole) for step in range(count)]
    assert set().union(*train) >= set(range(count - 2 * (count // 20))) - _barren(whole)
    validation, test = (set().union(*(_places(batch, whole) for batch in part())) for part in (task.validation, task.test))
    assert validation
    assert test
    assert not validation & test
    borders = set().union(*train)
    assert min(validation) > max(borders) + 1  # the last target of a row is the next one's first base
    assert min(test) > max(validation) + 1


def test_what_follows_a_long_run_of_n_is_not_read_for_all_of_it(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(0, 4, 200 * 1024)
    text = "".join("ACGT"[code] for code in codes)
    text = text[: 20 * 1024] + "N" * (100 * 1024) + text[120 * 1024 :]
    (tmp_path / "run.fa").write_text(f">r\n{text}\n")
    task = _task(tmp_path / "run.fa")
    read = [row.numpy().tobytes() for step in range(45) for row in task.batches(step).inputs]
    assert len(set(read)) > 40
    assert max(Counter(read).values()) < 20  # of 180 reads, where 80 rows have bases


def _barren(whole: bytes) -> set[int]:
    return {i for i in range(len(whole) // 1024) if set(whole[1024 * i : 1024 * i + 1024]) == {4}}


def test_targets_are_what_follows_in_the_record(contigs: Path) -> None:
    records = read_fasta(contigs)
    whole = b"".join(record.codes.tobytes() for record in records)
    ends = set(itertools.accumulate(len(record.codes) for record in records))
    batch = _task(contigs).batches(0)
    assert batch.cu_seqlens is not None
    bounds = set(batch.cu_seqlens.tolist())
    for number, (row, targets) in enumerate(zip(batch.inputs, batch.targets, strict=True)):
        at = whole.index(row.numpy().tobytes())
        for i, target in enumerate(targets.tolist()):
            follows = IGNORE if at + i + 1 in ends or whole[at + i + 1] == 4 else whole[at + i + 1]
            assert target == follows
            assert (number * 1024 + i in bounds) == (i == 0 or at + i in ends)
        assert (targets != IGNORE).any()


def test_a_packed_run_learns_resumes_and_is_scored(tmp_path: Path, micro: str, contigs: Path) -> None:
    command = [
        "train",
        "dna",
        "--preset",
        micro,
        "--context",
        "1024",
        "--fasta",
        str(contigs),
        "--packed",
        "on",
        "--batch",
        "2",
    ]
    for name in ("a", "b"):
        assert main([*command, "--batch", "2", "--out", str(tmp_path / name), *QUICK]) == 0
    lines = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in "ab"]
    losses = [[line["bits_per_base"] for line in found if "bits_per_base" in line] for found in lines]
    assert losses[0] == losses[1]
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert 1.5 < result["model_bits_per_base"] < 2.5
    assert 1.5 < result["markov_bits_per_base"] < 2.5
    other = contigs.read_text().replace("A", "C", 40)
    contigs.write_text(other)
    assert main(["train", "dna", "--out", str(tmp_path / "a"), "--resume"]) == 2  # other bases in the same file


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"fasta": ""}, "name it with --fasta"),
        ({"context": 8192}, "rows of 8,192 bases"),
        ({"packed": "yes"}, "--packed must be"),
    ],
)
def test_refusals(contigs: Path, more: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        _task(contigs, **more)


def test_all_n_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.fa"
    path.write_text(">n\n" + "N" * 60_000 + "\n")
    with pytest.raises(ValueError, match="are N"):
        _task(path).batches(0)
