"""`longwave` as a user meets it: good input, bad input, one sentence and status 2, no traceback without `--debug`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from allocated import peak_bytes
from terminal import typed

import longwave
from longwave import cli
from longwave.errors import ArgumentError
from longwave.models.hyena import PRESETS, HyenaLM
from longwave.train import step_time


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    status, listed, _ = typed(capsys, "--help")
    assert status == 0
    for name, module in cli.command_modules().items():
        assert name in listed
        assert "\n" not in module.HELP
        status, out, _ = typed(capsys, name, "--help")
        assert status == 0
        assert f"longwave {name}" in out


def test_doctor_names_versions_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(capsys, "doctor")
    assert status == 0
    for part in (
        "longwave ",
        "python ",
        "torch ",
        "triton ",
        "threads ",
        "cuda",
        "backend      plain: ready",
        "backend      triton: ",
    ):
        assert part in out


def test_warm_compiles_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    status, out, _ = typed(capsys, "warm")
    assert status == 0
    assert "cpu: 28 kernels ready" in out
    assert "plain: nothing to compile" in out


def test_step_times_backends_beside_copies(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(capsys, "step", "--preset", "tiny", "--context", "1024", "--rounds", "1", "--backend", "plain")
    assert status == 0
    assert "backend plain" in out
    assert "replaced by a copy:" in out
    for bad in (["--context", "0"], ["--rounds", "0"], ["--preset", "huge"], ["--backend", "nothing"]):
        status, _, err = typed(capsys, "step", *bad)
        assert status == 2
        assert err.count("\n") == 1


def test_step_says_what_one_step_holds_without_timing_it(capsys: pytest.CaptureFixture[str]) -> None:
    size = ("--preset", "tiny", "--layers", "1", "--context", "16384", "--backend", "plain")
    status, out, _ = typed(capsys, "step", *size, "--memory", "--rounds", "0")
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("  backend plain: ")]
    if "does not say" not in line:
        held = float(line.split()[-2]) * 2**30
        hidden = 16_384 * 64 * 4  # the least that is held: a few dozen times the hidden states, and a few of the filters
        assert 10 * hidden < held < 200 * hidden
    assert "replaced by a copy" not in out


def test_what_a_step_holds_is_not_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few positions: gradients, and as much inside AdamW; its moments were made before, timed or not."""
    monkeypatch.setattr(step_time, "peak_extra_bytes", peak_bytes)
    parameters = sum(p.numel() for p in HyenaLM(dataclasses.replace(PRESETS["hyenadna-tiny-1k-d256"], layers=1)).parameters())
    for rounds in (0, 1):
        steps = step_time.measure(
            "hyenadna-tiny-1k-d256", 8, 1, ["plain"], rounds=rounds, activation_checkpointing=False, layers=1, memory=True
        )
        assert 1 < steps.bytes["plain"] / (4 * parameters) < 2.5


def test_plan_explains(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = typed(
        capsys,
        "plan",
        "-B",
        "2",
        "-H",
        "8",
        "-L",
        "1000",
        "-K",
        "30",
        "--skip",
        "--pregate",
        "--history",
        "5",
        "--dtype",
        "bfloat16",
    )
    assert status == 0
    assert "long convolution of B=2 H=8 L=1,000 (bfloat16, cpu) with 8 filters of 30 lags" in out
    assert "skip, pregate, history of 5" in out
    status, out, _ = typed(capsys, "plan", "-H", "4", "-L", "10", "--documents", "0,4,10", "--mode", "same", "--layout", "BLH")
    assert status == 0
    assert "2 documents" in out
    status, out, _ = typed(capsys, "plan", "-H", "4", "-L", "10", "--per-sample", "--reverse-taps", "3", "--filters", "4")
    assert status == 0
    assert "lags" in out
    status, out, _ = typed(capsys, "plan", "-H", "4", "-L", "10", "--keep", "0.25")
    assert status == 0
    assert "FrequencyMask.lowpass(0.25" in out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "longwave: the following arguments are required: COMMAND"),
        (["fly"], "longwave: argument COMMAND: invalid choice: 'fly'"),
        (["plan", "-L", "ten"], "longwave plan: argument --length/-L: invalid int value: 'ten'"),
        (["plan", "-L", "0"], "longwave plan: u is empty, shape (1, 768, 0)"),
        (["plan", "-L", "-5"], "longwave plan: u_shape is -5; give a whole number"),
        (["plan", "-K", "0"], "longwave plan: k has no taps"),
        (["plan", "--filters", "5"], "longwave plan: k has 5 rows"),
        (["plan", "--mode", "valid"], "longwave plan: mode='valid' is unknown"),
        (["plan", "--dtype", "int8"], "longwave plan: --dtype int8 is unknown"),
        (["plan", "--documents", "0;4"], "longwave plan: --documents '0;4' is no list of boundaries"),
        (["plan", "--documents", "0,4"], "longwave plan: cu_seqlens runs from 0 to 4"),
        (["plan", "--keep", "2"], "longwave plan: keep is 2.0; give the fraction"),
        (["plan", "--backend", "fast"], "longwave plan: backend='fast' is unknown"),
        (["plan", "--device", "tpu"], "longwave plan: device='tpu' is unknown"),
        (["plan", "--history", "4", "--mode", "same"], "longwave plan: history does not go with mode='same'"),
        (["doctor", "--fast"], "longwave: unrecognized arguments: --fast"),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str], argv: list[str], sentence: str) -> None:
    status, out, err = typed(capsys, *argv)
    assert status == 2
    assert out == ""
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ArgumentError):
        cli.main(["plan", "-L", "0", "--debug"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m longwave.cli doctor | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stdout.startswith("longwave")
    assert done.stderr == ""


def test_what_the_system_refuses_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = typed(capsys, "info", "x" * 5000)
    assert (status, out) == (2, "")
    assert err.startswith("longwave info: ")
    assert err.count("\n") == 1


def test_what_nobody_foresaw_is_one_sentence_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: object) -> int:
        raise TypeError("a list\nwhere a number stood")

    monkeypatch.setattr(cli.command_modules()["doctor"], "run", broken)
    status, out, err = typed(capsys, "doctor")
    assert (status, out) == (2, "")
    assert err == (
        "longwave doctor: cannot go on (TypeError: a list where a number stood); a file may be damaged, --debug shows where\n"
    )
    with pytest.raises(TypeError):
        cli.main(["doctor", "--debug"])


def test_what_every_rank_raises_rank_zero_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*_: object, **__: object) -> None:
        error = ArgumentError("all of us")
        error.everywhere = True
        raise error

    monkeypatch.setattr(longwave, "plan", refused)
    for rank, said in (("0", "longwave plan: all of us\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        status, _, heard = typed(capsys, "plan")
        assert (status, heard) == (2, said)
