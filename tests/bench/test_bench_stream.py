"""`longwave bench --stream`: right first, measured beside what it claims to beat, kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longwave.bench import stream
from longwave.cli import main
from longwave.errors import ArgumentError, DataError

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"T": 1_500, "H": 6, "CHUNKS": (256, 100), "WIDTHS": (3,), "CONTEXTS": (500,), "STEPS": 40, "HALL": 2_000}
    for name, value in (sizes | {"AUDIO_SECONDS": 1}).items():
        monkeypatch.setattr(stream, name, value)


def test_streams_are_measured_beside_their_rivals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    assert main(["bench", "--stream", "--backend", "cpu", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    for words in ("1,500 steps, H=6", "extend by 256", "extend by 100", "context 500", "of one core"):
        assert words in out
    kept = json.loads(path.read_text())
    assert kept["schema"] == stream.SCHEMA
    steps, first, second, generation, reverb = kept["results"]
    assert steps["median_us"] <= steps["p99_us"] <= steps["slowest_us"] <= steps["total_s"] * 1e6
    assert 0 < steps["slowest_always_us"] <= steps["slowest_us"]
    assert [first["chunk"], second["chunk"]] == [256, 100]
    assert min(generation["steps_a_second"], generation["recomputing"], generation["direct"]) > 0
    assert 0 < reverb["share"] <= reverb["slowest_share"]
    assert 0 < reverb["slowest_always_share"] <= reverb["slowest_share"]
    assert all(0 < row["error"] < 4e-7 for row in (steps, first, second, reverb))


def test_a_wrong_stream_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stream.longwave.Stream.step
    monkeypatch.setattr(stream.longwave.Stream, "step", lambda self, u: right(self, u) * 1.001)
    with pytest.raises(DataError, match="nothing is measured"):
        stream._steps("cpu")


def test_what_it_does_not_measure_is_refused() -> None:
    with pytest.raises(ArgumentError, match="--stream does not measure plain, whose steps take too long; name --backend cpu"):
        next(stream.measure(["plain"], 5, 0.0))
