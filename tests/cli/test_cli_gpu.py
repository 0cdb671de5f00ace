"""`longwave gpu`: its stages in order, within their time, with everything kept; the commands themselves need a GPU."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from terminal import typed

from longwave import cli
from longwave.commands.gpu import STAGES, Stage, run_stages


def test_stages_go_on_after_a_failure_and_end_at_their_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [
        Stage(
            "good", 0.5, ("-c", "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('x'); print('well')", "{out}/made")
        ),
        Stage("bad", 0.5, ("-c", "raise SystemExit(3)")),
        Stage(
            "slow", 0.1, ("-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])")
        ),
        Stage("absent", 0.5, ("-c", ""), "no-such-program"),
        Stage("last", 0.5, ("-c", "")),
    ]
    started = time.monotonic()
    assert run_stages(stages, 20, tmp_path, tmp_path) == 1
    assert time.monotonic() - started < 20
    kept = json.loads((tmp_path / "summary.json").read_text())
    found = {row["stage"]: row["found"] for row in kept["stages"]}
    assert found == {
        "good": "passed", "bad": "failed with status 3", "slow": "stopped at its limit",
        "absent": "no-such-program is not installed", "last": "passed",
    }  # fmt: skip
    assert kept["stamp"]["commit"] is not None
    assert (tmp_path / "made").read_text() == "x"
    assert "well" in (tmp_path / "good.log").read_text()
    assert "stopped at its limit" in capsys.readouterr().out
    assert run_stages(stages[:1], 20, tmp_path, tmp_path) == 0
    assert run_stages(stages[:1], 0.1, tmp_path, tmp_path) == 1


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_is_a_command_that_there_is(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    module, *rest = stage.arguments[1:]
    if module == "longwave.cli":
        with pytest.raises(SystemExit) as stop:
            cli.main([*rest, "--help"])
        assert stop.value.code == 0
        assert "--device" in capsys.readouterr().out
    else:
        assert module == "pytest"
        assert all((Path(__file__).parents[2] / part).exists() for part in rest if part.startswith("tests/"))
        assert dict(stage.environment)["OMP_NUM_THREADS"] == "1"
    assert 0 < stage.share <= 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "benches"], "--only benches is unknown; choose from kernels, device"),
        (["--minutes", "0"], "--minutes 0 is no time; use more than 0"),
        pytest.param(
            [], "--device cuda is not on this machine", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="GPU")
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = typed(capsys, "gpu", *arguments)
    assert status == 2
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_tuning_for_a_gpu_is_refused_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in (
        (["--device", "cuda"], "--device cuda is not on this machine"),
        (["--device", "cuda", "--show", "--json", "x.json"], "--show, --reset and --adopt measure nothing; drop it"),
        (["--device", "cuda", "--adopt", "no-such-file"], "no-such-file has no rows of launches"),
        (["--json", "x.json"], "--json is about rows of --device cuda"),
        (["--adopt"], "--adopt is about rows of --device cuda"),
        (["--device", "abacus", "--show"], "--device abacus has no table; use cpu, or cuda"),
        (["--device", "cuda:1", "--reset"], "--device cuda:1 has no table; use cpu, or cuda"),
        (["--device", "cuda:1"], "--device cuda:1 is one of several; use cuda"),
    ):
        status, _, err = typed(capsys, "tune", *arguments)
        assert status == 2
        assert sentence in err


def test_it_needs_a_checkout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("longwave.__file__", "/nowhere/site-packages/longwave/__init__.py")
    status, _, err = typed(capsys, "gpu")
    assert status == 2
    assert "run longwave gpu in a checkout" in err


def test_make_runs_every_test_there() -> None:
    (target,) = (line for line in (Path(__file__).parents[2] / "Makefile").read_text().splitlines() if "--only" in line)
    assert target.split("--only ")[1].split() == [stage.name for stage in STAGES if "pytest" in stage.arguments]
