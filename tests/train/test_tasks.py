"""Every task: it learns, resumes to the same bits, is scored and described, and does not give its answers away."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_data import FILES
from safetensors.torch import load_file
from terminal import typed

from longwave.cli import build_parser, main
from longwave.data import baselines, examples
from longwave.train import checkpoint, evaluate, job, options, recipe, state, tasks
from longwave.train.job import opened
from longwave.train.task import IGNORE, Batch, Task, chance

NEXT = {"dna", "text", "audio"}
CONTEXT = {
    "dna": 1024, "genes": 128, "species": 128, "promoters": 100, "text": 128, "audio": 128, "recall": 8, "induction": 8,
    "video": 6,
}  # fmt: skip
STEPS = 24


@pytest.fixture(params=sorted(FILES))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def command(task: str, micro: str, tmp_path: Path) -> list[str]:
    """What makes a small run of the task, without --out."""
    module = tasks.find(task)
    length = ["--context", str(CONTEXT[task])] if module.CONTEXTS else []
    limit = ["--eval-" + module.METRIC.counted + "s", "64"]
    return [
        "train", task, "--preset", micro, *length, "--batch", "8", "--steps", str(STEPS), "--lr", "0.02", "--device", "cpu",
        *FILES[task](tmp_path), *limit,
    ]  # fmt: skip


def test_every_task_has_small_data() -> None:
    assert sorted(FILES) == sorted(tasks.available())
    assert IGNORE == examples.IGNORE


def test_rows_of_a_batch_are_made_alone(task: str, command: list[str]) -> None:
    """As processes do that read other rows: the same numbers, and the documents that are in them."""
    parsed = vars(build_parser().parse_args(command))
    chosen = options.resolve(task, options.given(task, argparse.Namespace(**parsed)))
    batches = opened(chosen).batches
    for step in range(3):
        whole = batches(step)
        assert len(whole.inputs) == 8
        assert not torch.equal(whole.inputs, batches(step + 1).inputs)
        for rows in (slice(0, 2), slice(2, 4), slice(4, 8)):
            alone = batches(step, rows)
            assert torch.equal(alone.inputs, whole.inputs[rows])
            assert torch.equal(alone.targets, whole.targets[rows])
            if whole.cu_seqlens is not None:
                first, last = rows.start * whole.inputs.shape[1], rows.stop * whole.inputs.shape[1]
                own = whole.cu_seqlens[(whole.cu_seqlens >= first) & (whole.cu_seqlens <= last)] - first
                every = len(own) == rows.stop - rows.start + 1
                assert every if alone.cu_seqlens is None else torch.equal(alone.cu_seqlens, own)


def test_a_task_learns_resumes_and_is_scored(
    task: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, out = tasks.find(task).METRIC, tmp_path / "run"
    windows = functools.partial(baselines.base_window_logistic, reaches=(2,))  # in seconds
    monkeypatch.setattr(baselines, "base_window_logistic", windows)
    assert main([*command, "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    bits = [line.get("bits", line.get(metric.name)) for line in lines if line["kind"] == "train"]
    assert len(bits) == STEPS
    if task != "pathfinder":  # no model learns it in seconds
        assert sum(bits[-6:]) / 6 < bits[0] - 0.01
    assert result["task"] == task
    assert result["references"]
    assert result[f"test_{metric.counted}s"] > 0
    assert result["stamp"]["command"].startswith(f"longwave train {task} --preset micro")

    monkeypatch.setattr(job, "opened", lambda chosen: dataclasses.replace(opened(chosen), references=lambda: [chance(2)]))
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:  # keep the older pairs
        patch.setattr(state, "remove", lambda folder, step: None)
        assert main([*command, "--checkpoint-every", "10", "--out", str(stopped)]) == 0
    for step in checkpoint.steps_in(stopped)[:-1]:  # as if it had been killed on the way to the second
        state.remove(stopped, step)
    assert checkpoint.steps_in(stopped) == [10]
    capsys.readouterr()
    assert main(["train", task, "--out", str(stopped), "--resume"]) == 0
    straight, resumed = (load_file(checkpoint.find_weights(folder)) for folder in (out, stopped))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)

    own = command[command.index("--fasta") :][:2] if task == "dna" else []
    status, text, _ = typed(capsys, "eval", str(out), *own)
    assert status == 0
    header, *_, total = (line.split("\t") for line in text.splitlines())
    assert header == ["record", f"{metric.counted}s", metric.name]
    if task != "dna":
        assert total[1] == str(result[f"test_{metric.counted}s"])
        assert float(total[2]) == pytest.approx(result[f"model_{metric.name}"], abs=1e-4)
    status, text, _ = typed(capsys, "info", str(out))
    assert status == 0
    for word in (f"task        {task}", metric.label, f"held-out {metric.counted}s"):
        assert word in text


def _opened(task: str, command: list[str]) -> Task:
    from longwave.cli import build_parser

    return opened(options.resolve(task, options.given(task, build_parser().parse_args(command))))


def _all(batches: list[Batch]) -> set[bytes]:
    return {row.numpy().tobytes() for batch in batches for row in batch.inputs}


def test_batches_follow_from_seed_and_step(task: str, command: list[str]) -> None:
    if task in ("recall", "induction"):  # of few tokens there are few sequences
        command = [*command, "--context", "64"]
    first, again = _opened(task, command), _opened(task, command)
    for step in (0, 3):
        one, other = first.batches(step), again.batches(step)
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    assert not torch.equal(first.batches(0).inputs, first.batches(1).inputs)
    assert not torch.equal(first.batches(0).inputs, _opened(task, [*command, "--seed", "1"]).batches(0).inputs)
    validation, test = _all(list(first.validation())), _all(list(first.test()))
    assert validation == _all(list(first.validation()))
    assert not validation & test
    assert not _all([first.batches(step) for step in range(20)]) & (validation | test)


def test_answers_stand_nowhere_in_what_is_read(task: str, command: list[str]) -> None:
    opened = _opened(task, command)
    batch = opened.batches(0)
    asked = batch.targets != IGNORE
    assert asked.any()
    if task in NEXT:
        assert opened.reads.causal or task == "text"
        inputs, targets = batch.inputs[:, 1:].long(), batch.targets[:, :-1]
        assert torch.equal(inputs[asked[:, :-1]], targets[asked[:, :-1]])  # a target is the input one place on, not before
    elif task in ("recall", "induction"):
        assert torch.equal(asked.sum(dim=1), torch.ones(len(asked), dtype=torch.int64))
        assert asked[:, -1].all()
        assert not torch.equal(batch.inputs[:, -1].long(), batch.targets[:, -1])
    elif task == "video":
        assert torch.equal(batch.inputs[:, 1:].long(), batch.targets[:, :-1])
    else:
        assert opened.classes is not None


def test_two_sided_models_are_asked_for_masked_characters(micro: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longwave.data.text import MASK
    from longwave.models import hyena

    monkeypatch.setattr(hyena.HyenaLM, "causal", False)
    command = ["train", "text", "--preset", micro, "--context", "100", "--batch", "64", *FILES["text"](tmp_path)]
    batch = _opened("text", command).batches(0)
    asked = batch.targets != IGNORE
    assert torch.equal(asked.sum(dim=1), torch.full((64,), 15))
    hidden = (batch.inputs.long() == MASK)[asked].double().mean()
    assert 0.75 < hidden < 0.85
    assert 0.07 < (batch.inputs.long() == batch.targets)[asked].double().mean() < 0.16  # kept, as BERT does


def test_tasks_that_ask_for_what_comes_next_refuse_models_that_see_it(
    micro: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from longwave.models import hyena

    monkeypatch.setattr(hyena.HyenaLM, "causal", False)
    for task in ("dna", "audio"):
        status, _, error = typed(
            capsys, "train", task, "--preset", micro, *FILES[task](tmp_path), "--out", str(tmp_path / "run")
        )
        assert status == 2
        assert "sees both sides" in error


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["train", "mnist", "--context", "100"], "unrecognized arguments: --context"),
        (["train", "recall", "--vocabulary", "3"], "--vocabulary must be at least 4"),
        (["train", "pathfinder", "--side", "33"], "--side must be one of 32, 64"),
        (["train", "pathfinder", "--side", "0"], "--side must be one of 32, 64"),
        (["train", "pathfinder", "--side", "64", "--dashes", "10"], "64 pixels have 2 to 9 dashes and 10 was given"),
        (["train", "pathfinder", "--dashes", "1"], "--dashes must be at least 2"),
        (["train", "text", "--context", "5"], "from 16 to 65,536 characters"),
        (["train", "promoters", "--context", "2001"], "from 16 to 2,000 bases, but 2,001"),
        (["train", "text", "--model", "transformer"], "no model 'transformer'"),
        (["train", "text", "--text", "nowhere.txt"], "nowhere.txt"),
        (["train", "species", "--folder", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_get_one_sentence(
    tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str], command: list[str], word: str
) -> None:
    status, out, error = typed(capsys, *command, "--out", str(tmp_path / "run"))
    assert (status, out) == (2, "")
    assert word in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_commands_refuse_tasks_that_they_make_no_sense_for(
    tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    small = ["--context", "8", "--steps", "1", "--eval-questions", "8", "--test-questions", "8"]
    assert main(["train", "recall", "--preset", micro, *small, "--out", out]) == 0
    for command, word in (
        (["generate", out, "--prompt", "A"], "generate: this command does not know the task recall"),
        (["eval", out, "--fasta", "x.fa"], "--fasta does not know the task recall"),
        (["eval", out, "--overlap", "1"], "--overlap does not know the task recall"),
        (["train", "induction", "--out", out, "--resume"], "is one of the task recall"),
    ):
        status, _, error = typed(capsys, *command)
        assert status == 2
        assert word in error


def test_text_is_continued(tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, files = str(tmp_path / "run"), FILES["text"](tmp_path)
    command = ["train", "text", "--preset", micro, "--context", "64", "--steps", "30", "--lr", "0.02", "--batch", "16"]
    assert main([*command, *files, "--eval-characters", "100", "--out", out]) == 0
    status, text, _ = typed(capsys, "generate", out, "--prompt", "the hacker ", "--length", "40")
    assert status == 0
    assert len(text) >= 41
    assert sum(letter in "thehackersaidfoobar,. \n" for letter in text) > 20  # chance would be a sixth


def test_a_causal_model_of_any_task_can_be_masked(tmp_path: Path, micro: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    small = ["--context", "64", "--steps", "2", "--eval-questions", "8", "--test-questions", "8"]
    assert main(["train", "recall", "--preset", micro, *small, "--out", out]) == 0
    status, text, _ = typed(capsys, "sparsify", out, "--keep", "0.5", "--tune", "1")
    assert status == 0
    assert len(text.splitlines()) == 3


def test_recipes_are_of_tasks_and_models_that_are_there() -> None:
    from longwave import models

    for (task, model), content in recipe.available().items():
        assert task in tasks.available()
        assert model in models.available()
        presets = [name for name, value in content.items() if isinstance(value, dict)]
        assert content["preset"] in presets
        for preset in presets:
            first, *others = recipe.runs(task, preset)
            assert first == {}
            own = {name: value for name, value in content[preset].items() if name != "also"}
            assert options.resolve(task, {"preset": preset}).flat.items() >= own.items()
            assert others == content[preset].get("also", [])
            folders = [str(job.default_folder(options.resolve(task, {"preset": preset})))]
            for run in others:
                known = {name: value for name, value in run.items() if name != "init_from"}
                chosen = options.resolve(task, {"preset": preset, **known})
                assert chosen.flat.items() >= known.items()
                assert run.get("init_from", folders[-1]) == folders[-1]  # where the run before it is
                folders.append(str(job.default_folder(chosen)))
            name, config = models.find_preset(preset)
            assert name == model
            assert task not in ("audio", "dna", "video") or models.is_causal(name, config)  # where what comes next is asked for


def test_every_published_size_has_a_recipe_and_pathfinder_one_of_every_size_of_image() -> None:
    from longwave import models
    from longwave.data.pathfinder import GEOMETRIES

    assert {model for _, model in recipe.available()} == set(models.available())
    named = {name for content in recipe.available().values() for name in content}
    ours = {preset for preset in models.presets() if preset.endswith(("-tiny", "-small")) or preset in ("tiny", "small")}
    assert set(models.presets()) - ours <= named  # every published size
    runs = [
        options.resolve("pathfinder", {"preset": "s4d-pixels", **run}).own["side"]
        for run in recipe.runs("pathfinder", "s4d-pixels")
    ]
    assert runs == list(GEOMETRIES)


def test_filters_may_be_shorter_than_the_context(train: Callable[..., int], tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--steps", "2", "--eval-bases", "1100", "--filter-length", "100") == 0
    about = checkpoint.describe(checkpoint.find_weights(tmp_path / "run"))
    assert (about.config["filter_length"], about.context) == (100, 1024)
    assert main(["train", "dna", "--out", str(tmp_path / "run"), "--resume"]) == 0


def test_the_stamped_command_asks_for_the_same_run() -> None:
    from longwave.cli import build_parser

    for asked in ({}, {"preset": "small", "steps": 7, "clip": 2.0, "fasta": "/x.fa"}, {"context": 2048, "filter_length": 64}):
        chosen = options.resolve("dna", asked)
        again = build_parser().parse_args(chosen.words)
        assert options.resolve("dna", options.given("dna", again)) == chosen
    for asked in ({"side": 64}, {"side": 64, "dashes": 3}, {"preset": "longconv-paths", "dashes": 5}):
        chosen = options.resolve("pathfinder", asked)
        assert ("--dashes" in chosen.words) == ("dashes" in asked)  # what follows from the side is not said
        again = build_parser().parse_args(chosen.words)
        assert options.resolve("pathfinder", options.given("pathfinder", again)) == chosen


def test_a_setting_is_found_again_in_a_checkpoint(train: Callable[..., int], tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--steps", "1", "--eval-bases", "100") == 0
    found = evaluate.setting(checkpoint.describe(checkpoint.find_weights(tmp_path / "run")))
    assert (found.context, found.causal, found.own["eval_bases"]) == (1024, True, 100)
