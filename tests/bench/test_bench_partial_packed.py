"""`longwave bench --partial` and `--packed`: right first, measured beside what they claim to beat, kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from longwave.bench import packed, partial
from longwave.cli import main


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "L", 4_096)
    monkeypatch.setattr(partial, "TAPS", (64, 4_096))
    monkeypatch.setattr(partial, "SAMPLES", (13,))
    for name, value in {"DOCUMENTS": 12, "MANY": 30, "LONGEST": 200, "H": 3, "CHECKED": 10, "PADDED_BYTES": 2**16}.items():
        monkeypatch.setattr(packed, name, value)


def test_partial_puts_every_filter_beside_the_whole_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert main(["bench", "--partial", "--backend", "plain", "--rounds", "5", "--json", str(path)]) == 0
    assert capsys.readouterr().out.count("× K=L") == 2
    kept = json.loads(path.read_text())
    assert (kept["schema"], kept["L"]) == (partial.SCHEMA, 4_096)
    short, whole = kept["results"]
    assert (short["taps"], whole["taps"], whole["times_faster"]) == (64, 4_096, 1.0)
    assert short["B"] * short["H"] * kept["L"] == short["samples"] == 2**13
    assert all(0 < row["error"] < 1e-6 and len(row["raw_seconds"]) >= 5 for row in kept["results"])
    assert short["extra_bytes_of_full"] == whole["extra_bytes"]


def test_packed_is_measured_beside_its_rivals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert main(["bench", "--packed", "--rounds", "5", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    rows = json.loads(path.read_text())["results"]
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    assert "plain" in backends
    assert len(rows) == 2 * len(backends)
    assert out.count("padded batch") == len(backends)
    for few, many in zip(rows[::2], rows[1::2], strict=True):
        assert (few["documents"], many["documents"]) == (12, 30)
        assert min(few["times_padded"], few["times_loop"], few["ms"]) > 0
        assert {name: len(times) for name, times in few["raw_seconds"].items()} == {"packed": 5, "padded": 5, "loop": 5}
        assert many["padded_ms"] is None
        assert all(0 < row["error"] < 1e-6 for row in (few, many))
        assert few["backend"] != "cpu" or few["same_bits"]


def test_the_padded_rival_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formula in parts, against the packed call: a rival that computed something else would be no rival."""
    documents = packed._Packed(12)
    results: list[torch.Tensor] = []
    irfft = torch.fft.irfft
    monkeypatch.setattr(torch.fft, "irfft", lambda X, n: results.append(irfft(X, n)) or results[-1])
    documents.padded()()
    monkeypatch.undo()
    assert len(results) > 1
    y = torch.cat(results)
    for i, (start, end) in enumerate(zip(documents.bounds, documents.bounds[1:], strict=False)):
        torch.testing.assert_close(y[i, :, : end - start], documents.packed("plain")[0, :, start:end], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", ["--partial", "--packed"])
def test_a_wrong_result_is_not_timed(option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("longwave.long_conv", lambda u, k, *_, **__: torch.zeros_like(u))
    monkeypatch.setattr(packed, "long_conv", lambda u, k, **_: torch.zeros_like(u))
    assert main(["bench", option, "--backend", "plain"]) == 2
    assert "nothing is measured" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--partial", "--packed", "--short"])
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--rounds", "4"], "--rounds 4 is too few for a median with its spread; use at least 5"),
        (["--seconds", "-1"], "--seconds -1 is no time; use 0 or more"),
        (["--seconds", "nan"], "--seconds nan is no time"),
        (["--backend", "nope"], "--backend nope is unknown"),
        (["--device", "cuda"], "a table of its own, measured on the CPU, and --device is not for it; drop one"),
        (["--samples", "22"], "--samples is not for it"),
        (["--cases", "64K"], "--cases is not for it"),
        (["--direction", "forward"], "--direction is not for it"),
        (["--quick"], "--quick is not for it"),
        (["--list"], "--list is not for it"),
        (["--plot", "out.png"], "--plot is not for it"),
        (["--markdown"], "--markdown is not for it"),
        (["--from", "out.json"], "--from is not for it"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_what_a_table_of_its_own_does_not_take_is_refused(
    option: str, given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", option, *given]) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""  # nothing was measured
