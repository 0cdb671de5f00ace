"""`longwave generate`: bases after a prompt, the same for the same seed, and refusals in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from longwave.cli import main


def test_a_prompt_is_continued(
    train: Callable[..., int], tmp_path: Path, genome_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, "--steps", "3") == 0
    capsys.readouterr()

    def generated(*options: str) -> str:
        assert main(["generate", str(run), "--length", "50", *options]) == 0
        return capsys.readouterr().out

    first = generated("--prompt", "ACGTTGCA", "--seed", "1")
    assert len(first) == 51
    assert set(first.strip()) <= set("ACGT")
    assert generated("--prompt", "ACGTTGCA", "--seed", "1") == first != generated("--prompt", "ACGTTGCA", "--seed", "2")
    assert len(generated("--fasta", str(genome_file), "--top-k", "2", "--temperature", "0.5")) == 51
    for options, words in (
        ([], "--prompt"),
        (["--prompt", "ACGT", "--fasta", "x"], "one of"),
        (["--prompt", ""], "empty"),
        (["--prompt", "HELLO"], "not a DNA letter"),
        (["--prompt", "A", "--temperature", "-1"], "--temperature"),
        (["--prompt", "A", "--top-k", "0"], "--top-k"),
        (["--prompt", "A", "--length", "0"], "--length"),
    ):
        assert main(["generate", str(run), *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert words in err
        assert err.count("\n") == 1
