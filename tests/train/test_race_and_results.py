"""`longwave race`, `longwave results` and `longwave step --save`: what they measure, keep and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import typed

from longwave.train import results
from longwave.train.race import RIVAL, SCHEMA


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results in the place of the checkout's."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(results, "kept_folder", lambda: folder)
    return folder


def test_a_race_gives_both_sides_the_same_seconds(
    tmp_path: Path, micro: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "race.png"
    command = ["race", "recall", "--preset", micro, "--context", "32", "--batch", "4", "--seconds", "1", "--lr", "0.01"]
    limits = ["--eval-questions", "16", "--test-questions", "16", "--vocabulary", "4"]
    status, text, error = typed(capsys, *command, *limits, "--out", str(picture), "--save")
    assert status == 0, error
    assert "1 s of training each" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    (path,) = kept.glob("race-recall-micro-*.json")
    found = json.loads(path.read_text())
    assert found["schema"] == SCHEMA
    assert [arm["backend"] for arm in found["arms"]] == [RIVAL, "auto"]
    one, other = found["arms"]
    assert one["training"][0] == other["training"][0]  # the same weights and the same batch
    for arm in found["arms"]:
        assert 1 <= arm["seconds"][-1] < 3  # over by no more than its last step, on a busy machine
        assert len(arm["seconds"]) == len(arm["training"]) > 3
        assert all(a < b for a, b in zip(arm["seconds"], arm["seconds"][1:], strict=False))
        assert arm["validation"][-1][0] == arm["seconds"][-1]
        assert 0 <= arm["test"] <= 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--seconds", "0"], "no time to train"),
        (["--backend", "plain"], "a race is against"),
        (["--out", "nowhere/x.png"], "nowhere/x.png"),
    ],
)
def test_a_race_refuses_in_a_sentence(micro: str, capsys: pytest.CaptureFixture[str], options: list[str], word: str) -> None:
    status, _, error = typed(capsys, "race", "recall", "--preset", micro, *options)
    assert status == 2
    assert word in error
    assert error.count("\n") == 1


def test_the_page_has_what_ran_and_what_did_not(
    train: Callable[..., int], tmp_path: Path, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, page = tmp_path / "run", tmp_path / "results.md"
    assert train(run, "--steps", "2", "--eval-bases", "100") == 0
    assert typed(capsys, "results", str(run), "--save", "--out", str(page))[0] == 0
    result = json.loads((run / "result.json").read_text())
    (path,) = kept.iterdir()
    assert json.loads(path.read_text()) == result
    again = typed(capsys, "results")  # from what is kept alone
    assert again[:2] == (0, page.read_text())
    (row,) = (line for line in again[1].splitlines() if line.startswith("| dna | hyena | micro |"))
    for part in (
        f"{result['parameters']:,}", "| 1,024 | 2 |", f"{result['model_bits_per_base']:.4f} bits per base",
        f"{result['markov_bits_per_base']:.4f}, Markov", "`longwave train dna --preset micro", result["stamp"]["commit"][:10],
    ):  # fmt: skip
        assert part in row
    missing = [line for line in again[1].splitlines() if "| not run |" in line]
    assert any(line.startswith("| dna | hyena | tiny |") for line in missing)
    assert not any("micro" in line for line in missing)


def test_the_page_in_the_documentation_is_that_of_what_is_kept() -> None:
    found = results.kept()
    assert len(found) > 20
    page = Path(__file__).parents[2] / "docs" / "results.md"
    assert results.as_markdown(found) == page.read_text(encoding="utf-8")


def test_results_that_are_none_are_refused(tmp_path: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("{}")
    for path, word in ((tmp_path, "cannot be read"), (tmp_path / "other.json", "is no result")):
        status, _, error = typed(capsys, "results", str(path))
        assert status == 2
        assert word in error


@pytest.mark.parametrize("files", [[], ["--values"]])
def test_steps_are_kept(
    micro: str, kept: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from longwave.models import hyena

    if files:  # a model of numbers is asked for classes
        pixels = dataclasses.replace(hyena.PRESETS[micro], vocabulary=0, predicted=0, values=1)
        monkeypatch.setitem(hyena.PRESETS, micro, pixels)
    command = ["step", "--preset", micro, "--context", "64", "--batch", "2", "--rounds", "1", "--layers", "1"]
    status, text, error = typed(capsys, *command, "--memory", "--backend", "plain", "--save")
    assert status == 0, error
    assert "backend plain" in text
    assert "of the ceiling, 1.00 × plain" in text
    (path,) = kept.glob("step-micro-64-*.json")
    said = json.loads(path.read_text())
    assert set(said["seconds"]) == set(said["bytes"]) == {"plain", "copy"}
    assert said["layers"] == 1
