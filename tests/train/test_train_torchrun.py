"""`torchrun -m longwave train`: what several processes say, how they end, and how they go on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from longwave.train import checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")

QUICK = ("--context", "1024", "--eval-bases", "1500", "--eval-every", "1000", "--device", "cpu", "--autocast", "off")

Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(genome_file: Path) -> Iterator[Launch]:
    """`longwave train dna` under torchrun; whatever is left of it is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(out: Path, *options: str, processes: int = 2, torchrun: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        where = () if "--nnodes" in torchrun else ("--standalone",)
        program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *where, *torchrun]
        asked = ["-m", "longwave", "train", "dna", "--fasta", str(genome_file), "--out", str(out), *QUICK, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*program, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=120)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, list[str]]:
    """Its status, and what longwave itself said."""
    out, error = process.communicate(timeout=seconds)
    return process.returncode, [line for line in error.splitlines() if re.match(r"longwave( \w+)*: ", line)] or [out, error]


def _steps(out: Path) -> list[int]:
    path = out / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines() if '"train"' in line] if path.exists() else []


def _wait(process: subprocess.Popen[str], until: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.05)


def _workers(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank to process number."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        environment = dict(word.split("=", 1) for word in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in word)
        found[int(environment["RANK"])] = int(child)
    return found


def _scores(out: Path) -> list[float]:
    return [
        line["bits_per_base"]
        for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        if "bits_per_base" in line
    ]


def test_a_killed_rank_ends_the_job_with_one_sentence(tmp_path: Path, launch: Launch) -> None:
    process = launch(tmp_path / "run", "--batch", "2", "--steps", "100000", "--cp", "2")
    _wait(process, lambda: len(_steps(tmp_path / "run")) > 2)
    os.kill(_workers(process)[1], signal.SIGKILL)
    status, said = _ended(process, 60)
    assert status
    (sentence,) = said
    assert "another rank has ended" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("machine", [0, 1])
def test_a_machine_that_is_gone_ends_the_others(tmp_path: Path, launch: Launch, machine: int) -> None:
    """Everything on one of two is stopped, its launcher too, and with the first one the store: no connection is closed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free.getsockname()[1]))
    asked = ("--batch", "2", "--steps", "100000", "--cp", "2")
    machines = [
        launch(tmp_path / "run", *asked, processes=1, torchrun=(*where, "--node-rank", str(number))) for number in range(2)
    ]
    _wait(machines[0], lambda: len(_steps(tmp_path / "run")) > 2)
    gone = [machines[machine].pid, *_workers(machines[machine]).values()]
    for process in gone:
        os.kill(process, signal.SIGSTOP)
    try:
        status, said = _ended(machines[1 - machine], 60)
    finally:
        for process in gone:
            os.kill(process, signal.SIGKILL)
    assert status
    (sentence,) = said
    assert "has not answered for 20 seconds: it was stopped, or its machine is gone" in sentence


@pytest.mark.slow
def test_the_launcher_starts_again_from_the_last_checkpoint(tmp_path: Path, launch: Launch) -> None:
    """The first rank is killed, and nothing but the steps since the checkpoint is done twice."""
    options = ("--batch", "2", "--steps", "12", "--checkpoint-every", "4", "--lr", "1e-3", "--fsdp", "2")
    straight = launch(tmp_path / "straight", *options)
    assert straight.wait(240) == 0, straight.communicate()
    straight.communicate()
    process = launch(tmp_path / "run", *options, torchrun=("--max-restarts", "2"))
    _wait(process, lambda: (tmp_path / "run").exists() and 4 in checkpoint.steps_in(tmp_path / "run"))
    os.kill(_workers(process)[0], signal.SIGKILL)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert "started again by the launcher: going on with the run" in error
    assert re.search(r"step (5|9)/12", error)
    assert _steps(tmp_path / "run") == list(range(1, 13))
    assert _scores(tmp_path / "run") == pytest.approx(_scores(tmp_path / "straight"), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_folder_that_was_refused_is_refused_after_a_restart_too(tmp_path: Path, launch: Launch, processes: int) -> None:
    """The run in it has the same options, and is another job's."""
    options = ("--batch", "2", "--steps", "2")
    first = launch(tmp_path / "run", *options, processes=processes)
    assert first.wait(240) == 0, first.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    again = launch(tmp_path / "run", *options, processes=processes, torchrun=("--max-restarts", "1"))
    status, said = _ended(again)
    assert status
    assert len(said) == 2
    assert all("is not empty; add --resume to continue its run" in sentence for sentence in said)
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("to", ["launcher", "last rank"])
def test_interrupted_processes_save_and_say_how_to_go_on(tmp_path: Path, launch: Launch, to: str) -> None:
    out = tmp_path / "run"
    process = launch(out, "--batch", "2", "--steps", "100000", "--dp", "2")
    _wait(process, lambda: len(_steps(out)) > 2)
    os.kill(process.pid if to == "launcher" else _workers(process)[1], signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode
    (command,) = (line for line in error.splitlines() if "continue with: " in line)
    assert command.endswith(f"torchrun --nproc-per-node 2 -m longwave train dna --out {out} --resume")
    assert checkpoint.steps_in(out) == [_steps(out)[-1]]
    assert "Traceback" not in error.partition("stopped after step")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--cp", "2", "--dp", "2"), "does not fit the number of processes: 2 processes were started; start 4"),
        (("--batch", "3"), "training on rank 0 of 2: --batch 3 cannot be dealt out"),
        (("--preset", "s5-tiny", "--cp", "2"), "the model s5 does not read spans"),
        (("--steps", "$RANK"), "--steps must be at least 1"),
        (("--device", "cuda:0"), "--device cuda:0 names one GPU for 2 processes"),
        (("--packed", "on"), "genome.fa.fai cannot be written"),
        (("--seed", "$RANK"), "training was called with --seed 0 on rank 0 and 1 on rank 1 of 2"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_once(tmp_path: Path, genome_file: Path, options: tuple[str, ...], sentence: str) -> None:
    asked = ["train", "dna", "--fasta", str(genome_file), "--out", str(tmp_path / "run"), *QUICK]
    if "--packed" in options:  # rights would not keep root away
        (tmp_path / "genome.fa.fai").mkdir()
    script = tmp_path / "start.sh"
    script.write_text(f"exec {sys.executable} -m longwave {' '.join(asked)} --batch 2 {' '.join(options)}\n")
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python", "sh"]
    process = subprocess.Popen([*program, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    status, said = _ended(process)
    assert status
    (line,) = said
    assert sentence in line
    assert not (tmp_path / "run").exists()


def test_a_missing_rank_is_waited_for_no_longer_than_asked(tmp_path: Path, genome_file: Path) -> None:
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    asked = ["train", "dna", "--fasta", str(genome_file), "--out", str(tmp_path / "run"), "--timeout", "2"]
    process = subprocess.run(
        [sys.executable, "-m", "longwave", *asked], capture_output=True, text=True, env=environment, timeout=120
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert "did not answer in time while waiting for the other processes" in line
