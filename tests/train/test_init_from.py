"""`--init-from`: a run that begins with what another one learnt."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from made_data import FILES
from safetensors.torch import load_file
from terminal import typed

from longwave.cli import main
from longwave.models import longconv
from longwave.train import checkpoint
from longwave.train.folder import read_config

FEW = ("--batch", "2", "--steps", "2", "--lr", "0.01", "--device", "cpu", "--autocast", "off", "--eval-every", "2")


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small LongConv for images."""
    config = dataclasses.replace(longconv.PRESETS["longconv-paths"], d_model=8, layers=1)
    monkeypatch.setitem(longconv.PRESETS, "micro-paths", config)
    return "micro-paths"


def learnt(task: str, out: Path, *words: str) -> dict[str, torch.Tensor]:
    assert main(["train", task, "--out", str(out), *FEW, *words]) == 0
    return load_file(checkpoint.find_weights(out))


STILL = ("--lr", "1e-30")
"""A rate at which nothing is learnt."""


def test_weights_go_from_the_next_base_to_a_task_of_classes(tmp_path: Path, micro: str) -> None:
    data = FILES["promoters"](tmp_path)
    first = learnt("dna", tmp_path / "dna", "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    words = ["--init-from", str(tmp_path / "dna"), "--context", "100", *data, *STILL]
    second = learnt("promoters", tmp_path / "promoters", *words)
    fresh = learnt(
        "promoters", tmp_path / "fresh", "--preset", micro, "--context", "100", "--filter-length", "1024", *data, *STILL
    )
    assert {name.removeprefix("body.") for name in second} == {*first, "head.weight", "head.bias"}
    for name, x in first.items():
        torch.testing.assert_close(second[f"body.{name}"], x, rtol=1e-6, atol=1e-8)
    assert any((second[name] - fresh[name]).abs().max() > 1e-3 for name in fresh)
    torch.testing.assert_close(second["head.weight"], fresh["head.weight"], rtol=1e-6, atol=1e-8)  # drawn anew, by the seed
    result = json.loads((tmp_path / "promoters" / "result.json").read_text())
    assert result["began_with"]["task"] == "dna"
    assert len(result["began_with"]["sha256"]) == 64
    assert "--init-from" in result["stamp"]["command"]
    assert read_config(tmp_path / "promoters")["train"]["filter_length"] == 1024
    # The head goes along where the task is the same, and its run can be gone when this one is resumed.
    third = learnt("promoters", tmp_path / "third", *words, "--init-from", str(tmp_path / "promoters"))
    for name, x in second.items():
        torch.testing.assert_close(third[name], x, rtol=1e-6, atol=1e-8)
    for path in (tmp_path / "promoters").iterdir():
        if path.is_file():
            path.unlink()
    assert main(["train", "promoters", "--out", str(tmp_path / "third"), "--resume"]) == 0


def test_filters_of_images_grow_with_them(tmp_path: Path, paths: str) -> None:
    few = ("--test-images", "2", "--eval-images", "2", "--dashes", "3")
    small = learnt("pathfinder", tmp_path / "small", "--preset", paths, "--side", "32", *few)
    large = learnt("pathfinder", tmp_path / "large", "--init-from", str(tmp_path / "small"), "--side", "64", *few, *STILL)
    model = longconv.Model(dataclasses.replace(longconv.PRESETS["micro-paths"], filter_length=64 * 64))
    from longwave.train.tasks import find

    zoom = find("pathfinder").zoom({"side": 32}, {"side": 64})  # type: ignore[attr-defined]
    assert zoom.factor == pytest.approx(5.2 / 3.6)
    expected = model.zoomed(small, zoom)
    assert {name: x.shape for name, x in expected.items()} == {name: x.shape for name, x in large.items()}
    changed = [name for name in small if small[name].shape != large[name].shape]
    assert len(changed) == 2
    for name, x in expected.items():
        torch.testing.assert_close(large[name], x, rtol=1e-5, atol=1e-7)
    # What is squashed stays so, and what is not is as large as it was drawn.
    k = large["body.blocks.0.mixer.long.filter.k"]
    assert (k[k != 0].abs() > longconv.PRESETS["micro-paths"].squash).all()


@pytest.mark.parametrize(
    ("task", "words", "says"),
    [
        ("mnist", [], "inputs.bias is missing"),
        ("promoters", ["--preset", "m2-bert-tiny"], "take its preset"),
        ("promoters", ["--model", "m2_bert"], "leave one of them out"),
    ],
)
def test_other_weights_are_refused(
    task: str, words: list[str], says: str, tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt("dna", tmp_path / "dna", "--preset", micro, "--context", "1024", *FILES["dna"](tmp_path))
    out = tmp_path / "refused"
    given = [*FILES[task](tmp_path), *words, "--init-from", str(tmp_path / "dna")]
    status, _, complaint = typed(capsys, "train", task, "--out", str(out), *FEW, *given)
    assert status == 2
    assert says in complaint
    assert not out.exists()


def test_what_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--out", str(tmp_path / "run"), "--init-from", str(tmp_path / "nothing"))
    status, _, complaint = typed(capsys, "train", "mnist", *words)
    assert status == 2
    assert "does not exist" in complaint


def test_state_spaces_do_not_go_to_images_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--test-images", "2", "--eval-images", "2")
    learnt("pathfinder", tmp_path / "small", "--preset", "s4d-pixels", *few)
    words = ["--init-from", str(tmp_path / "small"), "--side", "64", *few]
    status, _, complaint = typed(capsys, "train", "pathfinder", "--out", str(tmp_path / "large"), *FEW, *words)
    assert status == 2
    assert "longconv" in complaint
