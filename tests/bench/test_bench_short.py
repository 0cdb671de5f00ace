"""`longwave bench --short`: measured, right first, kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from longwave.bench import short
from longwave.cli import main


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"B": 2, "H": 9, "L": 50, "TAPS": (1, 7)}.items():
        monkeypatch.setattr(short, name, value)


def test_every_shape_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--short", "--rounds", "5", "--json", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.count("F.conv1d") == 2 * 2 * 2
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["schema"] == short.SCHEMA
    assert len(kept["results"]) == 8
    assert all(result["times_faster"] > 0 and len(result["raw_seconds"]["ours"]) >= 5 for result in kept["results"])
    assert all(0 < result["error"] < 1e-6 or result["taps"] == 1 for result in kept["results"])


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(short, "short_conv", lambda x, w, bias, layout: torch.zeros_like(x) * w.sum() * bias.sum())
    assert main(["bench", "--short"]) == 2
    assert "nothing is measured" in capsys.readouterr().err
