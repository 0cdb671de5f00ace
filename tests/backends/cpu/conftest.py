"""The operator's cases serve every backend: their module is found beside the operator's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba")
from longwave.bench.tune import set_crossovers

sys.path.append(str(Path(__file__).parents[2] / "ops"))


@pytest.fixture(autouse=True)
def _nan_filled(nan_filled_memory: None) -> None:
    """Every test of the engine runs in memory filled with NaN."""


@pytest.fixture
def by_six_steps() -> Iterator[None]:
    """Transforms of any length go by six steps, which are otherwise for long rows."""
    with set_crossovers(six_step_from=1, windows_gain=0.0, most_taps=((0, 0),)):
        yield


@pytest.fixture
def by_transforms() -> Iterator[None]:
    """Few taps are transformed like many."""
    with set_crossovers(most_taps=((0, 0),)):
        yield


@pytest.fixture
def by_windows() -> Iterator[None]:
    """Filters that are shorter than their signal go in windows, however short those are."""
    with set_crossovers(windows_gain=1e9, shortest_window=1, longest_window=64, most_taps=((0, 0),)):
        yield


@pytest.fixture
def whole_rows() -> Iterator[None]:
    """Every thread takes rows of its own, and their matrices may be of any size."""
    with set_crossovers(whole_rows_bytes=2**40):
        yield
