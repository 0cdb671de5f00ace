"""A model and a genome small enough to train in a second."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from longwave.cli import main
from longwave.models import hyena

MICRO = "hyena.HyenaConfig(d_model=8, layers=1, filter_length=1024, d_inner=16, filter_width=8)"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on a shared machine: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset `micro` beside the shipped ones."""
    monkeypatch.setitem(hyena.PRESETS, "micro", eval(MICRO, {"hyena": hyena}))
    return "micro"


@pytest.fixture
def genome_file(tmp_path: Path) -> Path:
    """40,000 bases in two records in which every third base follows from the one before it."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 40_000)
    codes[2::3] = (codes[1::3][: len(codes[2::3])] + 1) % 4
    letters = "".join("ACGT"[code] for code in codes)
    path = tmp_path / "genome.fa"
    path.write_text(f">one\n{letters[:25_000]}\n>two\n{letters[25_000:].lower()}\n")
    return path


@pytest.fixture
def train(micro: str, genome_file: Path) -> Callable[..., int]:
    """`longwave train dna` on the small genome; returns the exit status."""

    def run(out: Path, *options: str, resume: bool = False) -> int:
        common = ["--out", str(out)]
        if resume:
            return main(["train", "dna", *common, "--resume", *options])
        fixed = ["--preset", micro, "--context", "1024", "--batch", "2", "--fasta", str(genome_file), "--device", "cpu"]
        fixed += ["--autocast", "off"]  # the same numbers on every CPU
        return main(["train", "dna", *fixed, *common, *options])

    return run


@pytest.fixture
def train_process(genome_file: Path) -> Callable[..., subprocess.Popen[str]]:
    """The same command in a process of its own, for signals."""

    def start(out: Path, *options: str) -> subprocess.Popen[str]:
        program = (
            "import sys, torch; torch.set_num_threads(1)\n"
            "from longwave.models import hyena\n"
            f"hyena.PRESETS['micro'] = {MICRO}\n"
            "from longwave.cli import main\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-W", "error", "-c", program, "train", "dna", "--out", str(out), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start
