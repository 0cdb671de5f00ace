"""A run that stops and resumes gives the bits of one that never stopped; an interrupted run saves and says how to go on."""

from __future__ import annotations

import json
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from longwave import cli
from longwave.train import checkpoint, folder, options, state
from longwave.train.task import Batch
from longwave.train.world import World

OPTIONS = ("--steps", "8", "--eval-every", "4", "--checkpoint-every", "4", "--eval-bases", "1500")


def _losses(folder: Path) -> list[dict[str, object]]:
    """The metrics without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith(("_per_s", "seconds"))} for line in lines]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.find_weights(folder))


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _moments(folder: Path) -> dict[str, torch.Tensor]:
    """The optimizer's state after the last step."""
    path = state.state_path(folder, 8)
    about = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    found = {
        name: torch.zeros(kept.size, dtype=kept.properties.dtype)
        for name, kept in about.items()
        if name.startswith("optimizer.state") and isinstance(kept, TensorStorageMetadata)
    }
    with warnings.catch_warnings():  # without a process group it says so
        warnings.simplefilter("ignore")
        dcp.load(found, checkpoint_id=path, no_dist=True)
    return found


class _StopAfter:
    """Asks the loop to stop once `step` has been logged, as a signal would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        from longwave.train import loop, progress

        update = progress.Progress.update

        def counted(bar: progress.Progress, done: int, bits: float) -> None:
            update(bar, done, bits)
            if done == step:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(loop.Progress, "update", counted)


@pytest.mark.parametrize("stop", [3, 4])
def test_resumed_run_equals_a_straight_one_bit_for_bit(
    tmp_path: Path, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    assert train(tmp_path / "straight", *OPTIONS) == 0
    with monkeypatch.context() as patch:
        _StopAfter(patch, stop)
        assert train(tmp_path / "stopped", *OPTIONS) == 130
    halfway = _weights(tmp_path / "stopped")
    assert train(tmp_path / "stopped", resume=True) == 0
    straight, resumed = _weights(tmp_path / "straight"), _weights(tmp_path / "stopped")
    assert not _same(halfway, resumed)
    assert _same(straight, resumed)
    found = _losses(tmp_path / "straight")
    assert found == _losses(tmp_path / "stopped")
    assert [line["step"] for line in found if line["kind"] == "train"] == list(range(1, 9))
    assert [line["step"] for line in found if line["kind"] == "validation"] == [4, 8]
    moments = [_moments(tmp_path / name) for name in ("straight", "stopped")]
    assert _same(*moments)
    assert any(name.endswith("exp_avg") for name in moments[0])
    assert any(name.endswith("step") for name in moments[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("during", "sentence"), [(2, "stopped after step 8 and saved"), (3, "stopped before the final test")])
def test_a_score_that_is_cut_short_is_made_when_the_run_goes_on(
    tmp_path: Path,
    train: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    during: int,
    sentence: str,
    number: signal.Signals,
) -> None:
    """The validation after the last step, and the test."""
    assert train(tmp_path / "straight", *OPTIONS) == 0
    capsys.readouterr()
    scores = 0

    def rounds(world: World, batches: Iterable[Batch]) -> Iterator[Batch]:
        nonlocal scores
        scores += 1
        for place, batch in enumerate(batches):
            if place == 1 and scores == during:
                signal.raise_signal(number)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(World, "rounds", rounds)
        assert train(tmp_path / "run", *OPTIONS) == 130
    assert scores == during
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "--resume" in line] == [line for line in said if line.startswith(sentence)] != []
    assert checkpoint.steps_in(tmp_path / "run") == [8]
    assert not (tmp_path / "run" / "result.json").exists()
    assert train(tmp_path / "run", resume=True) == 0
    assert _losses(tmp_path / "run") == _losses(tmp_path / "straight")
    assert (tmp_path / "run" / "result.json").exists()


def test_other_seed_gives_another_run(tmp_path: Path, train: Callable[..., int]) -> None:
    """The control of the test above: the comparison can fail."""
    short = ("--steps", "2", "--eval-bases", "200")
    assert train(tmp_path / "a", *short) == train(tmp_path / "b", *short) == train(tmp_path / "c", *short, "--seed", "1") == 0
    assert _same(_weights(tmp_path / "a"), _weights(tmp_path / "b"))
    assert not _same(_weights(tmp_path / "a"), _weights(tmp_path / "c"))


def test_run_killed_between_checkpoints_goes_on_from_the_last(
    tmp_path: Path, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from longwave.train import loop

    class KilledError(BaseException):  # as a kill, it passes every handler by
        pass

    def update(bar: object, done: int, bits: float) -> None:
        if done == 6:
            raise KilledError

    assert train(tmp_path / "straight", *OPTIONS) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "update", update)
        with pytest.raises(KilledError):
            train(tmp_path / "killed", *OPTIONS)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # the line the kill cut in two
    (tmp_path / "killed" / ".partial-1-weights-00000008.safetensors").write_bytes(b"half")
    half = state.state_path(tmp_path / "killed", 7)
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half")
    assert train(tmp_path / "killed", resume=True) == 0
    assert _same(_weights(tmp_path / "straight"), _weights(tmp_path / "killed"))
    assert _losses(tmp_path / "straight") == _losses(tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".partial-*"))
    assert not half.exists()


def test_damaged_newest_pair_is_passed_over(
    tmp_path: Path, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *OPTIONS) == 0
    final = _weights(tmp_path / "run")
    with monkeypatch.context() as patch:  # keep the older pair, as a kill before its removal would
        patch.setattr(state, "remove", lambda folder, step: None)
        assert train(tmp_path / "twice", *OPTIONS) == 0
    (shard,) = state.state_path(tmp_path / "twice", 8).glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:-100])
    assert train(tmp_path / "twice", resume=True) == 0
    assert "passed over" in capsys.readouterr().err
    assert _same(final, _weights(tmp_path / "twice"))


def test_a_checkpoint_that_cannot_be_written_ends_the_run(
    tmp_path: Path, train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the next step, and not where the next checkpoint would be; the one before it is still there."""
    from longwave.train import loop

    savers: list[state.Saver] = []

    class Seen(state.Saver):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            savers.append(self)

    def update(bar: object, done: int, bits: float) -> None:
        if done == 3:
            state.state_path(tmp_path / "run", 4).write_text("in the way")
        if done == 5:
            wait([pending for saver in savers if (pending := saver._pending) is not None])

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Saver", Seen)
        patch.setattr(loop.Progress, "update", update)
        assert train(tmp_path / "run", *OPTIONS[:-4], "--checkpoint-every", "2", "--eval-bases", "1500") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"a checkpoint in {tmp_path / 'run'} cannot be written" in said
    assert [line["step"] for line in _losses(tmp_path / "run") if line["kind"] == "train"][-1] == 5
    assert checkpoint.steps_in(tmp_path / "run") == [2]
    state.state_path(tmp_path / "run", 4).unlink()
    assert train(tmp_path / "run", resume=True) == 0


