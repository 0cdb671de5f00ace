"""`examples/extend_context.py --quick` runs, scores the same bases at every length, and gives the same numbers twice."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "extend_context.py"


def _rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), "--quick", *options])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    assert "65,536 held-out bases" in out
    return [line.split() for line in out.splitlines() if re.match(r"[\d,]+ {2,}", line)]


def test_one_training_is_scored_at_four_lengths(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(monkeypatch, capsys)
    assert [row[:2] for row in rows] == [["1,024", "64"], ["4,096", "16"], ["16,384", "4"], ["65,536", "1"]]
    bits = [float(row[2]) for row in rows]
    assert all(1.9 < b < 2.2 for b in bits)
    assert len(set(bits)) == 4  # a longer window does see more
    assert [float(row[3]) for row in rows] == pytest.approx([b - bits[0] for b in bits], abs=1.1e-5)
    assert [row[2] for row in _rows(monkeypatch, capsys)] == [row[2] for row in rows]
    assert [row[2] for row in _rows(monkeypatch, capsys, "--steps", "1")] != [row[2] for row in rows]
