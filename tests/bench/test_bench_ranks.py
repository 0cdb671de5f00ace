"""The measurement of split sequences: right, and with the bytes of the plan."""

from __future__ import annotations

import sys

import pytest

from longwave.bench import ranks


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo is tested on Linux")
def test_bytes_are_those_of_the_plan() -> None:
    rows = list(ranks.measure([], 1, 0.0))
    assert {row.ranks for row in rows} == set(ranks.WORLDS)
    for row in rows:
        assert row.measured_bytes == row.received_bytes
        assert (row.overlap is None) == (row.ranks == 1)
        assert min(row.ms, row.step_ms, row.moving_ms, row.convolving_ms) > 0
        assert "error" in row.line