def test_resume_of_a_finished_run_tests_again(
    tmp_path: Path, train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--steps", "2", "--eval-bases", "200") == 0
    first, table = _losses(tmp_path / "run"), capsys.readouterr().out
    assert train(tmp_path / "run", resume=True) == 0
    assert _losses(tmp_path / "run") == first
    assert capsys.readouterr().out.splitlines()[:4] == table.splitlines()[:4]


def test_two_processes_do_not_write_one_run(
    tmp_path: Path, train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--steps", "2", "--eval-bases", "200") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    with folder.held(tmp_path / "run"):
        assert train(tmp_path / "run", resume=True) == 2
    assert "another process is writing the run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert train(tmp_path / "run", resume=True) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_process_saves_and_says_how_to_resume(
    tmp_path: Path, train_process: Callable, genome_file: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run with a space"
    options = ("--preset", "micro", "--context", "1024", "--batch", "2", "--fasta", str(genome_file), "--steps", "100000")
    process = train_process(out, *options, "--eval-bases", "200")
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step within a minute"
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    command = next(line.partition("continue with: ")[2] for line in error.splitlines() if "continue with: " in line)
    words = shlex.split(command)
    assert words == ["longwave", "train", "dna", "--out", str(out), "--resume"]
    step = checkpoint.describe(checkpoint.find_weights(out)).step
    assert step == metrics.read_text().count("\n")
    assert state.state_path(out, step).exists()
    again = train_process(out, *words[5:])
    while metrics.read_text().count("\n") <= step:
        assert again.poll() is None, again.communicate()
        assert time.monotonic() < deadline + 60, "no step after the resume"
        time.sleep(0.05)
    again.send_signal(number)
    again.communicate(timeout=60)
    assert again.returncode == 130
    assert checkpoint.describe(checkpoint.find_weights(out)).step > step


def test_second_interrupt_stops_at_once() -> None:
    from longwave.train.interrupt import InterruptGuard

    before = signal.getsignal(signal.SIGINT)
    with InterruptGuard() as guard:
        assert not guard.requested
        signal.raise_signal(signal.SIGINT)
        assert guard.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    """Its folder holds a config and perhaps metrics: neither command may send the user to the other."""
    fasta = tmp_path / "g.fa"
    letters = torch.randint(4, (30_000,), generator=torch.Generator().manual_seed(0)).tolist()
    fasta.write_text(">r\n" + "".join("ACGT"[i] for i in letters) + "\n")
    options = ["--fasta", str(fasta), "--steps", "2", "--batch", "1", "--eval-bases", "1000"]
    out, straight = tmp_path / "killed", tmp_path / "straight"
    assert cli.main(["train", "dna", "--out", str(straight), *options]) == 0
    assert cli.main(["train", "dna", "--out", str(out), *options]) == 0
    state.remove(out, 2)
    half = state.state_path(out, 1)
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half")
    assert cli.main(["train", "dna", "--out", str(out), "--resume"]) == 0
    names = ("step", "bits_per_base")
    lines = [
        [
            {n: m[n] for n in names}
            for m in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if m["kind"] == "train"
        ]
        for folder in (out, straight)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 2
    assert not half.exists()


def test_the_default_batch_keeps_the_bases_of_a_step() -> None:
    def resolve(asked: dict[str, object]) -> options.Options:
        return options.resolve("dna", asked)

    assert resolve({}).batch == 4
    assert resolve({"context": 4096}).batch == 1
    assert resolve({"context": 2**20}).batch == 1
    assert resolve({"preset": "hyenadna-tiny-1k", "context": 2**18}).batch == 1
    assert resolve({"context": 4096, "batch": 3}).batch == 3
